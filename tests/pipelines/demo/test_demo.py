"""The demo set: its bytes, its balance, its variety, and what happens to its folder."""

import io
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from folders import ROOT
from PIL import Image

from pipelines.demo import make
from pipelines.demo import picture as demo_images
from pipelines.demo.make import MARKER, fingerprint_of, make_demo
from pipelines.demo.picture import SPLITS, FileKind, class_of, image_bytes
from scarlet.errors import BenchError

# A fingerprint of the first images of every split; the committed table holds those of the whole sets.
FIRST_IMAGES = {"val": 10, "train": 20, "tune": 5, "calib": 5}


def _files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in (out / "valid").glob("*/*")}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "set"
    make_demo(out, 24, "train", seed=3, processes=1)
    return out


def test_same_bytes_from_several_processes(small: Path, tmp_path: Path) -> None:
    made = make_demo(tmp_path / "set", 24, "train", seed=3, processes=2)
    assert _files(tmp_path / "set") == _files(small)
    marker = json.loads((small / MARKER).read_text())
    assert made.fingerprint == marker["fingerprint"]
    assert marker["verdict"] == "not published"
    assert (marker["split"], marker["seed"], marker["images"]) == ("train", 3, 24)


def test_a_smaller_set_is_the_beginning_of_a_larger_one(small: Path, tmp_path: Path) -> None:
    make_demo(tmp_path / "set", 7, "train", seed=3, processes=1)
    part = _files(tmp_path / "set")
    assert len(part) == 7
    assert part.items() < _files(small).items()


def test_splits_and_seeds_share_no_image() -> None:
    images = [image_bytes(split, seed, 0) for split in SPLITS if split != "train" for seed in (1, 2)]
    assert len(set(images)) == len(images)


def test_bytes_do_not_depend_on_the_processor(tmp_path: Path) -> None:
    """The same images without NumPy's, libjpeg-turbo's and glibc's code for newer processors."""
    code = (
        "import hashlib; from pipelines.demo.picture import image_bytes\n"
        f"for split, count in {FIRST_IMAGES!r}.items():\n"
        "    for i in range(count): print(hashlib.sha256(image_bytes(split, 2026, i)).hexdigest())\n"
    )
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])  # type: ignore[index, union-attr]
    plain = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(features),
        "JSIMD_FORCENONE": "1",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX512F",
    }
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **extra}, capture_output=True, check=True
        ).stdout
        for extra in ({}, plain)
    ]
    assert len(outputs[0].split()) == sum(FIRST_IMAGES.values())
    assert outputs[0] == outputs[1]


def test_classes_are_balanced_from_the_first_ten_on() -> None:
    classes = [class_of(index) for index in range(2000)]
    assert sorted(classes[:1000]) == list(range(1000))
    assert classes[1000:] == classes[:1000]
    for start in (0, 37, 500):
        ten = classes[start - start % 10 :][:10]
        for digits in ({c // 100 for c in ten}, {c // 10 % 10 for c in ten}, {c % 10 for c in ten}):
            assert digits == set(range(10))
    assert len({c // 10 for c in classes[:100]}) == 100


def test_label_is_the_place_of_the_wnid(tmp_path: Path) -> None:
    make_demo(tmp_path / "set", 3, "train", seed=0, processes=1)
    wnids = (ROOT / "pipelines" / "imagenet" / "wnids.txt").read_text().split()
    found = {path.parent.name: path.name for path in (tmp_path / "set" / "valid").glob("*/*")}
    assert found == {wnids[class_of(i)]: f"demo_train_00000{i}.JPEG" for i in range(3)}


def test_sizes_and_kinds_vary_like_a_real_set() -> None:
    kinds = [demo_images.choose_kind(np.random.default_rng(i), "val") for i in range(4000)]
    sizes = Counter((kind.width, kind.height) for kind in kinds)
    assert (75, 56) in sizes
    assert max(kind.width for kind in kinds) == 1600
    assert 0.2 < np.mean([kind.height > kind.width for kind in kinds]) < 0.3
    assert 450 <= np.median([max(kind.width, kind.height) for kind in kinds]) <= 520
    assert Counter(kind.mode for kind in kinds).keys() == {"RGB", "L", "CMYK"}
    assert {kind.orientation for kind in kinds} == {None, 0, 3, 6, 8}
    assert {kind.subsampling for kind in kinds} == {"4:2:0", "4:2:2", "4:4:4"}
    assert 0.02 < np.mean([kind.progressive for kind in kinds]) < 0.08


@pytest.mark.parametrize(
    ("kind", "mode", "exif", "progressive"),
    [
        (FileKind(40, 30, 80, mode="L"), "L", None, False),
        (FileKind(40, 30, 80, mode="CMYK"), "CMYK", None, False),
        (FileKind(40, 30, 80, orientation=6), "RGB", 6, False),
        (FileKind(40, 30, 80, "4:4:4", progressive=True), "RGB", None, True),
    ],
)
def test_stored_as_asked_and_upright_without_exif(kind, mode, exif, progressive):
    picture = np.zeros((30, 40, 3), np.uint8)
    picture[:15] = 200
    image = Image.open(io.BytesIO(demo_images.encode(picture, kind)))
    assert image.mode == mode
    assert image.size == (40, 30)
    assert image.getexif().get(demo_images.EXIF_ORIENTATION) == exif
    assert bool(image.info.get("progressive")) is progressive
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - picture).mean() < 5


def test_complete_set_is_left_alone(small: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*.JPEG")}
    calls: list[tuple[int, int]] = []
    make_demo(small, 24, "train", seed=3, processes=1, on_progress=lambda *call: calls.append(call))
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*.JPEG")} == before


def _copy(source: Path, target: Path) -> Path:
    for name, content in _files(source).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(content)
    (target / MARKER).write_text((source / MARKER).read_text())
    return target


@pytest.mark.parametrize("damage", ["changed", "missing", "surplus", "unfinished", "other revision"])
def test_damaged_set_is_made_again(small: Path, tmp_path: Path, damage: str) -> None:
    out = _copy(small, tmp_path)
    victim = sorted(out.rglob("*.JPEG"))[3]
    if damage == "changed":
        victim.write_bytes(b"not an image")
    elif damage == "missing":
        victim.unlink()
    elif damage == "surplus":
        victim.with_name("demo_train_999999.JPEG").write_bytes(b"one too many")
    elif damage == "unfinished":
        victim.write_bytes(victim.read_bytes()[:100])
        (out / MARKER).rename(out / make.LOCK)
    else:
        marker = json.loads((out / MARKER).read_text())
        (out / MARKER).write_text(json.dumps({**marker, "revision": make.REVISION - 1}))
    make_demo(out, 24, "train", seed=3, processes=1)
    assert _files(out) == _files(small)


def test_larger_set_in_the_same_folder(small: Path, tmp_path: Path) -> None:
    out = _copy(small, tmp_path)
    made = make_demo(out, 4, "train", seed=3, processes=1)
    assert len(_files(out)) == made.images == 4


def test_failure_leaves_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(make, "image_bytes", fail)
    with pytest.raises(BenchError, match="No space left on device"):
        make_demo(tmp_path / "set", 2, "train", processes=1)
    assert not (tmp_path / "set" / MARKER).exists()
    monkeypatch.undo()
    assert make_demo(tmp_path / "set", 2, "train", processes=1).images == 2


def test_other_bytes_than_the_published_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "published_fingerprint", lambda *_: "another")
    with pytest.raises(BenchError, match=r"found Pillow .* published with 13\.0\.0"):
        make_demo(tmp_path / "set", 2, "train", processes=1)
    assert not (tmp_path / "set" / MARKER).exists()
    monkeypatch.undo()
    make_demo(tmp_path / "set", 2, "train", processes=1)
    monkeypatch.setattr(make, "published_fingerprint", lambda *_: "another, since then")
    with pytest.raises(BenchError, match="differ from the published"):
        make_demo(tmp_path / "set", 2, "train", processes=1)


def test_published_bytes_are_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = make_demo(tmp_path / "a", 2, "train", processes=1)
    monkeypatch.setattr(make, "published_fingerprint", lambda *_: first.fingerprint)
    assert make_demo(tmp_path / "b", 2, "train", processes=1).verdict == "as published"


def test_standard_sets_have_published_fingerprints() -> None:
    for split, images in (("val", 512), ("val", 2000), ("train", 16000), ("tune", 3000), ("calib", 256)):
        published = make.published_fingerprint(split, make.DEFAULT_SEED, images)
        assert published is not None, (split, images)
        assert len(published) == 64
    assert make.published_fingerprint("val", make.DEFAULT_SEED, 513) is None


@pytest.mark.skipif(
    Image.__version__ != make.PINNED["pillow"] or np.__version__ != make.PINNED["numpy"],
    reason="the published bytes hold for the pinned Pillow and NumPy",
)
def test_first_bytes_are_the_published_ones(tmp_path: Path) -> None:
    for split, images in FIRST_IMAGES.items():
        assert make_demo(tmp_path / split, images, split).verdict == "as published", split


def test_fingerprint_depends_on_place_and_content(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    (tmp_path / "c").write_bytes(b"2")
    assert len({fingerprint_of(tmp_path, [name]) for name in "abc"}) == 3


@pytest.mark.parametrize(
    ("arguments", "what"), [({"images": 0}, "0 images"), ({"split": "vall"}, "unknown split 'vall'")]
)
def test_wrong_arguments(tmp_path: Path, arguments: dict[str, object], what: str) -> None:
    with pytest.raises(BenchError, match=what):
        make_demo(tmp_path / "set", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


def test_folder_with_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BenchError, match="not a demo set"):
        make_demo(tmp_path, 2, "train", processes=1)
    with pytest.raises(BenchError, match="is not a folder"):
        make_demo(tmp_path / "thesis.txt", 2, "train", processes=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "set")
    assert make.main(["--out", out, "--images", "2", "--split", "train"]) == 0
    assert "2 train images" in capsys.readouterr().out
    assert make.main(["--out", out, "--images", "0"]) == 2
    assert capsys.readouterr().err.startswith("error: a demo set of 0 images")
