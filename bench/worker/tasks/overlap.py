"""Keeps a backend at work on some batches while the next ones are made, and hands them over where they lie."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

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
        clock_ns: a monotonic clock in nanoseconds.

    Attributes:
        work: what the backend is handed of a batch.
        slots: batches that the backend works on at the same time.
        most: batches on their way, at most.
        finished_ns: when the logits that were given last were there.
    """

    def __init__(
        self,
        backend: Backend,
        ahead: int = AHEAD,
        device: str = "cpu",
        blank: Pixels | None = None,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.clock_ns, self.finished_ns = clock_ns, clock_ns()
        self._thread: ThreadPoolExecutor | None = None
        self._pending: set[Future[Pixels]] = set()
        self._submit: Callable[[Work], Future[Pixels]]
        self.work: Callable[[Batch], Work] = lambda batch: work_for(backend, device, batch)
        if isinstance(backend, Concurrent) and backend.slots > 1:
            self.slots, self._submit = backend.slots, backend.submit
        else:
            self._thread = thread = ThreadPoolExecutor(1, thread_name_prefix="infer")
            self.slots, self._submit = 1, lambda work: thread.submit(infer, backend, work)
            if blank is not None and device == "cuda":
                self._submit(blank).result()
        self.most = self.slots + ahead

    def infer_all(self, batches: Iterable[Work]) -> Iterator[Pixels]:
        """The logits of each batch, in order. Nothing is at work when this ends, be it by an error.

        Args:
            batches: as returned by ``work``; read in the caller's thread.
        """
        at_work: deque[tuple[Future[Pixels], list[int]]] = deque()

        def take() -> Pixels:
            future, finished = at_work[0]
            logits = future.result()
            at_work.popleft()
            self._pending.discard(future)
            self.finished_ns = max([self.finished_ns, *(finished or [self.clock_ns()])])
            return logits

        try:
            for work in batches:
                future, finished = self._submit(work), list[int]()
                future.add_done_callback(lambda _, finished=finished: finished.append(self.clock_ns()))  # type: ignore[misc]
                at_work.append((future, finished))
                self._pending.add(future)
                if len(at_work) == self.most:
                    yield take()
            while at_work:
                yield take()
        finally:
            for future, _ in at_work:
                if not future.cancel():
                    future.exception()
                self._pending.discard(future)

    def settle(self) -> None:
        """Waits until nothing is at work; whose logits have not been taken stays to be taken."""
        wait(self._pending)

    def whole_pass(
        self, pipeline: Pipeline, fixed_batch: int | None = None
    ) -> Generator[tuple[NDArray[np.int64], Pixels], None, None]:
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
                    yield self.work(batch)

        for logits in self.infer_all(works()):
            yield indices.popleft(), logits

    def close(self) -> None:
        """Ends the thread; the backend stays open."""
        if self._thread is not None:
            self._thread.shutdown()
