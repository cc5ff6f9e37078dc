"""Several copies of a backend side by side, each called from a thread of its own."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, ModelFiles
from bench.case import Case


class Instances:
    """``case.instances`` copies that work at the same time. Itself a backend.

    ``infer`` gives the same batch to every copy and returns when the slowest is done: what a server sees whose
    copies are all busy. One call therefore works on ``case.batch * case.instances`` images. ``submit`` gives one
    batch to whichever copy is free.

    Args:
        make: makes one unloaded copy.
    """

    name: ClassVar[str] = "instances"

    def __init__(self, make: Callable[[], Backend]) -> None:
        self._make = make
        self._copies: list[Backend] = []
        self._free: queue.SimpleQueue[Backend] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None

    def load(self, case: Case, files: ModelFiles) -> None:
        for _ in range(case.instances):
            copy = self._make()
            copy.load(case, files)
            self._copies.append(copy)
            self._free.put(copy)
        self._threads = ThreadPoolExecutor(case.instances, thread_name_prefix="instance")

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._threads is not None
        calls = [self._threads.submit(copy.infer, pixels) for copy in self._copies]
        logits = [call.result() for call in calls]
        return logits[0]

    def submit(self, pixels: NDArray[np.float32]) -> Future[NDArray[np.float32]]:
        """Logits of one batch, from the next free copy."""
        assert self._threads is not None
        return self._threads.submit(self._next_free, pixels)

    def _next_free(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        copy = self._free.get()
        try:
            return copy.infer(pixels)
        finally:
            self._free.put(copy)

    def proof(self) -> dict[str, Any]:
        """The first copy's; the others were loaded from the same Case and files."""
        return {**self._copies[0].proof(), "instances": len(self._copies)}

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
        for copy in self._copies:
            copy.close()
        self._copies.clear()
