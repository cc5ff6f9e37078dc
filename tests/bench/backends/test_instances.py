"""Several copies of a backend, each with as many slots as it has."""

import os
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.backends.base import Backend, Concurrent, Facts, ModelFiles
from bench.backends.instances import Instances, choose_cores, cores_of_copies, physical_core, threads_by_cores
from bench.record.case import Case

FILES = ModelFiles("onnx:tiny.onnx", "user", "0", "", "0")
PIXELS = np.zeros((1, 3, 2, 2), np.float32)


class Meeting:
    """A backend whose calls return only when ``together`` of them are at work."""

    FACTS: ClassVar[Facts] = Facts("meeting", "", "", "", {})

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
    proof = instances.proof()
    assert (proof["loads"], proof["instances"]) == (1, 3)
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


class Placed(Meeting):
    """Notes on which cores its own threads may run: those that load it, call it, and that loading starts."""

    def load(self, case: Case, files: ModelFiles) -> None:
        super().load(case, files)
        self.seen = {tuple(sorted(os.sched_getaffinity(0)))}
        started = threading.Thread(target=lambda: self.seen.add(tuple(sorted(os.sched_getaffinity(0)))))
        started.start()
        started.join()

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.add(tuple(sorted(os.sched_getaffinity(0))))
        return super().infer(pixels)


needs_two_cores = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two cores to choose from"
)


@needs_two_cores
@pytest.mark.parametrize("pin", ["yes", "no"])
def test_each_copy_and_what_it_starts_stays_on_its_own_cores(pin: str) -> None:
    made: list[Placed] = []
    barrier = threading.Barrier(2)

    def make() -> Backend:
        made.append(Placed(barrier))
        return made[-1]

    allowed = tuple(sorted(os.sched_getaffinity(0)))
    instances = Instances(make)
    instances.load(Case("m", "user", "meeting", instances=2, options=(("pin", pin),)), FILES)
    instances.infer(PIXELS)
    for future in [instances.submit(PIXELS) for _ in range(2)]:
        future.result()
    proof = instances.proof()
    instances.close()
    assert tuple(sorted(os.sched_getaffinity(0))) == allowed, "the caller's own thread is left alone"
    if pin == "no":
        assert [copy.seen for copy in made] == [{allowed}] * 2
        assert (proof["pinning"], proof["instance_cores"]) == ("none, as asked", [[], []])
        return
    ((first,), (second,)) = (list(copy.seen) for copy in made)
    assert len(first) == len(second) == 1
    assert first != second
    assert proof["instance_cores"] == [list(first), list(second)]
    assert proof["pinning"] == "each copy to its own cores"
    assert all(proof["threads_by_cores"][str(cores[0])] >= 1 for cores in (first, second))


def test_copies_without_cores_of_their_own_are_not_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None, raising=False)
    case = Case("m", "user", "meeting", threads=2, instances=2)
    cores, why = cores_of_copies(case, shared=False)
    assert (cores, why) == ([(), ()], "none: 4 threads have no 4 cores of their own among 3")
    cores, why = cores_of_copies(case, shared=True)
    assert cores == [(), ()]
    assert "left to the runtime" in why
    monkeypatch.delattr(os, "sched_setaffinity")
    cores, why = cores_of_copies(case, shared=False)
    assert (cores, why) == ([(), ()], "none: this system does not bind threads to cores")


def test_copies_share_as_few_physical_cores_as_possible() -> None:
    # Logical cores 0 and 4 are one physical core, 1 and 5 the next, as Linux counts on most machines.
    physical = {core: ("0", str(core % 4)) for core in range(8)}
    assert choose_cores(physical, 4) == [0, 1, 2, 3], "one of each pair"
    assert choose_cores(physical, 8) == [0, 4, 1, 5, 2, 6, 3, 7], "a copy of two threads gets a whole core"


def test_the_system_is_asked_and_may_be_silent(tmp_path: Path) -> None:
    topology = tmp_path / "cpu3" / "topology"
    topology.mkdir(parents=True)
    (topology / "physical_package_id").write_text("1\n")
    (topology / "core_id").write_text("7\n")
    assert physical_core(3, tmp_path) == ("1", "7")
    assert physical_core(4, tmp_path) == ("", "4")
    assert threads_by_cores(tmp_path) == {}
    (tmp_path / "11").mkdir()
    (tmp_path / "11" / "status").write_text("Name:\tx\nCpus_allowed_list:\t0-3\n")
    (tmp_path / "12" / "status").mkdir(parents=True)  # cannot be read
    assert threads_by_cores(tmp_path) == {"0-3": 1}
