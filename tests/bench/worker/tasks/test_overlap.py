"""Batches at work while the next are made: order, how many at once, and that nothing is left behind."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.backends.base import Facts, ModelFiles
from bench.record.case import Case
from bench.worker.tasks.overlap import Overlap
from pipelines.base import Batch

Pixels = NDArray[np.float32]


class Gated:
    """A backend that computes only while its gate is open, and counts the calls that wait there."""

    FACTS: ClassVar[Facts] = Facts("gated", "", "", "", {})

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.callers: set[int] = set()
        self.fail_at: float | None = None

    def load(self, case: Case, files: ModelFiles) -> None:
        """Nothing to load."""

    def infer(self, pixels: Pixels) -> Pixels:
        assert self.gate.wait(timeout=30)
        self.callers.add(threading.get_ident())
        if self.fail_at is not None and pixels[0, 0] == self.fail_at:
            raise RuntimeError("it was told to fail")
        return pixels * 2

    def proof(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Nothing is open."""


class TwoSlots(Gated):
    slots = 2

    def __init__(self) -> None:
        super().__init__()
        self.threads = ThreadPoolExecutor(2)

    def submit(self, pixels: Pixels) -> Future[Pixels]:
        return self.threads.submit(self.infer, pixels)


def batches(n: int, taken: list[int], gate: threading.Event | None = None, open_at: int = 0) -> Iterator[Pixels]:
    """Batches numbered from 0; opens the gate when number ``open_at`` is asked for."""
    for number in range(n):
        if gate is not None and number == open_at:
            gate.set()
        taken.append(number)
        yield np.full((1, 1), number, np.float32)


@pytest.mark.parametrize(("backend", "ahead", "at_once"), [(Gated, 1, 2), (Gated, 3, 4), (TwoSlots, 1, 3)])
def test_batches_are_made_while_others_are_at_work_and_come_out_in_order(backend, ahead, at_once):
    made, taken = backend(), list[int]()
    overlap = Overlap(made, ahead)
    # The gate opens only when the last batch that may be on its way is asked for: fewer at once would wait for ever.
    results = overlap.infer_all(batches(6, taken, made.gate, at_once - 1))
    first = next(results)
    assert taken == list(range(at_once)), "no more are on their way"
    assert [float(each[0, 0]) for each in (first, *results)] == [0, 2, 4, 6, 8, 10]
    assert threading.get_ident() not in made.callers
    assert overlap.slots == (2 if backend is TwoSlots else 1)
    overlap.close()


def test_an_error_comes_out_and_leaves_nothing_at_work() -> None:
    made, taken = Gated(), list[int]()
    made.gate.set()
    made.fail_at = 1.0
    overlap = Overlap(made, ahead=2)
    with pytest.raises(RuntimeError, match="told to fail"):
        list(overlap.infer_all(batches(5, taken)))
    assert len(taken) < 5, "what comes after the error is not made"
    made.fail_at = None
    assert len(list(overlap.infer_all(batches(3, [])))) == 3, "it can be used again"
    overlap.close()


class Numbered:
    """A pipeline of three batches, the last one smaller."""

    def __iter__(self) -> Iterator[Batch]:
        for first, n in ((0, 2), (2, 2), (4, 1)):
            yield Batch(np.arange(first, first + n), np.full((n, 1), first, np.float32))


@pytest.mark.parametrize(("fixed", "expected"), [(None, [[0, 1], [2, 3], [4]]), (2, [[0, 1], [2, 3]])])
def test_a_pass_tells_whose_logits_they_are(fixed: int | None, expected: list[list[int]]) -> None:
    made = Gated()
    made.gate.set()
    overlap = Overlap(made)
    found = list(overlap.whole_pass(Numbered(), fixed))  # type: ignore[arg-type]
    overlap.close()
    assert [indices.tolist() for indices, _ in found] == expected
    assert [float(logits[0, 0]) for _, logits in found] == [2.0 * indices[0] for indices, _ in found]
