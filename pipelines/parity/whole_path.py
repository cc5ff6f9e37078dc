"""A pipeline's whole path against the reference's: the pixels, and whether each image comes out once, as itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines import open_pipeline
from pipelines.base import Pipeline, Preprocess
from pipelines.imagenet.find import Image, first_few
from pipelines.parity.differences import WHOLE, StageDifference, Tally, Tolerance, sides, tolerances_of
from pipelines.parity.hints import Example

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
        n, words = len(passed.indices), f"it gives {sides(passed.shape or ())}, not {sides(right)}"
        return StageDifference(WHOLE, n, n, None, None, None, allowed.max_levels, allowed.mean_levels, mismatch=words)
    return compare(images, (REFERENCE, pipeline), uneven_batch(len(images)), threads, preprocess).difference()


def problem(
    images: Sequence[Image], expected: Mapping[int, Planes], passed: Passed, preprocess: Preprocess, allowed: Tolerance
) -> str:
    """Where images are lost, repeated or taken for one another: a few words; else empty.

    Args:
        expected: the reference's fingerprint of each readable image, by its place in ``images``.
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
    ids: Sequence[str], expected: Mapping[int, Planes], passed: Passed, preprocess: Preprocess, allowed: Tolerance
) -> list[str]:
    """``image (that of another)`` for each that has another's fingerprint and not its own."""
    levels_per_unit = np.asarray(preprocess.levels_per_unit).reshape(3, 1, 1)

    def same(one: Planes, other: Planes) -> bool:
        if one.shape != other.shape:
            return False
        return float((np.abs(one - other) * levels_per_unit).max()) <= allowed.max_levels

    found = []
    for index, own in zip(passed.indices, passed.fingerprints, strict=True):
        if index in expected and not same(own, expected[index]):
            others = [ids[other] for other, print_ in expected.items() if other != index and same(own, print_)]
            found += [f"{ids[index]} ({others[0]})"] if others else []
    return found


def compare(images: Sequence[Image], names: tuple[str, str], batch: int, threads: int, preprocess: Preprocess) -> Tally:
    """Runs two pipelines side by side over ``images``; a batch of each is in memory at a time.

    Args:
        names: two of ``pipelines.REGISTRY``, or one twice.

    Returns:
        the differences on images that both gave, against the tolerance of the second's whole path.

    Raises:
        what ``pipelines.open_pipeline`` raises.
    """
    tally = Tally(WHOLE, preprocess, tolerances_of(names[1])[WHOLE])
    with ExitStack() as opened:
        one, other = (
            opened.enter_context(closing(open_pipeline(name, images, batch, threads, preprocess))) for name in names
        )
        for index, planes, other_planes in _paired(_samples(one), _samples(other)):
            tally.add(images[index].image_id, Example(None, planes, other_planes))
    return tally


def _samples(pipeline: Pipeline) -> Iterator[tuple[int, Planes]]:
    for batch in pipeline:
        yield from zip(batch.indices.tolist(), batch.pixels, strict=True)


def _paired(
    one: Iterator[tuple[int, Planes]], other: Iterator[tuple[int, Planes]]
) -> Iterator[tuple[int, Planes, Planes]]:
    """The images that both streams give, in order of index."""
    left, right = next(one, None), next(other, None)
    while left is not None and right is not None:
        if left[0] == right[0]:
            yield left[0], left[1], right[1]
            left, right = next(one, None), next(other, None)
        elif left[0] < right[0]:
            left = next(one, None)
        else:
            right = next(other, None)
