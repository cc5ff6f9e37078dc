"""Class lists, lists of labels and named folders: which reading is taken, that it is said, and what is refused."""

from pathlib import Path

import pytest

from pipelines.imagenet.find import ImageSet, find_images
from pipelines.imagenet.labels import BACKGROUND, Labelling, read_classes, spoken, wnids
from scarlet.errors import BenchError

TENCH, GOLDFISH = wnids()[:2]
FIRST_CLASSES = (65, 970, 230, 809, 516)  # of ILSVRC2012_val_00000001.JPEG and so on, from 0
FIRST_IDS = (490, 361, 171, 822, 297)


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def labels(found: ImageSet) -> dict[str, int]:
    return {image.image_id: image.label for image in found.images}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("dog\ncat\n\ngreat white shark\n", ("dog", "cat", "great white shark")),
        ("# of my network\n#1 dog\ncat\n", ("#1 dog", "cat")),
        ("n02 is no wnid\nb\n", ("n02 is no wnid", "b")),
        ("n01443537 goldfish, Carassius\nn01440764 tench\n", ("n01443537", "n01440764")),
        ("n02119789 2 kit_fox\nn02100735 1 English_setter\n", ("n02100735", "n02119789")),  # map_clsloc.txt
        ("dummy\nn01440764 tench\n", ("dummy", "n01440764")),
        ("1: dog\n0: cat\n", ("cat", "dog")),
        ("{0: 'tench, Tinca tinca',\n 1: 'goldfish'}", None),
        ('["dog", "cat"]', None),
        ("0: dog\n2: cat\n", None),
        ("dog\ncat\ndog\n", None),
        ("dog\n", None),
        ("", None),
    ],
)
def test_class_lists(tmp_path: Path, text: str, names: tuple[str, ...] | None) -> None:
    path = tmp_path / "classes"
    path.write_text(text)
    if names is None:
        with pytest.raises(BenchError, match=str(path)):
            read_classes(str(path))
    else:
        assert read_classes(str(path)) == names


def test_folders_of_any_names_have_their_places_in_the_list(tmp_path: Path) -> None:
    put(tmp_path, "data/val/great cats/a.jpg", "data/val/dog/b.jpg", "classes.txt")
    with pytest.raises(BenchError, match="dog, great cats") as refused:
        find_images(tmp_path / "data")
    assert "--classes" in refused.value.do
    (tmp_path / "classes.txt").write_text("dog\nbird\ngreat cats\n")
    found = find_images(tmp_path / "data", Labelling(str(tmp_path / "classes.txt")))
    assert labels(found) == {"val/dog/b.jpg": 0, "val/great cats/a.jpg": 2}
    assert (found.classes, found.present) == (("dog", "bird", "great cats"), (0, 2))
    assert "val/great cats/a.jpg -> great cats" in found.reading()[0]


def test_the_background_is_class_0_before_imagenets(tmp_path: Path) -> None:
    put(tmp_path, f"{TENCH}/a.jpg")
    assert labels(find_images(tmp_path, Labelling(BACKGROUND))) == {f"{TENCH}/a.jpg": 1}
    assert f"{TENCH} tench" in find_images(tmp_path).reading()[0]
    assert spoken(read_classes(BACKGROUND))(1000) == f"{wnids()[-1]} toilet tissue"


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("0", "7", "999"), [0, 7, 999]),  # ImageNet-V2's
        (("0000", "0010"), [0, 10]),
        (("1", "1000"), [0, 999]),
        (("0", "1000"), None),
        (("1", "01"), None),
        (("1", "cat"), None),
    ],
)
def test_folders_named_by_numbers(tmp_path: Path, folders: tuple[str, ...], expected: list[int] | None) -> None:
    put(tmp_path, *(f"{folder}/a.jpg" for folder in folders))
    if expected is None:
        with pytest.raises(BenchError, match="ImageNet class"):
            find_images(tmp_path)
    else:
        found = find_images(tmp_path)
        assert (found.layout, sorted(labels(found).values())) == ("numbered folders", expected)


@pytest.mark.parametrize(
    ("folder", "how", "expected"),
    [
        ("5", Labelling(first_label=1), 4),
        ("0", Labelling(first_label=1), None),
        (TENCH, Labelling(first_label=1), None),
        (TENCH, Labelling(labels="val.txt"), None),
    ],
)
def test_what_is_said_of_lists_is_not_passed_over_for_folders(tmp_path, folder, how, expected):
    put(tmp_path, f"{folder}/a.jpg")
    if expected is None:
        with pytest.raises(BenchError):
            find_images(tmp_path, how)
    else:
        assert list(labels(find_images(tmp_path, how)).values()) == [expected]


def official(root: Path, n: int, suffix: str = ".JPEG") -> list[str]:
    names = [f"ILSVRC2012_val_{number:08d}{suffix}" for number in range(1, n + 1)]
    put(root / "val", *names)
    return names


@pytest.mark.parametrize(
    ("numbers", "first_label", "expected"),
    [
        ((0, 5, 999), None, (0, 5, 999)),
        ((1, 5, 1000), None, (0, 4, 999)),  # from 1: 1000 is among them, and 0 is not
        ((1, 5, 9), None, (1, 5, 9)),
        ((1, 5, 9), 1, (0, 4, 8)),
        ((0, 5, 1000), None, None),  # of 1,001 classes
        ((0, 5, 9), 1, None),
        ((1, 5, 1000), 0, None),
        (FIRST_CLASSES, None, FIRST_CLASSES),
        (tuple(number + 1 for number in FIRST_CLASSES), None, FIRST_CLASSES),  # as is known of these images
        (FIRST_IDS, None, None),  # the development kit's, of another order
        (tuple(number - 1 for number in FIRST_IDS), None, None),
    ],
)
def test_lists_from_0_from_1_and_in_another_order(tmp_path, numbers, first_label, expected):
    names = official(tmp_path, len(numbers))
    lines = [f"{name} {number}\n" for name, number in zip(names, numbers, strict=True)]
    (tmp_path / "val.txt").write_text("".join(lines))
    how = Labelling(first_label=first_label)
    if expected is None:
        with pytest.raises(BenchError, match=r"val\.txt has"):
            find_images(tmp_path, how)
    else:
        found = find_images(tmp_path, how)
        assert tuple(labels(found).values()) == expected
        assert "labels from" in found.notes[0]


def test_a_list_for_a_head_with_background(tmp_path: Path) -> None:
    names = official(tmp_path, 2)
    (tmp_path / "val.txt").write_text(f"{names[0]} 0\n{names[1]} 999\n")
    assert list(labels(find_images(tmp_path, Labelling(BACKGROUND))).values()) == [1, 1000]


@pytest.mark.parametrize("place", ["LOC_val_solution.csv", "ILSVRC/LOC_val_solution.csv", "mine.csv"])
def test_kaggles_list_and_one_that_is_longer_than_the_folder(tmp_path: Path, place: str) -> None:
    put(tmp_path, "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00048981.JPEG", place)
    rows = ["ImageId,PredictionString", f"ILSVRC2012_val_00048981,{GOLDFISH} 85 1 499 272 ", f"other,{TENCH} 1 2 3 4 "]
    (tmp_path / place).write_text("\n".join(rows))
    found = find_images(tmp_path, Labelling(labels=str(tmp_path / place) if place == "mine.csv" else None))
    assert list(labels(found).values()) == [1]
    assert "also names 1 that" in found.notes[0]


def test_files_that_are_passed_over_are_counted(tmp_path: Path) -> None:
    put(tmp_path, f"val/{TENCH}/a.jpg", f"val/{TENCH}/b.webp", f"val/{TENCH}/c.BMP", f"val/{TENCH}/deep/d.jpg")
    put(tmp_path, "ILSVRC2012_img_val/e.JPEG", "ILSVRC2012_img_val/f.JPEG", f"val/{TENCH}/.hidden/g.txt")
    notes = " ".join(find_images(tmp_path).notes)
    assert all(part in notes for part in ("1 *.bmp, 1 *.webp", "1 images in folders inside", "2 images in ILSVRC2012"))
    put(tmp_path / "nested", f"{TENCH}/deep/d.jpg")
    with pytest.raises(BenchError, match="1 in folders inside class folders"):
        find_images(tmp_path / "nested")
