"""The first layer where two computations of a network part: a search, and a table of all layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from export.compare.pairing import Layer
from export.compare.values import Pixels, Values
from scarlet.errors import BenchError

# Of a layer's spread, and of anything: what is accepted.
RTOL = 1e-3
ATOL = 1e-6

Item = TypeVar("Item")


class Compared(NamedTuple):
    """What is compared."""

    reference: Values
    other: Values
    layers: Sequence[Layer]
    batches: Sequence[Pixels]


@dataclass(frozen=True)
class Bisection:
    """What a search found.

    Attributes:
        first: the first diverging layer, or None where the output agrees.
        scanned: why layers were looked at one by one; empty where the search by halves was enough.
    """

    layers: int
    looked_at: int
    first: Layer | None
    difference: Difference | None
    scanned: str = ""


def outputs_at_once(layers: int) -> int:
    """How many layers are compared at a time: the logarithm of their number, so that memory stays small."""
    return max(1, math.ceil(math.log2(max(layers, 1))))


def bisect(
    compared: Compared, rtol: float = RTOL, suspects: Sequence[int] = (), every_layer: bool = False
) -> Bisection:
    """Finds the first layer, in order of execution, whose value differs beyond a tolerance (``Difference.beyond``).

    Each step compares about log2(n) layers spread over those in question, the output among the first of them; what
    is left lies between the last that agrees and the first that does not. That holds if whatever follows a fault
    differs too. So the layer found is checked: all values that it is computed from must agree. Where one does
    not, or where a layer agreed that comes after one that did not (a ReLU can hide a fault, branches
    need not carry it), all layers before it that nobody looked at are compared in order, and ``scanned`` says so.

    A fault that the output hides (behind a shut gate) shows in none of the layers compared. It is found if its layer
    is among the ``suspects``, or with ``every_layer``.

    Args:
        suspects: indices in ``layers`` to look at whatever the others show, such as those whose weights differ.

    Raises:
        BenchError: there are no images.
    """
    _check(compared.batches)
    search, scanned = _Search(compared, rtol), ""
    if every_layer:
        scanned = "every layer was requested"
        search.scan(len(compared.layers))
    else:
        found = search.halve()
        search.look([index for index in suspects if found is None or index < found])
        found = search.first()
        if found is not None:
            search.look(compared.layers[found].feeds)
            scanned = search.doubt(found)
            if scanned:
                search.scan(found)
    first = search.first()
    layer, difference = (None, None) if first is None else (compared.layers[first], search.seen[first])
    return Bisection(len(compared.layers), len(search.seen), layer, difference, scanned)


def error_table(compared: Compared) -> list[tuple[Layer, Difference]]:
    """The difference of every layer, the lowest signal-to-noise ratio first; about log2(n) layers at a time.

    Raises:
        BenchError: there are no images.
    """
    _check(compared.batches)
    rows: list[tuple[Layer, Difference]] = []
    for chunk in _chunks(compared.layers, outputs_at_once(len(compared.layers))):
        rows += zip(chunk, _compare(compared, chunk), strict=True)
    return sorted(rows, key=lambda row: row[1].sqnr_db)


def _check(batches: Sequence[Pixels]) -> None:
    if not any(len(batch) for batch in batches):
        raise BenchError("there are no images to compare layers on", "Give at least one image.")


def _chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _compare(compared: Compared, layers: Sequence[Layer]) -> list[Difference]:
    """One pass of the images through both sides, as far as these layers."""
    collectors = [Collector() for _ in layers]
    mine = compared.reference.of([layer.reference for layer in layers], compared.batches)
    theirs = compared.other.of([layer.other for layer in layers], compared.batches)
    for left, right in zip(mine, theirs, strict=True):
        for layer, collector in zip(layers, collectors, strict=True):
            collector.add(left[layer.reference], right[layer.other])
    return [collector.difference() for collector in collectors]


class _Search:
    """What has been seen so far, by place, and the ways to see more."""

    def __init__(self, compared: Compared, rtol: float) -> None:
        self._compared, self._layers, self._rtol = compared, compared.layers, rtol
        self._width = outputs_at_once(len(self._layers))
        self.seen: dict[int, Difference] = {}

    def look(self, indices: Sequence[int]) -> None:
        """Compares the layers at these indices that nobody has looked at, a few at a time."""
        for chunk in _chunks(sorted(set(indices) - self.seen.keys()), self._width):
            layers = [self._layers[index] for index in chunk]
            self.seen.update(zip(chunk, _compare(self._compared, layers), strict=True))

    def halve(self) -> int | None:
        """The first diverging index, if whatever follows a fault differs too; None where the output agrees."""
        agrees, beyond = -1, len(self._layers)
        while beyond - agrees > 1:
            self.look(self._spread(agrees, beyond))
            first = self.first()
            if first is None:
                return None
            beyond = first
            agrees = max((index for index in self.seen if index < beyond), default=-1)
        return beyond

    def _spread(self, agrees: int, beyond: int) -> list[int]:
        """Places between two others, evenly apart; the output is one of them in the first step."""
        between = beyond - agrees - 1
        count = min(self._width, between)
        if beyond == len(self._layers):
            return sorted({agrees + math.ceil(step * between / count) for step in range(1, count + 1)})
        return sorted({agrees + round(step * (between + 1) / (count + 1)) for step in range(1, count + 1)})

    def doubt(self, found: int) -> str:
        """Why the index found need not be the first; empty where nothing speaks against it."""
        name = self._layers[found].name
        if feeding := [index for index in self._layers[found].feeds if self._beyond(index)]:
            return f"{name} reads {self._layers[feeding[0]].name}, which differs though a layer after it agreed"
        if again := [index for index in self.seen if index > found and not self._beyond(index)]:
            return f"{self._layers[min(again)].name} agrees again after {name} did not"
        return ""

    def scan(self, end: int) -> None:
        """Looks at all up to ``end`` in order, until one does not agree."""
        for chunk in _chunks([index for index in range(end) if index not in self.seen], self._width):
            first = self.first()
            if first is not None and first < chunk[0]:
                break
            self.look(chunk)

    def _beyond(self, index: int) -> bool:
        return self.seen[index].beyond(self._rtol)

    def first(self) -> int | None:
        """The first index seen that does not agree."""
        return min((index for index in self.seen if self._beyond(index)), default=None)


@dataclass(frozen=True)
class Difference:
    """How a layer's value differs from the reference, over all images.

    Attributes:
        max_abs: the largest difference; infinite where one side is not finite and the other is not the same.
        spread: standard deviation of the reference over everything (images, channels, pixels).
        relative: ``max_abs / spread``; 0 where nothing differs, infinite where only the reference does not vary.
        worst_channel: the index on the second axis where ``max_abs`` is found; None without such an axis, or where
            nothing differs.
        sqnr_db: signal-to-quantisation-noise ratio, ``10 log10(sum(reference^2) / sum((reference - other)^2))``;
            infinite where nothing differs.
        shapes: both shapes without the batch, where they are not the same; ``max_abs`` is infinite then.
    """

    max_abs: float
    spread: float
    relative: float
    worst_channel: int | None
    sqnr_db: float
    shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def beyond(self, rtol: float) -> bool:
        """Whether the two values do not agree: ``max_abs`` is more than ``rtol * spread + ATOL``."""
        return not self.max_abs <= rtol * self.spread + ATOL


class Collector:
    """Takes up two values of a layer batch by batch, and keeps sums and maxima of them alone."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = self._squares = self._noise = 0.0
        self._worst: NDArray[np.float64] | None = None
        self._shapes: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    def add(self, reference: NDArray[Any], other: NDArray[Any]) -> None:
        """Both ``(n, ...)``, floating-point, of the same images; or one number each, whatever the images."""
        if reference.shape != other.shape:
            self._shapes = reference.shape[1:], other.shape[1:]
            return
        for pair in zip(np.atleast_1d(reference), np.atleast_1d(other), strict=True):  # float64 of all needs room
            self._add(*(np.atleast_1d(image).astype(np.float64) for image in pair))

    def _add(self, image: NDArray[np.float64], other: NDArray[np.float64]) -> None:
        self._count += image.size
        self._sum += float(image.sum())
        self._squares += float(np.square(image).sum())
        with np.errstate(invalid="ignore"):
            apart = np.abs(image - other)
        # Equal infinities, and NaN on both sides, are no difference; NaN on one side is the largest.
        apart[(image == other) | (np.isnan(image) & np.isnan(other))] = 0.0
        apart[np.isnan(apart)] = np.inf
        self._noise += float(np.square(apart).sum())
        worst = apart.reshape(len(apart), -1).max(axis=1)
        self._worst = worst if self._worst is None else np.maximum(self._worst, worst)

    def difference(self) -> Difference:
        """The figures over everything taken up; at least one batch."""
        if self._shapes is not None or self._worst is None:
            return Difference(math.inf, math.nan, math.inf, None, -math.inf, self._shapes)
        mean = self._sum / self._count
        spread = math.sqrt(max(self._squares / self._count - mean * mean, 0.0))
        largest = float(self._worst.max())
        relative = largest / spread if spread > 0 else (math.inf if largest else 0.0)
        ratio = self._squares / self._noise if self._noise else math.inf
        return Difference(
            max_abs=largest,
            spread=spread,
            relative=relative,
            worst_channel=int(self._worst.argmax()) if largest and self._worst.size > 1 else None,
            sqnr_db=10 * math.log10(ratio) if ratio > 0 else -math.inf,
        )
