"""Keeps a backend at work on some batches while the next ones are made, and hands them over where they lie."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, Concurrent
from bench.backends.cuda import Pixels, Work, infer, takes_device_pixels
from pipelines.base import Batch, Pipeline

# Batches that wait for the backend besides those at work: one, so that it never waits for the caller to hand it the
# next. docs/experiments/end_to_end.py --ahead tries others.
AHEAD = 1


def work_for(backend: Backend, device: str, batch: Batch) -> Work:
    """The batch's pixels where this backend takes them: on the device if they lie there and it can, else on the host.

    Args:
        backend: loaded.
        device: of its Case. Backends for several devices take device pixels on a GPU only.
        batch: of a pipeline. Asking for pixels on the host copies those that a GPU made.
    """
    if batch.on_device is not None and device == "cuda" and takes_device_pixels(backend):
        return batch.on_device
    return batch.pixels


class Overlap:
    """Infers batches while the caller's thread takes the next ones from a pipeline.

    Backends that can work on several batches at the same time (``Concurrent``) are given as many as they have
    slots; others are called from a thread of their own, one batch after the other. Batches that a pipeline made on a
    GPU are handed to a backend there without passing through the host.

    Args:
        backend: loaded.
        ahead: batches that wait, decoded, besides those at work.
        device: that the backend computes on, ``cpu`` or ``cuda``.
        blank: pixels of a whole batch, on a GPU inferred once before this returns, and so before a pipeline is at
            work: cuDNN's choice of algorithms and ONNX Runtime's CUDA graphs are each thread's own, and those of the
            thread that loaded the backend are not those of the one that calls it.
    """

    def __init__(self, backend: Backend, ahead: int = AHEAD, device: str = "cpu", blank: Pixels | None = None) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._submit: Callable[[Work], Future[Pixels]]
        self._work: Callable[[Batch], Work] = lambda batch: work_for(backend, device, batch)
        if isinstance(backend, Concurrent) and backend.slots > 1:
            self._slots, self._submit = backend.slots, backend.submit
        else:
            self._thread = thread = ThreadPoolExecutor(1, thread_name_prefix="infer")
            self._slots, self._submit = 1, lambda work: thread.submit(infer, backend, work)
            if blank is not None and device == "cuda":
                self._submit(blank).result()
        self._most = self._slots + ahead

    @property
    def slots(self) -> int:
        """Batches that the backend works on at the same time."""
        return self._slots

    def work(self, batch: Batch) -> Work:
        """What the backend is handed of a batch."""
        return self._work(batch)

    def infer_all(self, batches: Iterable[Work]) -> Iterator[Pixels]:
        """The logits of each batch, in order. Nothing is at work when this ends, be it by an error.

        Args:
            batches: as returned by ``work``; read in the caller's thread.
        """
        at_work: deque[Future[Pixels]] = deque()
        try:
            for work in batches:
                at_work.append(self._submit(work))
                if len(at_work) == self._most:
                    yield at_work.popleft().result()
            while at_work:
                yield at_work.popleft().result()
        finally:
            for future in at_work:
                if not future.cancel():
                    future.exception()

    def whole_pass(
        self, pipeline: Pipeline, fixed_batch: int | None = None
    ) -> Iterator[tuple[NDArray[np.int64], Pixels]]:
        """One pass over the pipeline's images: indices and logits of each batch, in order.

        Args:
            pipeline: what makes the batches. Its queues start empty.
            fixed_batch: where given, batches of another size (the last) are passed over.
        """
        indices: deque[NDArray[np.int64]] = deque()

        def works() -> Iterator[Work]:
            for batch in pipeline:
                if fixed_batch in (None, len(batch.indices)):
                    indices.append(batch.indices)
                    yield self._work(batch)

        for logits in self.infer_all(works()):
            yield indices.popleft(), logits

    def close(self) -> None:
        """Ends the thread; the backend stays open."""
        if self._thread is not None:
            self._thread.shutdown()
