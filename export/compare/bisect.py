"""The first layer where two computations of a network part: a search, and a table of all layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from export.compare.differences import Collector, Difference, Tolerance
from export.compare.pairing import Layer
from export.compare.torch_values import Pixels, Values
from scarlet.errors import BenchError

# Why layers were looked at.
SPREAD, FEEDING, SUSPECTED, IN_ORDER = "spread out", "as its inputs", "for their weights", "in order"


@dataclass(frozen=True)
class Step:
    """One look at some layers: one pass of the images through both sides.

    Attributes:
        layers: names of the layers that were compared, in order.
        agree: how many of these agree.
        first_beyond: the first of them that does not agree, or None.
        why: ``SPREAD`` in the search by halves, ``FEEDING`` to check what that found, ``SUSPECTED`` because the caller
            named them, ``IN_ORDER`` in a scan layer by layer.
    """

    layers: tuple[str, ...]
    agree: int
    first_beyond: str | None
    why: str


@dataclass(frozen=True)
class Bisection:
    """What a search found.

    Attributes:
        layers: how many layers both sides have in common.
        looked_at: how many were compared.
        at_once: the most that were compared (and kept in memory) at a time.
        steps: each look.
        first: the first diverging layer, or None where the output agrees.
        difference: of that layer.
        scanned: why layers were looked at one by one; empty where the search by halves was enough.
    """

    layers: int
    looked_at: int
    at_once: int
    steps: tuple[Step, ...]
    first: Layer | None
    difference: Difference | None
    scanned: str = ""


def outputs_at_once(layers: int) -> int:
    """How many layers are compared at a time: the logarithm of their number, so that memory stays small."""
    return max(1, math.ceil(math.log2(max(layers, 1))))


def bisect(
    reference: Values,
    other: Values,
    layers: Sequence[Layer],
    batches: Sequence[Pixels],
    tolerance: Tolerance | None = None,
    suspects: Sequence[int] = (),
    every_layer: bool = False,
    on_step: Callable[[Step], None] | None = None,
) -> Bisection:
    """Finds the first layer, in order of execution, whose value differs beyond a tolerance.

    Each step compares about log2(n) layers spread over those in question, the output among the first of them; what
    is left lies between the last that agrees and the first that does not. That holds if whatever follows a fault
    differs too. So the layer found is checked: all values that it is computed from must agree. Where one does
    not, or where a layer agreed that comes after one that did not (a ReLU can hide a fault, branches
    need not carry it), all layers before it that nobody looked at are compared in order, and ``scanned`` says so.

    A fault that the output hides (behind a shut gate) shows in none of the layers compared. It is found if its layer
    is among the ``suspects``, or with ``every_layer``.

    Args:
        reference: the side that counts as right.
        other: the side under test.
        layers: of ``export.compare.pairing``.
        batches: images, float32 ``(n, 3, h, w)``.
        tolerance: what counts as agreement.
        suspects: places in ``layers`` to look at whatever the others show, such as those whose weights differ.
        every_layer: compare all layers in order, not by halves.
        on_step: is told each step as it ends.

    Raises:
        BenchError: there are no images.
    """
    _check(batches)
    search = _Search(reference, other, layers, batches, tolerance or Tolerance(), on_step)
    if every_layer:
        first = search.scan(len(layers))
        return search.result(first, "every layer was asked for")
    found = search.halve()
    search.look([place for place in suspects if found is None or place < found], SUSPECTED)
    found = search.first()
    if found is None:
        return search.result(None)
    search.look(layers[found].feeds, FEEDING)
    reason = search.doubt(found)
    if reason:
        found = search.scan(found)
        assert found is not None
    return search.result(found, reason)


def error_table(
    reference: Values, other: Values, layers: Sequence[Layer], batches: Sequence[Pixels]
) -> list[tuple[Layer, Difference]]:
    """The difference of every layer, the lowest signal-to-noise ratio first; about log2(n) layers at a time.

    Raises:
        BenchError: there are no images.
    """
    _check(batches)
    rows: list[tuple[Layer, Difference]] = []
    for places in _chunks(range(len(layers)), outputs_at_once(len(layers))):
        chunk = [layers[place] for place in places]
        rows += zip(chunk, _compare(reference, other, chunk, batches), strict=True)
    return sorted(rows, key=lambda row: row[1].sqnr_db)


def _check(batches: Sequence[Pixels]) -> None:
    if not any(len(batch) for batch in batches):
        raise BenchError("there are no images to compare layers on", "Give at least one image.")


def _chunks(places: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    return (places[start : start + size] for start in range(0, len(places), size))


def _compare(
    reference: Values, other: Values, layers: Sequence[Layer], batches: Sequence[Pixels]
) -> list[Difference]:
    """One pass of the images through both sides, as far as these layers."""
    collectors = [Collector() for _ in layers]
    mine = reference.of([layer.reference for layer in layers], batches)
    theirs = other.of([layer.other for layer in layers], batches)
    for left, right in zip(mine, theirs, strict=True):
        for layer, collector in zip(layers, collectors, strict=True):
            collector.add(left[layer.reference], right[layer.other])
    return [collector.difference() for collector in collectors]


class _Search:
    """What has been seen so far, and the ways to see more."""

    def __init__(
        self,
        reference: Values,
        other: Values,
        layers: Sequence[Layer],
        batches: Sequence[Pixels],
        tolerance: Tolerance,
        on_step: Callable[[Step], None] | None,
    ) -> None:
        self._sides = reference, other
        self._layers, self._batches, self._tolerance = layers, batches, tolerance
        self._on_step = on_step
        self._width = outputs_at_once(len(layers))
        self._steps: list[Step] = []
        self.seen: dict[int, Difference] = {}

    def look(self, places: Sequence[int], why: str) -> None:
        """Compares the layers at these places that nobody has looked at, a few at a time."""
        for chunk in _chunks(sorted(set(places) - self.seen.keys()), self._width):
            layers = [self._layers[place] for place in chunk]
            self.seen.update(zip(chunk, _compare(*self._sides, layers, self._batches), strict=True))
            beyond = [self._layers[place].name for place in chunk if self._beyond(place)]
            names = tuple(layer.name for layer in layers)
            step = Step(names, len(names) - len(beyond), beyond[0] if beyond else None, why)
            self._steps.append(step)
            if self._on_step is not None:
                self._on_step(step)

    def halve(self) -> int | None:
        """The first diverging place, if whatever follows a fault differs too; None where the output agrees."""
        agrees, beyond = -1, len(self._layers)
        while beyond - agrees > 1:
            self.look(self._spread(agrees, beyond), SPREAD)
            first = self.first()
            if first is None:
                return None
            beyond = first
            agrees = max((place for place in self.seen if place < beyond), default=-1)
        return beyond

    def _spread(self, agrees: int, beyond: int) -> list[int]:
        """Places between two others, evenly apart; the output is one of them in the first step."""
        between = beyond - agrees - 1
        count = min(self._width, between)
        if beyond == len(self._layers):
            return sorted({agrees + math.ceil(step * between / count) for step in range(1, count + 1)})
        return sorted({agrees + round(step * (between + 1) / (count + 1)) for step in range(1, count + 1)})

    def doubt(self, found: int) -> str:
        """Why the place found need not be the first; empty where nothing speaks against it."""
        feeding = [place for place in self._layers[found].feeds if self._beyond(place)]
        if feeding:
            return (
                f"{self._layers[found].name} reads {self._layers[feeding[0]].name}, which differs though a layer "
                "after it agreed"
            )
        again = [place for place in self.seen if place > found and not self._beyond(place)]
        if again:
            return f"{self._layers[min(again)].name} agrees again after {self._layers[found].name} did not"
        return ""

    def scan(self, end: int) -> int | None:
        """The first diverging place of all up to ``end``, each looked at in order until one is found."""
        unseen = [place for place in range(min(end, len(self._layers))) if place not in self.seen]
        for chunk in _chunks(unseen, self._width):
            first = self.first()
            if first is not None and first < chunk[0]:
                break
            self.look(chunk, IN_ORDER)
        return self.first()

    def result(self, first: int | None, scanned: str = "") -> Bisection:
        return Bisection(
            layers=len(self._layers),
            looked_at=len(self.seen),
            at_once=max((len(step.layers) for step in self._steps), default=0),
            steps=tuple(self._steps),
            first=None if first is None else self._layers[first],
            difference=None if first is None else self.seen[first],
            scanned=scanned,
        )

    def _beyond(self, place: int) -> bool:
        return self.seen[place].beyond(self._tolerance)

    def first(self) -> int | None:
        """The first place seen that does not agree."""
        return min((place for place in self.seen if self._beyond(place)), default=None)
