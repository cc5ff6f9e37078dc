"""Keeps a backend at work on some batches while the next ones are made."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, Concurrent
from pipelines.base import Pipeline

Pixels = NDArray[np.float32]

# Batches that wait for the backend besides those at work: one, so that it never waits for the caller to hand it the
# next. tests/benchmarks/end_to_end.py --ahead tries others.
AHEAD = 1


class Overlap:
    """Infers batches while the caller's thread takes the next ones from a pipeline.

    Backends that can work on several batches at the same time (``Concurrent``) are given as many as they have
    slots; others are called from a thread of their own, one batch after the other.

    Args:
        backend: loaded.
        ahead: batches that wait, decoded, besides those at work.
    """

    def __init__(self, backend: Backend, ahead: int = AHEAD) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._submit: Callable[[Pixels], Future[Pixels]]
        if isinstance(backend, Concurrent) and backend.slots > 1:
            self._slots, self._submit = backend.slots, backend.submit
        else:
            self._thread = thread = ThreadPoolExecutor(1, thread_name_prefix="infer")
            self._slots, self._submit = 1, lambda pixels: thread.submit(backend.infer, pixels)
        self._most = self._slots + ahead

    @property
    def slots(self) -> int:
        """Batches that the backend works on at the same time."""
        return self._slots

    def infer_all(self, batches: Iterable[Pixels]) -> Iterator[Pixels]:
        """The logits of each batch, in order. Nothing is at work when this ends, be it by an error.

        Args:
            batches: as ``Backend.infer`` takes them; read in the caller's thread.
        """
        at_work: deque[Future[Pixels]] = deque()
        try:
            for pixels in batches:
                at_work.append(self._submit(pixels))
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

        def pixels() -> Iterator[Pixels]:
            for batch in pipeline:
                if fixed_batch in (None, len(batch.indices)):
                    indices.append(batch.indices)
                    yield batch.pixels

        for logits in self.infer_all(pixels()):
            yield indices.popleft(), logits

    def close(self) -> None:
        """Ends the thread; the backend stays open."""
        if self._thread is not None:
            self._thread.shutdown()
