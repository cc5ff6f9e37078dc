"""Several copies of a backend side by side, each called from threads of its own, on cores of its own where possible."""

from __future__ import annotations

import os
import queue
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, Concurrent, Facts, ModelFiles, Twinned
from bench.backends.cuda import Work, infer
from bench.record.case import Case

Cores = tuple[int, ...]


class Instances:
    """``case.instances`` copies that work at the same time. Itself a backend, of as many slots as its copies have.

    ``infer`` gives the same batch to every copy and returns when the slowest is done: what a server sees whose
    copies are all busy. One call therefore works on ``case.batch * case.instances`` images. ``submit`` gives one
    batch to whichever copy is free.

    Each copy is loaded and called in threads that may run on its cores alone, and the threads that its runtime
    starts inherit that. So no runtime has to know how to be pinned (PyTorch does not). Copies that share what is
    loaded (OpenVINO's) share threads too, and are left to the runtime's own pinning. Option ``pin=no`` leaves
    the copies to the system.
    """

    FACTS: ClassVar[Facts] = Facts("instances", "instances", "", "", {})  # the copies have theirs

    def __init__(self, make: Callable[[], Backend]) -> None:
        self._make = make
        self._copies: list[_Copy] = []
        self._free: queue.SimpleQueue[_Copy] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._pinning = ""
        self.slots = 0

    def load(self, case: Case, files: ModelFiles) -> None:
        first = self._make()
        cores, self._pinning = cores_of_copies(case, isinstance(first, Twinned))
        self._copies = [_Copy(first, cores[0])]
        self._copies[0].call(first.load, case, files)
        for own in cores[1:]:
            if isinstance(first, Twinned):
                self._copies.append(_Copy(first.twin(), own))
            else:
                self._copies.append(_Copy(self._make(), own))
                self._copies[-1].call(self._copies[-1].backend.load, case, files)
        slots = [copy.open_slots() for copy in self._copies]
        # Round robin, so that two batches go to two copies before one copy gets both.
        for place in range(max(slots)):
            for copy, n in zip(self._copies, slots, strict=True):
                if place < n:
                    self._free.put(copy)
        self.slots = sum(slots)
        self._threads = ThreadPoolExecutor(self.slots, thread_name_prefix="instances")

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        calls = [copy.submit(pixels) for copy in self._copies]
        logits = [call.result() for call in calls]
        return logits[0]

    @property
    def first(self) -> Backend:
        """The copy that tells of all what they can."""
        return self._copies[0].backend

    def submit(self, pixels: Work) -> Future[NDArray[np.float32]]:
        """Logits of one batch, from the next free copy."""
        assert self._threads is not None
        return self._threads.submit(self._next_free, pixels)

    def _next_free(self, pixels: Work) -> NDArray[np.float32]:
        copy = self._free.get()
        try:
            return copy.submit(pixels).result()
        finally:
            self._free.put(copy)

    def proof(self) -> dict[str, Any]:
        """The first copy's (the others were loaded from the same Case and files), and where each may run."""
        first = self._copies[0]
        return {
            **first.call(first.backend.proof),
            "instances": len(self._copies),
            "pinning": self._pinning,
            "instance_cores": [list(copy.cores) for copy in self._copies],
            "threads_by_cores": threads_by_cores(),
        }

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        for copy in self._copies:
            copy.close()
        self._copies.clear()


class _Copy:
    """One copy and the threads that call it.

    Args:
        cores: that its threads are bound to; none for wherever the system likes.
    """

    def __init__(self, backend: Backend, cores: Cores) -> None:
        self.backend, self.cores = backend, cores
        self._threads = self._new_threads(1)

    def _new_threads(self, n: int) -> ThreadPoolExecutor:
        bind: Callable[[], None] | None = None
        if self.cores:

            def bind() -> None:
                os.sched_setaffinity(0, self.cores)  # of the calling thread

        return ThreadPoolExecutor(n, thread_name_prefix="instance", initializer=bind)

    def open_slots(self) -> int:
        """As many threads as the loaded copy has slots; gives their number."""
        slots = self.backend.slots if isinstance(self.backend, Concurrent) else 1
        if slots > 1:
            self._threads.shutdown()
            self._threads = self._new_threads(slots)
        return slots

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's result, from a thread on the copy's cores."""
        return self._threads.submit(function, *arguments).result()

    def submit(self, pixels: Work) -> Future[NDArray[np.float32]]:
        return self._threads.submit(infer, self.backend, pixels)

    def close(self) -> None:
        self._threads.shutdown()
        self.backend.close()


def cores_of_copies(case: Case, shared: bool) -> tuple[list[Cores], str]:
    """The cores of each copy, and a sentence for the proof; no cores where the copies are not bound.

    Args:
        shared: the copies share what is loaded, and its threads.
    """
    nowhere: list[Cores] = [()] * case.instances
    if shared:
        return nowhere, "left to the runtime, whose threads the copies share"
    if case.option("pin", "yes") == "no":
        return nowhere, "none, as asked"
    if not hasattr(os, "sched_setaffinity"):
        return nowhere, "none: this system does not bind threads to cores"
    allowed = sorted(os.sched_getaffinity(0))
    n, wanted = case.threads, case.threads * case.instances
    if wanted > len(allowed):
        return nowhere, f"none: {wanted} threads have no {wanted} cores of their own among {len(allowed)}"
    chosen = choose_cores({core: physical_core(core) for core in allowed}, wanted)
    return [tuple(chosen[first : first + n]) for first in range(0, wanted, n)], "each copy to its own cores"


def choose_cores(physical: Mapping[int, tuple[str, str]], wanted: int) -> list[int]:
    """So many logical cores that copies with equal, consecutive parts of them share as few physical ones as can be."""
    siblings: dict[tuple[str, str], list[int]] = {}
    for core in sorted(physical):
        siblings.setdefault(physical[core], []).append(core)
    if wanted <= len(siblings):
        return [group[0] for group in siblings.values()][:wanted]
    return [core for group in siblings.values() for core in group][:wanted]


def physical_core(core: int, root: Path = Path("/sys/devices/system/cpu")) -> tuple[str, str]:
    """Package and number of the physical core behind a logical one; the logical one's own where it is not told."""
    topology = root / f"cpu{core}" / "topology"
    try:
        package, number = ((topology / name).read_text().strip() for name in ("physical_package_id", "core_id"))
    except OSError:
        return "", str(core)
    return package, number


def threads_by_cores(tasks: Path = Path("/proc/self/task")) -> dict[str, int]:
    """How many threads of this process may run on which cores: ``{"0": 2, "1": 2, "0-1": 9}``; empty where unknown."""
    counts: Counter[str] = Counter()
    for status in sorted(tasks.glob("*/status")):
        try:
            lines: Sequence[str] = status.read_text().splitlines()
        except OSError:  # the thread has ended
            continue
        counts.update(line.split()[1] for line in lines if line.startswith("Cpus_allowed_list:"))
    return dict(counts)
