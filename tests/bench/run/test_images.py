"""Calibration images: seeded, even over the classes, apart from those scored; or a refusal that says what to do."""

import shutil
from collections import Counter
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from bench_fakes import WNIDS
from PIL import Image as PilImage
from rich.console import Console

from bench.run import images as run_images
from bench.run.images import choose_calibration, choose_images, without_copies
from bench.worker.messages import CalibrationImages
from pipelines.demo.make import make_demo
from pipelines.imagenet.find import find_images, subset
from scarlet.errors import BenchError


def make_set(root: Path, n: int, seed: int = 0) -> Path:
    """Images of noise in three class folders."""
    source = np.random.default_rng(seed)
    for number in range(n):
        folder = root / "val" / WNIDS[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = source.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        PilImage.fromarray(pixels).save(folder / f"image_{seed}_{number}.JPEG")
    return root


@pytest.fixture(scope="module")
def users_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("users"), 30)


def quiet() -> Console:
    return Console(file=StringIO(), width=200)


def said(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_a_users_set_gives_images_that_are_not_scored(users_set: Path) -> None:
    scored = subset(find_images(users_set).images, 12)
    console = quiet()
    chosen = choose_calibration(users_set, scored, None, console, n=9)
    assert len(chosen.images) == 9
    assert not {image.image_id for image in chosen.images} & {image.image_id for image in scored}
    assert set(Counter(image.label for image in chosen.images).values()) == {3}  # even over the classes
    assert choose_calibration(users_set, scored, None, quiet(), n=9) == chosen
    assert "calibrating on 9 images only" in said(console)


def test_the_halves_of_a_users_set_share_no_image_and_are_even_over_the_classes(users_set: Path) -> None:
    halves = [choose_images(str(users_set), 0, quiet(), half=half)[1] for half in ("first", "second")]
    assert [Counter(image.label for image in half).most_common(1)[0][1] for half in halves] == [5, 5]
    first, second = ({image.image_id for image in half} for half in halves)
    assert not first & second
    assert first | second == {image.image_id for image in find_images(users_set).images}


def test_when_all_images_are_scored_there_is_a_way_out(users_set: Path, tmp_path: Path) -> None:
    scored = find_images(users_set).images
    with pytest.raises(BenchError, match="all 30 images of the set are scored") as caught:
        choose_calibration(users_set, scored, None, quiet())
    assert "--calibration" in caught.value.do
    others = make_set(tmp_path, 5, seed=1)
    chosen = choose_calibration(users_set, scored, str(others), quiet())
    assert len(chosen.images) == 5
    assert chosen.root == others
    assert chosen.source == f"--calibration {others}"


def test_copies_of_scored_images_are_left_out(users_set: Path, tmp_path: Path) -> None:
    scored = find_images(users_set).images[:4]
    others = make_set(tmp_path / "others", 3, seed=1)
    for image in scored[:2]:
        shutil.copy(image.path, others / "val" / WNIDS[0] / f"renamed_{image.path.name}")
    console = quiet()
    chosen = choose_calibration(users_set, scored, str(others), console)
    assert {image.path.name.split("_")[0] for image in chosen.images} == {"image"}
    assert "2 calibration images are copies of scored ones" in said(console)
    with pytest.raises(BenchError, match=f"all images of {users_set} are scored"):
        choose_calibration(users_set, find_images(users_set).images, str(users_set), quiet())


def test_files_of_equal_size_are_told_apart_by_content(tmp_path: Path) -> None:
    root = make_set(tmp_path, 3)
    images = find_images(root).images
    for image in images:
        image.path.write_bytes(image.image_id.encode().rjust(100))
    assert without_copies(images[:2], images[2:]) == images[:2]
    images[0].path.write_bytes(images[2].path.read_bytes())
    assert without_copies(images[:2], images[2:]) == images[1:2]
    images[1].path.unlink()  # unreadable: its pipeline says so
    assert without_copies(images[1:2], images[2:]) == images[1:2]


def test_demo_images_to_judge_on_are_made_and_are_no_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.run.images.DEMO_IMAGES", 3)
    sets = [choose_images(None, 3, Console(quiet=True), half=half)[1] for half in ("", "first", "second")]
    searched, _, judged = ({image.path.read_bytes() for image in chosen} for chosen in sets)
    assert sets[0] == sets[1]
    assert len(searched) == len(judged) == 3
    assert not searched & judged


def test_a_demo_set_has_a_split_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_images, "DEMO_DATA", tmp_path / "demo")
    make_demo(tmp_path / "val", 10, processes=1)
    scored = find_images(tmp_path / "val").images
    chosen = choose_calibration(tmp_path / "val", scored, None, quiet(), n=5)
    assert len(chosen.images) == 5
    assert all("demo_calib_" in image.image_id for image in chosen.images)
    assert chosen.root == tmp_path / "demo" / "calib-5"


def test_chosen_images_come_back_from_json(users_set: Path) -> None:
    chosen = choose_calibration(users_set, (), None, quiet(), n=3)
    assert CalibrationImages.from_dict(chosen.to_dict()) == chosen
