"""How a stage differs from the reference, where its pixels prove it.

A hint is given only when one fault, planted in the reference's own stage, gives the pixels of every example.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps

from pipelines.base import Preprocess
from pipelines.reference.pipeline import FILTERS, crop_offset, normalise, opened

# A fault is proven when it leaves at most so many grey levels of any channel unexplained (two makers' filters differ
# by as much), and at most this share of the mean difference.
UNEXPLAINED_LEVELS = {"decode": 1.0, "resize": 2.0, "crop": 0.0}
UNEXPLAINED_SHARE = 0.1

# How far from the right place a crop is looked for, in pixels.
OFFSET_REACH = 16

# Mean and standard deviation are named only when they give the stage's values to this many grey levels.
FIT_LEVELS = 0.01

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """An image on which a stage is outside its tolerance.

    Attributes:
        given: what went in: a file's bytes for ``decode``, else pixels, uint8, ``(height, width, 3)``.
    """

    given: Any
    expected: NDArray[Any]
    got: NDArray[Any]


def seen(stage: str, made: NDArray[Any], preprocess: Preprocess) -> NDArray[Any]:
    """What can reach the network of what a stage made: of a resized image only its centre, which the crop keeps."""
    if stage != "resize":
        return made
    side = preprocess.crop
    top, left = crop_offset(made.shape[0], made.shape[1], side)
    return made[max(0, top) :, max(0, left) :][:side, :side]


def explain(stage: str, examples: Sequence[Example], preprocess: Preprocess) -> str:
    """The fault in a few words, such as ``the channels are in BGR order``; empty where none is proven."""
    if not examples:
        return ""
    if stage != "normalise" and _all_explained(stage, examples, _reversed, preprocess):
        return BGR
    explainers = {"decode": _decode, "resize": _resize, "crop": _crop, "normalise": _normalise}
    return explainers[stage](examples, preprocess)


def _unexplained(stage: str, example: Example, made: NDArray[Any], preprocess: Preprocess) -> float | None:
    """The mean difference that remains when ``made`` is expected; None where it is too much."""
    if made.shape != example.got.shape:
        return None
    got = seen(stage, example.got, preprocess)
    rest = np.abs(seen(stage, made, preprocess).astype(np.float64) - got)
    if rest.max() > UNEXPLAINED_LEVELS[stage]:
        return None
    if example.expected.shape == example.got.shape:
        whole = np.abs(seen(stage, example.expected, preprocess).astype(np.float64) - got).mean()
        if rest.mean() > UNEXPLAINED_SHARE * whole:
            return None
    return float(rest.mean())


def _all_explained(
    stage: str, examples: Sequence[Example], fault: Callable[[Example], NDArray[Any]], preprocess: Preprocess
) -> bool:
    return all(_unexplained(stage, example, fault(example), preprocess) is not None for example in examples)


BGR = "the channels are in BGR order"


def _reversed(example: Example) -> NDArray[Any]:
    return example.expected[:, :, ::-1]


def _decode(examples: Sequence[Example], preprocess: Preprocess) -> str:
    if _all_explained("decode", examples, _upright, preprocess):
        return "the EXIF orientation is applied, which the reference ignores"
    return ""


def _upright(example: Example) -> Pixels:
    """The expected pixels, turned as the file's EXIF orientation asks."""
    image = PillowImage.fromarray(example.expected)
    with opened(example.given) as file:
        image.getexif().update(file.getexif())
    return np.asarray(ImageOps.exif_transpose(image))


def _resize(examples: Sequence[Example], preprocess: Preprocess) -> str:
    found = (_other_size(examples, preprocess), _other_filter(examples, preprocess))
    return " and ".join(filter(None, found))


def _other_size(examples: Sequence[Example], preprocess: Preprocess) -> str:
    short = preprocess.resize
    sized = [example for example in examples if example.got.shape != example.expected.shape]
    if not sized:
        return ""
    scales = [short / min(example.given.shape[:2]) for example in sized]
    rounded = [
        tuple(round(side * scale) for side in example.given.shape[:2])
        for example, scale in zip(sized, scales, strict=True)
    ]
    if [example.got.shape[:2] for example in sized] == rounded:
        return "the long side is rounded, where the reference cuts its fraction off"
    if all(example.got.shape[:2] == (short, short) for example in sized):
        return f"both sides become {short} pixels"
    shorter = {min(example.got.shape[:2]) for example in sized}
    return (
        f"the short side becomes {shorter.pop()} pixels, not {short}"
        if shorter != {short} and len(shorter) == 1
        else ""
    )


def _other_filter(examples: Sequence[Example], preprocess: Preprocess) -> str:
    """The filter that leaves the least unexplained, if that is not the right one."""
    right = FILTERS[preprocess.interpolation]
    candidates: dict[str, Callable[[Pixels, int, int], Pixels]] = {
        f"the interpolation is {filter_.name.lower()}, not {preprocess.interpolation}": partial(_pillow, filter_)
        for filter_ in PillowImage.Resampling
        if filter_ is not right
    }
    candidates |= {"": partial(_pillow, right), "it does not antialias": _without_antialias}
    rests: dict[str, float] = {}
    for name, resized in candidates.items():
        found = [
            _unexplained("resize", example, resized(example.given, *example.got.shape[:2]), preprocess)
            for example in examples
        ]
        explained = [rest for rest in found if rest is not None]
        if len(explained) == len(found):
            rests[name] = sum(explained)
    return min(rests, key=lambda name: rests[name], default="")


def _pillow(filter_: PillowImage.Resampling, pixels: Pixels, height: int, width: int) -> Pixels:
    return np.asarray(PillowImage.fromarray(pixels).resize((width, height), filter_))


def _without_antialias(pixels: Pixels, height: int, width: int) -> Pixels:
    """Linear interpolation between the two nearest pixels of each axis, whose centres lie at halves."""
    result = pixels.astype(np.float64)
    for axis, size in enumerate((height, width)):
        length = pixels.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(place).astype(np.int64)
        high = np.minimum(low + 1, length - 1)
        weight = (place - low).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        result = result.take(low, axis) * (1.0 - weight) + result.take(high, axis) * weight
    return np.asarray(np.rint(result), np.uint8)


def _crop(examples: Sequence[Example], preprocess: Preprocess) -> str:
    side = preprocess.crop
    if any(example.got.shape != (side, side, 3) for example in examples):
        return ""
    found = [_offset_of(example.got, example.given, side) for example in examples]
    known = [offset for offset in found if offset is not None]
    if len(known) < len(found):
        return ""
    # Half of what a crop leaves over, which may be no whole number.
    margins = [tuple((length - side) / 2 for length in example.given.shape[:2]) for example in examples]
    for words, rule in (("rounded down", math.floor), ("rounded up", math.ceil)):
        if known == [(rule(top), rule(left)) for top, left in margins]:
            return f"the crop's offset is {words}, where the reference's goes to the even number"
    moves = set()
    for example, (top, left) in zip(examples, known, strict=True):
        height, width = example.given.shape[:2]
        right_top, right_left = crop_offset(height, width, side)
        moves.add((top - right_top, left - right_left))
    words = ", ".join(f"({down}, {right})" for down, right in sorted(moves))
    return f"the crop is moved by {words} pixels (down, right)"


def _offset_of(got: Pixels, given: Pixels, side: int) -> tuple[int, int] | None:
    """Top and left of the nearest place at which ``given`` holds just these pixels; None where there is none near."""
    height, width = given.shape[:2]
    top, left = crop_offset(height, width, side)
    places = [
        (row, column)
        for row in range(max(0, top - OFFSET_REACH), min(height - side, top + OFFSET_REACH) + 1)
        for column in range(max(0, left - OFFSET_REACH), min(width - side, left + OFFSET_REACH) + 1)
    ]
    for row, column in sorted(places, key=lambda place: abs(place[0] - top) + abs(place[1] - left)):
        if (given[row, column : column + side] == got[0]).all() and (
            given[row : row + side, column : column + side] == got
        ).all():
            return row, column
    return None


def _normalise(examples: Sequence[Example], preprocess: Preprocess) -> str:
    if any(example.got.shape != example.expected.shape for example in examples):
        turned = all(example.got.shape == example.expected.transpose(1, 2, 0).shape for example in examples)
        return "the channels come last, not first" if turned else ""
    # Reversed after it, the channels keep their own mean and std; before it, they are given another's.
    for swapped in (
        [example.expected[::-1] for example in examples],
        [normalise(example.given[:, :, ::-1], preprocess) for example in examples],
    ):
        if all(np.allclose(made, example.got, atol=1e-4) for made, example in zip(swapped, examples, strict=True)):
            return BGR
    return _other_numbers(examples, preprocess)


def _other_numbers(examples: Sequence[Example], preprocess: Preprocess) -> str:
    """The mean and standard deviation that give the values, by least squares over each channel."""
    mean, std = [], []
    for channel in range(3):
        levels = np.concatenate([example.given[:, :, channel].ravel() for example in examples]).astype(np.float64)
        values = np.concatenate([example.got[channel].ravel() for example in examples]).astype(np.float64)
        spread = levels - levels.mean()
        slope = float(spread @ values) / float(spread @ spread) if spread.any() else 0.0
        if slope == 0.0:
            return ""
        start = float(values.mean() - slope * levels.mean())
        if not np.abs(values - slope * levels - start).max() <= FIT_LEVELS * abs(slope):  # also where not finite
            return ""
        # value = (level / 255 - mean) / std
        std.append(1.0 / (255.0 * slope))
        mean.append(-start / slope / 255.0)
    found = [
        f"the {name} is {_three(given)}, not {_three(right)}"
        for name, given, right in (("mean", mean, preprocess.mean), ("standard deviation", std, preprocess.std))
        if not np.allclose(given, right, rtol=1e-4, atol=1e-5)
    ]
    return " and ".join(found)


def _three(numbers: Sequence[float]) -> str:
    # Adding 0.0 makes a negative zero a plain one.
    return "(" + ", ".join(f"{round(number, 4) + 0.0:g}" for number in numbers) + ")"
