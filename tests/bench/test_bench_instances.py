"""Several copies of a backend, each with as many slots as it has."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, Concurrent, ModelFiles
from bench.case import Case
from bench.instances import Instances

FILES = ModelFiles("onnx:tiny.onnx", "user", "0", "", "0")
PIXELS = np.zeros((1, 3, 2, 2), np.float32)


class Meeting:
    """A backend whose calls return only when ``together`` of them are at work."""

    name: ClassVar[str] = "meeting"
    OPTIONS: ClassVar[dict[str, Any]] = {}

    def __init__(self, barrier: threading.Barrier) -> None:
        self._barrier = barrier
        self.loads = self.calls = 0
        self.closed = False

    def load(self, case: Case, files: ModelFiles) -> None:
        self.loads += 1

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        self.calls += 1
        self._barrier.wait(timeout=30)
        return pixels.reshape(len(pixels), -1)

    def proof(self) -> dict[str, Any]:
        return {"loads": self.loads}

    def close(self) -> None:
        self.closed = True


class TwoSlots(Meeting):
    """It can work on two batches at the same time, and its copies share what it loaded."""

    slots = 2

    def submit(self, pixels: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        raise AssertionError("the instances have threads of their own")

    def twin(self) -> Backend:
        return TwoSlots(self._barrier)


def test_every_copy_works_at_the_same_time_and_is_closed() -> None:
    made: list[Meeting] = []
    barrier = threading.Barrier(3)

    def make() -> Backend:
        made.append(Meeting(barrier))
        return made[-1]

    instances = Instances(make)
    instances.load(Case("m", "user", "meeting", instances=3), FILES)
    assert isinstance(instances, Concurrent)
    assert instances.slots == 3
    assert instances.infer(PIXELS).shape == (1, 12)
    assert [future.result().shape for future in [instances.submit(PIXELS) for _ in range(3)]] == [(1, 12)] * 3
    assert [(copy.loads, copy.calls) for copy in made] == [(1, 2)] * 3
    assert instances.proof() == {"loads": 1, "instances": 3}
    instances.close()
    assert all(copy.closed for copy in made)


def test_copies_that_share_are_loaded_once_and_fill_all_their_slots() -> None:
    made: list[Meeting] = []

    def make() -> Backend:
        made.append(TwoSlots(threading.Barrier(4)))
        return made[-1]

    instances = Instances(make)
    instances.load(Case("m", "user", "meeting", instances=2), FILES)
    assert (len(made), made[0].loads, instances.slots) == (1, 1, 4)
    # Four calls meet, so four are at work at once; a call that waited for a slot would break the barrier.
    assert len([future.result() for future in [instances.submit(PIXELS) for _ in range(4)]]) == 4
    assert made[0].calls == 2, "two of the four went to the other copy"
    instances.close()
