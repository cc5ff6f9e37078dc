"""Digests of what the reference's stages make: equal for equal code, and telling from which stage on it changed."""

from pathlib import Path

import pytest

from pipelines.base import STAGES
from pipelines.imagenet.find import find_images
from pipelines.parity.digests import first_change, of_reference
from pipelines.reference import pipeline


@pytest.fixture
def images(image_folder: Path):
    return find_images(image_folder).images


def test_equal_code_gives_equal_digests_also_of_more_images(images) -> None:
    before = of_reference(images, {})
    assert first_change(before, of_reference(images, {"mean": [0.485, 0.456, 0.406]})) == ""
    assert {len(digest) for digest in before["images"].values()} == {16}


def test_a_changed_stage_is_named(images, monkeypatch: pytest.MonkeyPatch) -> None:
    before = of_reference(images, {})
    assert first_change(before, of_reference(images, {"mean": (0.5, 0.5, 0.5)})) == "normalise"
    assert first_change(before, of_reference(images, {"crop": 200})) == "crop"
    assert first_change(before, of_reference(images, {"interpolation": "bicubic"})) == "resize"
    monkeypatch.setattr(
        pipeline, "crop_offset", lambda height, width, crop: ((height - crop) // 2, (width - crop) // 2)
    )
    floored = of_reference(images, {})
    assert first_change(before, floored) == "crop"
    # The images of this folder are all of one size, to which both crops are the same: only the probes tell.
    assert first_change({"images": before["images"]}, floored) == ""


def test_files_that_cannot_be_read_are_part_of_it(images, tmp_path: Path) -> None:
    from pipelines.imagenet.find import Image

    torn = Image("torn.JPEG", tmp_path / "torn.JPEG", 0)
    torn.path.write_bytes(b"no image")
    found = [of_reference([*images, image], {}) for image in (torn, Image("none", tmp_path / "none", 0))]
    assert found[0]["images"]["files"] != found[1]["images"]["files"]


def test_other_files_and_older_baselines_tell_nothing(images) -> None:
    now = of_reference(images, {})
    other = {"images": dict.fromkeys(("files", *STAGES), "0" * 16)}
    assert first_change(other, now) == ""
    assert first_change({}, now) == ""
    assert first_change(now, {}) == ""
