"""A pipeline's whole path against the reference's: the pixels, and whether each image comes out once, as itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipelines import open_pipeline
from pipelines.base import Pipeline, Preprocess
from pipelines.imagenet.find import Image, first_few
from pipelines.parity.differences import WHOLE, StageDifference, Tolerance, sides, tolerances_of

REFERENCE = "reference"

BATCH_MAX = 16

# A fingerprint is this many values along each side of each channel: enough to tell one image from another.
FINGERPRINT_SIDE = 16

Planes = NDArray[np.float32]


@dataclass(frozen=True)
class Passed:
    """What one pass of a pipeline gave.

    Attributes:
        indices: places in the list of images, in the order in which they came out.
        fingerprints: of each, in the same order.
        shape: of an image that came out, ``(3, side, side)``; None where none did.
        fallbacks: ids of images that the pipeline handed to the reference.
    """

    indices: tuple[int, ...]
    fingerprints: tuple[Planes, ...]
    shape: tuple[int, ...] | None
    fallbacks: tuple[str, ...]


def uneven_batch(n_images: int) -> int:
    """The largest batch up to ``BATCH_MAX`` that leaves a smaller last one: a pipeline may lose just that."""
    return next(batch for batch in range(BATCH_MAX, 1, -1) if n_images % batch or not n_images)


def one_pass(images: Sequence[Image], pipeline: str, preprocess: Preprocess, threads: int) -> Passed:
    """Runs a pipeline over ``images`` and keeps a fingerprint of each.

    Raises:
        what ``pipelines.open_pipeline`` raises.
    """
    indices: list[int] = []
    fingerprints: list[Planes] = []
    shape = None
    with closing(open_pipeline(pipeline, images, uneven_batch(len(images)), threads, preprocess)) as opened:
        for batch in opened:
            indices += batch.indices.tolist()
            fingerprints += [fingerprint(planes) for planes in batch.pixels]
            shape = batch.pixels.shape[1:]
        fallbacks = tuple(opened.report.fallbacks)
    return Passed(tuple(indices), tuple(fingerprints), shape, fallbacks)


def fingerprint(planes: Planes) -> Planes:
    """Some values of an image, spread evenly; float32, ``(3, about 16, about 16)``."""
    step = max(1, min(planes.shape[1:]) // FINGERPRINT_SIDE)
    return np.array(planes[:, ::step, ::step])


def whole_difference(
    images: Sequence[Image], pipeline: str, preprocess: Preprocess, threads: int, passed: Passed
) -> StageDifference:
    """The pixels of the whole path against the reference's; ``passed`` is of ``one_pass`` over the same images."""
    right, allowed = (3, preprocess.crop, preprocess.crop), tolerances_of(pipeline)[WHOLE]
    if passed.shape not in (None, right):
        return _incomparable(passed, f"it gives {sides(passed.shape or ())}, not {sides(right)}", allowed)
    found = compare(images, REFERENCE, pipeline, uneven_batch(len(images)), threads, preprocess)
    if not np.isfinite(found.mean_level_diff):
        return _incomparable(passed, "it gives values that are not finite", allowed)
    return StageDifference(
        stage=WHOLE,
        n_images=found.n_images,
        n_outside=sum(levels > allowed.max_levels for levels in found.max_by_image.values()),
        max_level_diff=found.max_level_diff if found.n_images else None,
        mean_level_diff=found.mean_level_diff if found.n_images else None,
        share_of_pixels_differing=found.share_of_pixels_differing if found.n_images else None,
        max_levels_allowed=allowed.max_levels,
        mean_levels_allowed=allowed.mean_levels,
        worst_image_id=found.worst_image_id if found.max_level_diff else None,
    )


def _incomparable(passed: Passed, words: str, allowed: Tolerance) -> StageDifference:
    n = len(passed.indices)
    return StageDifference(
        WHOLE, n, n, None, None, None, allowed.max_levels, allowed.mean_levels, mismatch=words
    )


def problem(
    images: Sequence[Image],
    expected: Mapping[int, Planes],
    passed: Passed,
    preprocess: Preprocess,
    allowed: Tolerance,
) -> str:
    """Where images are lost, repeated or taken for one another: a few words; else empty.

    Args:
        images: what both were given.
        expected: the reference's fingerprint of each readable image, by its place in ``images``.
        passed: what the pipeline gave.
        preprocess: its std turns values into grey levels.
        allowed: how far the whole path may be off.
    """
    ids = [image.image_id for image in images]
    lost = [ids[index] for index in expected if index not in set(passed.indices)]
    repeated = [ids[index] for index in expected if passed.indices.count(index) > 1]
    extra = [ids[index] for index in dict.fromkeys(passed.indices) if index not in expected]
    mixed = _mixed_up(ids, expected, passed, preprocess, allowed)
    said = [
        f"{len(names)} {'image' if len(names) == 1 else 'images'} {words}: {first_few(names)}"
        for names, words in (
            (lost, "did not come out"),
            (repeated, "came out more than once"),
            (extra, "came out that the reference cannot read"),
            (mixed, "came out with the pixels of another"),
        )
        if names
    ]
    return "; ".join(said)


def _mixed_up(
    ids: Sequence[str],
    expected: Mapping[int, Planes],
    passed: Passed,
    preprocess: Preprocess,
    allowed: Tolerance,
) -> list[str]:
    """``image (that of another)`` for each that has another's fingerprint and not its own."""
    levels_per_unit = 255.0 * np.asarray(preprocess.std, np.float64).reshape(3, 1, 1)

    def same(one: Planes, other: Planes) -> bool:
        if one.shape != other.shape:
            return False
        return float((np.abs(one - other) * levels_per_unit).max()) <= allowed.max_levels

    found = []
    for index, own in zip(passed.indices, passed.fingerprints, strict=True):
        if index in expected and not same(own, expected[index]):
            others = [
                ids[other] for other, print_ in expected.items() if other != index and same(own, print_)
            ]
            found += [f"{ids[index]} ({others[0]})"] if others else []
    return found


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
    """

    n_images: int
    max_level_diff: float
    mean_level_diff: float
    share_of_pixels_differing: float
    worst_image_id: str | None
    max_by_image: dict[str, float] = field(repr=False)


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
    means: list[float] = []
    shares: list[float] = []
    for index, planes, other_planes in _paired(_samples(one), _samples(other)):
        image_id = images[index].image_id
        if planes is None or other_planes is None:
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
