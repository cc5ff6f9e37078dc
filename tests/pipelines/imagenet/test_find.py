"""Finding, labelling and choosing images. No file here holds a picture: none is opened."""

import os
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from pipelines.imagenet.find import Image, find_images, subset, wnids
from scarlet.errors import BenchError

TENCH, GOLDFISH, TOILET_TISSUE = "n01440764", "n01443537", "n15075141"


def put(path: Path, size: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    return path


def error_of(data: Path) -> BenchError:
    with pytest.raises(BenchError) as caught:
        find_images(data)
    assert "\n" not in caught.value.what
    assert "\n" not in caught.value.do
    return caught.value


def test_wnids_are_the_thousand_sorted_ones():
    ids = wnids()
    assert len(set(ids)) == 1000
    assert list(ids) == sorted(ids)
    assert (ids[0], ids[999]) == (TENCH, TOILET_TISSUE)


@pytest.mark.parametrize("place", ["", "valid", "val", "ILSVRC2012_img_val", "Data/CLS-LOC/val"])
def test_labels_of_a_few_class_folders_are_places_among_all_wnids(tmp_path, place):
    put(tmp_path / place / TOILET_TISSUE / "b.JPEG")
    put(tmp_path / place / GOLDFISH / "o'hara's pet é.jpg")
    found = find_images(tmp_path)
    prefix = f"{place}/" if place else ""
    assert [(image.image_id, image.label) for image in found.images] == [
        (f"{prefix}{GOLDFISH}/o'hara's pet é.jpg", 1),
        (f"{prefix}{TOILET_TISSUE}/b.JPEG", 999),
    ]
    assert found.layout == "folders"
    assert found.root == tmp_path
    assert all(image.path.is_file() for image in found.images)


def test_a_validation_folder_goes_before_the_data_folder_and_empty_ones_are_passed_over(tmp_path):
    put(tmp_path / TENCH / "a.JPEG")
    (tmp_path / "valid").mkdir()
    assert [image.image_id for image in find_images(tmp_path).images] == [f"{TENCH}/a.JPEG"]
    put(tmp_path / "val" / GOLDFISH / "b.JPEG")
    put(tmp_path / "train" / TENCH / "c.JPEG")
    assert [image.image_id for image in find_images(tmp_path).images] == [f"val/{GOLDFISH}/b.JPEG"]


def test_what_counts_as_an_image(tmp_path):
    for name in ("a.jpeg", "b.JPEG", "c.Jpg", "d.PNG", ".hidden.JPEG", "._e.JPEG", "notes.txt", "f.JPEG.bak"):
        put(tmp_path / TENCH / name)
    (tmp_path / TENCH / "folder.jpg").mkdir()
    put(tmp_path / ".cache" / "g.JPEG")
    put(tmp_path / "logs" / "readme.txt")
    names = [image.path.name for image in find_images(tmp_path).images]
    assert names == ["a.jpeg", "b.JPEG", "c.Jpg", "d.PNG"]


def test_links_are_followed_and_dangling_ones_kept(tmp_path):
    real = put(tmp_path / "elsewhere" / "stuff" / "a.JPEG")
    data = tmp_path / "data"
    (data / TENCH).mkdir(parents=True)
    (data / TENCH / "a.JPEG").symlink_to(real)
    (data / TENCH / "b.JPEG").symlink_to(tmp_path / "gone.JPEG")
    (data / GOLDFISH).symlink_to(real.parent, target_is_directory=True)
    ids = [image.image_id for image in find_images(data).images]
    assert ids == [f"{TENCH}/a.JPEG", f"{TENCH}/b.JPEG", f"{GOLDFISH}/a.JPEG"]


def test_fingerprint_depends_on_ids_labels_and_sizes_only(tmp_path):
    for root in ("one", "two"):
        put(tmp_path / root / TENCH / "a.JPEG", 5)
        put(tmp_path / root / GOLDFISH / "b.JPEG", 6)
    first = find_images(tmp_path / "one").fingerprint
    assert len(first) == 64
    assert find_images(tmp_path / "two").fingerprint == first
    put(tmp_path / "two" / GOLDFISH / "b.JPEG", 7)
    larger = find_images(tmp_path / "two").fingerprint
    assert larger != first
    os.rename(tmp_path / "two" / GOLDFISH / "b.JPEG", tmp_path / "two" / TENCH / "b.JPEG")
    assert find_images(tmp_path / "two").fingerprint not in (first, larger)


def test_the_demo_marker_is_seen(tmp_path):
    put(tmp_path / TENCH / "a.JPEG")
    assert not find_images(tmp_path).is_demo
    put(tmp_path / ".scarlet-demo.json")
    assert find_images(tmp_path).is_demo


@pytest.mark.parametrize("list_in", ["", "val"])
def test_flat_files_with_val_txt(tmp_path, list_in):
    for name in ("b one.JPEG", "a.JPEG", "c.JPEG"):
        put(tmp_path / "val" / name)
    (tmp_path / list_in / "val.txt").write_text("\ufeffa.JPEG 7\n\n./b one.JPEG 999\r\nval/c.JPEG\t0\n")
    found = find_images(tmp_path)
    assert found.layout == "val.txt"
    assert [(image.image_id, image.label) for image in found.images] == [
        ("val/a.JPEG", 7),
        ("val/b one.JPEG", 999),
        ("val/c.JPEG", 0),
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a.JPEG 7\nb.JPEG\n", "line 2 of {} is not a file name and a label from 0 to 999: 'b.JPEG'"),
        ("a.JPEG 1001\n", "line 1 of {} is not a file name and a label from 0 to 999: 'a.JPEG 1001'"),
        ("a.JPEG 0\nb.JPEG 1000\n", "{} has labels from 0 to 1000, and there are 1000 classes"),
        ("a.JPEG -1\n", "line 1 of {} is not a file name and a label from 0 to 999: 'a.JPEG -1'"),
        (f"a.JPEG {'9' * 5000}\n", "line 1 of {} is not a file name and a label from 0 to 999: 'a.JPEG 999"),
        ("a.JPEG x\n", "line 1 of {} is not a file name and a label from 0 to 999: 'a.JPEG x'"),
        ("a.JPEG 1\na.JPEG 1\n", "line 2 of {} names a.JPEG again"),
        ("a.JPEG 1\n", "{} has no line for an image that is in"),
    ],
)
def test_val_txt_that_does_not_fit(tmp_path, text, what):
    put(tmp_path / "a.JPEG")
    put(tmp_path / "b.JPEG")
    (tmp_path / "val.txt").write_text(text)
    assert error_of(tmp_path).what.startswith(what.format(tmp_path / "val.txt"))


def test_val_txt_that_is_no_text(tmp_path):
    put(tmp_path / "a.JPEG")
    (tmp_path / "val.txt").write_bytes(b"\xff\xfe\x00\x80")
    assert error_of(tmp_path).what.startswith(f"cannot read {tmp_path / 'val.txt'}")


def put_devkit(root: Path, truth: str, synsets: object = None) -> dict[int, str]:
    """A development kit whose ids run against the order of the wnids. Returns the wnid of each id."""
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    wnid_of_id = dict(enumerate(reversed(wnids()), start=1))
    if synsets is None:
        wnid_of_id_and_inner = {**wnid_of_id, 1001: "n00001740"}
        fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
        rows = [(number, wnid, "some, words", 0) for number, wnid in wnid_of_id_and_inner.items()]
        synsets = np.array(rows, dtype=fields).reshape(-1, 1)
    savemat(folder / "meta.mat", {"synsets": synsets})
    return wnid_of_id


def test_flat_files_with_the_development_kit(tmp_path):
    put_devkit(tmp_path, "490\n1\n1000\n")
    put(tmp_path / "val" / "ILSVRC2012_val_00000003.JPEG")
    put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    found = find_images(tmp_path)
    assert found.layout == "devkit"
    assert [(image.path.name, image.label) for image in found.images] == [
        ("ILSVRC2012_val_00000001.JPEG", 510),
        ("ILSVRC2012_val_00000003.JPEG", 0),
    ]


@pytest.mark.parametrize("name", ["ILSVRC2012_val_00000004.JPEG", "ILSVRC2012_val_00000000.JPEG", "cat.JPEG"])
def test_a_file_that_the_development_kit_does_not_label(tmp_path, name):
    put_devkit(tmp_path, "490\n1\n1000\n")
    put(tmp_path / name)
    assert error_of(tmp_path).what.startswith(f"{name} is none of the 3 images that")


@pytest.mark.parametrize("line", ["0", "1001", "x", ""])
def test_broken_ground_truth(tmp_path, line):
    put_devkit(tmp_path, f"490\n{line}\n1000\n")
    put(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    assert error_of(tmp_path).what.endswith(f"is not an id from 1 to 1000: '{line}'")


def test_broken_meta_mat(tmp_path):
    put_devkit(tmp_path, "490\n", synsets=np.zeros(3))
    put(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    meta = tmp_path / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
    assert error_of(tmp_path).what.startswith(f"cannot read the classes from {meta}")
    meta.write_bytes(b"not a MATLAB file at all")
    assert error_of(tmp_path).what.startswith(f"cannot read the classes from {meta}")
    meta.unlink()
    assert error_of(tmp_path).what.startswith(f"cannot read the classes from {meta}")


def test_missing_ground_truth(tmp_path):
    put_devkit(tmp_path, "490\n")
    put(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    truth = tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.unlink()
    assert error_of(tmp_path).what.startswith(f"cannot read {truth}")


def test_no_such_folder_a_file_and_an_empty_folder(tmp_path):
    assert error_of(tmp_path / "nowhere").what == f"there is no folder {tmp_path / 'nowhere'}"
    file = put(tmp_path / "file.JPEG")
    assert error_of(file).what == f"{file} is not a folder"
    (tmp_path / "empty").mkdir()
    assert error_of(tmp_path / "empty").what == f"{tmp_path / 'empty'} holds no images (*.jpeg, *.jpg, *.png)"


def test_unknown_class_folders_are_named(tmp_path):
    put(tmp_path / TENCH / "a.JPEG")
    put(tmp_path / "cats" / "b.JPEG")
    error = error_of(tmp_path)
    assert error.what.endswith("holds a folder of images that no ImageNet class is named by: cats")
    assert "n01440764" in error.do
    for k in range(4):
        put(tmp_path / f"n9999999{k}" / "b.JPEG")
    assert error_of(tmp_path).what.endswith(
        "5 folders of images that no ImageNet class is named by: cats, n99999990, n99999991 and 2 more"
    )


def test_images_beside_class_folders_are_not_dropped_in_silence(tmp_path):
    put(tmp_path / TENCH / "a.JPEG")
    put(tmp_path / "b.JPEG")
    assert (
        error_of(tmp_path).what == f"1 images lie beside the class folders of {tmp_path}, and so have no class: b.JPEG"
    )


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    put(tmp_path / TENCH / "a.JPEG")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == TENCH:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert error_of(tmp_path).what == f"cannot read the folder {tmp_path / TENCH}: Permission denied"


def test_links_in_circles_and_closed_folders_are_passed_over_and_said(tmp_path, monkeypatch):
    put(tmp_path / TENCH / "a.JPEG")
    (tmp_path / TENCH / "loop.JPEG").symlink_to(tmp_path / TENCH / "loop.JPEG")
    (tmp_path / "n01443537").symlink_to(tmp_path / "n01443537")
    (tmp_path / "x.txt").symlink_to(tmp_path / "x.txt")
    (tmp_path / "valid").symlink_to(tmp_path / "valid")
    closed = tmp_path / "lost+found"
    closed.mkdir()
    (tmp_path / "n01484850").symlink_to(closed)
    scandir = os.scandir

    def refuse(path):
        if Path(path).resolve() == closed:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_images(tmp_path)
    assert [image.image_id for image in found.images] == [f"{TENCH}/a.JPEG", f"{TENCH}/loop.JPEG"]
    words = "passed over, because they may not be entered: lost+found, n01443537, n01484850 and 1 more"
    assert found.notes == (words,)


def test_a_file_name_that_is_no_utf8(tmp_path):
    folder = tmp_path / TENCH
    folder.mkdir()
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.JPEG")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert error_of(tmp_path).what.endswith("is not valid UTF-8")


def some_images(per_class: dict[int, int]) -> list[Image]:
    images = [
        Image(f"{label:03d}/{k:03d}.JPEG", Path(f"{k}"), label)
        for label, count in per_class.items()
        for k in range(count)
    ]
    return sorted(images, key=lambda image: image.image_id)


def test_subset_is_balanced_ordered_and_of_the_right_size():
    images = some_images({1: 50, 2: 50, 5: 2, 9: 50})
    chosen = subset(images, 23)
    assert Counter(image.label for image in chosen) == {1: 7, 2: 7, 5: 2, 9: 7}
    assert [image.image_id for image in chosen] == sorted(image.image_id for image in chosen)
    assert len(set(chosen)) == 23
    counts = Counter(image.label for image in subset(images, 14))
    assert sorted(counts.values()) == [2, 4, 4, 4]


def test_subset_depends_on_the_seed_and_not_on_the_order_given():
    images = some_images(dict.fromkeys(range(10), 20))
    shuffled = list(images)
    random.Random(1).shuffle(shuffled)
    assert subset(images, 30, seed=3) == subset(shuffled, 30, seed=3)
    assert subset(images, 30, seed=3) != subset(images, 30, seed=4)
    assert set(subset(images, 30)) < set(subset(images, 45))


def test_subset_of_more_than_there_are_is_all_and_of_none_is_refused():
    images = some_images({1: 3, 2: 1})
    assert subset(images, 4) == subset(images, 99) == tuple(images)
    with pytest.raises(ValueError, match="at least one"):
        subset(images, 0)
