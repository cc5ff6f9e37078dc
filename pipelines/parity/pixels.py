"""How far apart the pixels of two pipelines are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines import open_pipeline
from pipelines.base import Pipeline, Preprocess
from pipelines.imagenet.find import Image

# Grey levels are recovered from float32 planes: their last digits are rounding, not difference.
LEVEL_DECIMALS = 3


@dataclass(frozen=True)
class PixelParity:
    """Differences between two pipelines on the same images, in grey levels (0..255).

    Attributes:
        n_images: images that both pipelines gave.
        max_level_diff: largest difference of any channel of any pixel.
        mean_level_diff: mean absolute difference over all channels of all pixels.
        share_of_pixels_differing: share (0..1) of pixels with a difference in any channel.
        worst_image_id: image with the largest difference, the first of them; None where there are no images.
        max_by_image: largest difference of each image, by id.
        unmatched: ids of images that only one of the two pipelines gave.
    """

    n_images: int
    max_level_diff: float
    mean_level_diff: float
    share_of_pixels_differing: float
    worst_image_id: str | None
    max_by_image: dict[str, float] = field(repr=False)
    unmatched: tuple[str, ...] = ()


def compare(
    images: Sequence[Image], first: str, second: str, batch: int, threads: int, preprocess: Preprocess
) -> PixelParity:
    """Runs two pipelines side by side over ``images``; a batch of each is in memory at a time.

    Args:
        images: what to read.
        first: a name in ``pipelines.REGISTRY``.
        second: another, or the same.
        batch: images a batch.
        threads: decoding threads of each.
        preprocess: the same for both.

    Raises:
        what ``pipelines.open_pipeline`` raises.
    """
    one = open_pipeline(first, images, batch, threads, preprocess)
    other = open_pipeline(second, images, batch, threads, preprocess)
    try:
        return _compare(images, one, other, preprocess)
    finally:
        one.close()
        other.close()


def _compare(images: Sequence[Image], one: Pipeline, other: Pipeline, preprocess: Preprocess) -> PixelParity:
    levels_per_unit = 255.0 * np.asarray(preprocess.std, np.float64).reshape(3, 1, 1)
    max_by_image: dict[str, float] = {}
    unmatched: list[str] = []
    means: list[float] = []
    shares: list[float] = []
    for index, planes, other_planes in _paired(_samples(one), _samples(other)):
        image_id = images[index].image_id
        if planes is None or other_planes is None:
            unmatched.append(image_id)
            continue
        levels = np.abs(planes.astype(np.float64) - other_planes) * levels_per_unit
        levels = np.round(levels, LEVEL_DECIMALS)
        max_by_image[image_id] = float(levels.max())
        means.append(float(levels.mean()))
        shares.append(float((levels > 0).any(axis=0).mean()))
    worst = max(max_by_image, key=lambda image_id: max_by_image[image_id], default=None)
    return PixelParity(
        n_images=len(max_by_image),
        max_level_diff=max_by_image[worst] if worst is not None else 0.0,
        mean_level_diff=sum(means) / len(means) if means else 0.0,
        share_of_pixels_differing=sum(shares) / len(shares) if shares else 0.0,
        worst_image_id=worst,
        max_by_image=max_by_image,
        unmatched=tuple(unmatched),
    )


Planes = NDArray[np.float32]


def _samples(pipeline: Pipeline) -> Iterator[tuple[int, Planes]]:
    for batch in pipeline:
        yield from zip(batch.indices.tolist(), batch.pixels, strict=True)


def _paired(
    one: Iterator[tuple[int, Planes]], other: Iterator[tuple[int, Planes]]
) -> Iterator[tuple[int, Planes | None, Planes | None]]:
    """Merges two streams in order of index, None where one of them lacks the image."""
    left, right = next(one, None), next(other, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[0] < right[0]):
            assert left is not None
            yield left[0], left[1], None
            left = next(one, None)
        elif left is None or right[0] < left[0]:
            yield right[0], None, right[1]
            right = next(other, None)
        else:
            yield left[0], left[1], right[1]
            left, right = next(one, None), next(other, None)
