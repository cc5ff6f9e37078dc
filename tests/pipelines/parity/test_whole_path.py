"""The comparison itself, on pipelines whose differences are known."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import pipelines
from pipelines.base import Batch, PipelineReport, Preprocess
from pipelines.imagenet.find import Image
from pipelines.parity.whole_path import compare
from pipelines.reference.pipeline import normalise
from scarlet.errors import BenchError

SMALL = Preprocess(resize=4, crop=4)
IMAGES = [Image(f"image {k}", Path(f"{k}"), 0) for k in range(5)]


class Gray:
    """Every image a flat gray of 100, in the batches asked for."""

    name = "gray"
    skipped: tuple[int, ...] = ()
    closed = 0

    def __init__(self, images, batch, threads, preprocess) -> None:
        self.report = PipelineReport()
        self.kept = [k for k in range(len(images)) if k not in self.skipped]
        self.batch = batch

    def level(self, index: int) -> np.ndarray:
        return np.full((4, 4, 3), 100, np.uint8)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self.kept), self.batch):
            part = self.kept[first : first + self.batch]
            yield Batch(np.array(part), np.stack([normalise(self.level(k), SMALL) for k in part]))

    def close(self) -> None:
        type(self).closed += 1


class Off(Gray):
    """Image 3 is 2 levels darker in one channel of one pixel; image 1 is missing."""

    skipped = (1,)

    def level(self, index: int) -> np.ndarray:
        pixels = super().level(index)
        if index == 3:
            pixels[2, 1, 0] -= 2
        return pixels


class Fewer(Gray):
    skipped = (0, 4)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    for cls in (Gray, Off, Fewer):
        monkeypatch.setattr(cls, "closed", 0)
        monkeypatch.setitem(pipelines.REGISTRY, cls.__name__.lower(), f"{__name__}:{cls.__name__}")


def test_differences_are_in_grey_levels():
    tally = compare(IMAGES, ("gray", "off"), 2, 1, SMALL)
    found = tally.difference()
    assert found.n_images == 4
    assert found.max_level_diff == 2.0
    assert found.mean_level_diff == pytest.approx(2 / (4 * 48))
    assert found.share_of_pixels_differing == pytest.approx(1 / (4 * 16))
    assert found.worst_image_id == "image 3"
    assert tally.max_by_image == {"image 0": 0, "image 2": 0, "image 3": 2, "image 4": 0}
    assert (Gray.closed, Off.closed) == (1, 1)


def test_images_that_one_of_them_lacks_are_left_out_from_either_side():
    assert compare(IMAGES, ("fewer", "off"), 2, 1, SMALL).max_by_image.keys() == {"image 2", "image 3"}
    assert compare(IMAGES, ("off", "fewer"), 3, 1, SMALL).max_by_image.keys() == {"image 2", "image 3"}


def test_the_reference_equals_itself(small_photos):
    found = compare(small_photos, ("reference", "reference"), 5, 1, Preprocess()).difference()
    assert (found.n_images, found.max_level_diff, found.share_of_pixels_differing) == (12, 0.0, 0.0)


def test_no_images_no_differences():
    found = compare([], ("gray", "gray"), 2, 1, SMALL).difference()
    assert (found.n_images, found.max_level_diff, found.mean_level_diff) == (0, None, None)
    assert found.worst_image_id is None


def test_an_unknown_name_is_a_users_mistake():
    with pytest.raises(BenchError, match="unknown pipeline 'grey'"):
        compare(IMAGES, ("gray", "grey"), 2, 1, SMALL)
