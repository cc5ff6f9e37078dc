"""A GPU that computes nothing in parallel and knows what could have: streams, events and memory with vector clocks.

Work is done at once, on the CPU. For each stream and thread a clock says which work of every other is known to be over;
events, synchronisation and futures hand clocks on, and whoever queues work hands on his own. An access to memory whose
last writer (or, before writing, last reader) is not known to be over is a fault, whatever a real GPU would have done
this time. The legacy default stream, and a stream of PyTorch's pool that is given out twice, are faults by themselves.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.backends import cuda

POOL = 32  # streams that PyTorch has of one priority, given out in turn
LEGACY = -1

Clock = dict[int, int]  # by stream or thread, how much of its work is known to be over


def join(into: Clock, more: Clock) -> None:
    for stream, count in more.items():
        into[stream] = max(into.get(stream, 0), count)


@dataclass
class Memory:
    """Who wrote it last and who has read it since, as stream and count; the tensor keeps its address in use."""

    tensor: torch.Tensor
    on_device: bool
    writer: tuple[int, int] | None = None
    readers: Clock = field(default_factory=dict)


class Checker:
    """Takes the place of torch.cuda's streams and events.

    Attributes:
        faults: what it found, each once.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.clocks: dict[int, Clock] = {}
        self.memory: dict[int, Memory] = {}
        self._lock, self._local = threading.RLock(), threading.local()
        self._given, self._alive = 0, weakref.WeakSet[Any]()

    def fault(self, text: str) -> None:
        if text not in self.faults:
            self.faults.append(text)

    @property
    def thread(self) -> int:
        """The calling thread's number, which is negative."""
        return -threading.get_ident()

    @property
    def current(self) -> int:
        """The calling thread's stream, or the thread itself outside of every ``torch.cuda.stream``."""
        return getattr(self._local, "stream", self.thread)

    def clock(self, stream: int) -> Clock:
        return self.clocks.setdefault(stream, {})

    def new(self, tensor: torch.Tensor, on_device: bool) -> torch.Tensor:
        """Makes a tensor's memory known."""
        self.memory[tensor.untyped_storage().data_ptr()] = Memory(tensor, on_device)
        return tensor

    def access(self, stream: int, reads: set[int], writes: set[int]) -> None:
        """Work on a stream: what the host has queued or waited for before is over for it too."""
        with self._lock:
            mine = self.clock(stream)
            join(mine, self.clock(self.thread))
            count = mine[stream] = mine.get(stream, 0) + 1
            for place in reads | writes:
                known = self.memory.get(place)
                if known is None:
                    continue
                if stream < 0 and known.on_device:
                    self.fault("the legacy default stream is used")
                if known.writer and known.writer[0] != stream and mine.get(known.writer[0], 0) < known.writer[1]:
                    self.fault("memory is used without a path from what writes it")
                if place in writes:
                    if any(mine.get(reader, 0) < seen for reader, seen in known.readers.items() if reader != stream):
                        self.fault("memory is written while it may still be read")
                    known.writer, known.readers = (stream, count), {}
                else:
                    known.readers[stream] = count

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self._local.stream = self.current, stream.number
        try:
            yield
        finally:
            self._local.stream = before

    def watch(self) -> None:
        """Has the calling thread's work be seen, from now on."""
        self._local.mode = Watch(self)
        self._local.mode.__enter__()

    def unwatch(self) -> None:
        self._local.mode.__exit__(None, None, None)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        checker = self

        class Stream:
            def __init__(self, device: Any = None) -> None:
                self.number = 1 + checker._given % POOL
                checker._given += 1
                if any(other.number == self.number for other in checker._alive):
                    checker.fault("a stream of PyTorch's pool is given out twice")
                checker._alive.add(self)

            def wait_event(self, event: Event) -> None:
                join(checker.clock(self.number), event.clock)

            def synchronize(self) -> None:
                join(checker.clock(checker.thread), checker.clock(self.number))

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                self.clock: Clock = {}

            def record(self, stream: Stream) -> None:
                self.clock = dict(checker.clock(stream.number))

            def synchronize(self) -> None:
                join(checker.clock(checker.thread), self.clock)

        class Legacy:
            number = LEGACY

            def wait_event(self, event: Event) -> None:
                checker.fault("the legacy default stream is used")

        class Pool(ThreadPoolExecutor):
            def __init__(self, *args: Any, **more: Any) -> None:
                super().__init__(*args, **more, initializer=checker.watch)

            def submit(self, function: Any, /, *args: Any, **more: Any) -> Any:
                sent, done = dict(checker.clock(checker.thread)), Clock()

                def handed() -> Any:
                    join(checker.clock(checker.thread), sent)
                    try:
                        return function(*args, **more)
                    finally:
                        done.update(checker.clock(checker.thread))

                future = super().submit(handed)
                result = future.result
                future.result = lambda timeout=None: (result(timeout), join(checker.clock(checker.thread), done))[0]
                return future

        patch.setattr(torch.cuda, "Stream", Stream)
        patch.setattr(torch.cuda, "Event", Event)
        patch.setattr(torch.cuda, "stream", checker.stream)
        patch.setattr(torch.cuda, "current_stream", lambda device=None: Legacy())
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
        patch.setattr("bench.worker.tasks.overlap.ThreadPoolExecutor", Pool)
        patch.setattr(cuda, "DEVICE", "cpu")
        patch.setattr(cuda, "pinned", lambda shape: checker.new(torch.zeros(shape), on_device=False))
        checker.watch()


class Watch(TorchDispatchMode):
    """Tells a checker of every operation of a thread: what it reads and writes, and what memory it makes."""

    def __init__(self, checker: Checker) -> None:
        super().__init__()
        self._checker = checker

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        checker, stream = self._checker, self._checker.current
        reads, writes = set[int](), set[int]()
        for argument, value in zip(function._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            for leaf in tree_leaves(value):
                if isinstance(leaf, torch.Tensor):
                    (writes if written else reads).add(leaf.untyped_storage().data_ptr())
        result = function(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        made = {leaf.untyped_storage().data_ptr(): leaf for leaf in leaves}
        is_view = not writes and bool(made.keys() & reads)
        if is_view and stream > 0:
            return result
        if is_view:  # the host takes a part of its memory to read it; of the device's it takes an address
            reads = {place for place in reads if place in checker.memory and not checker.memory[place].on_device}
        elif stream > 0:
            for place, leaf in made.items():
                if place not in checker.memory:
                    checker.new(leaf, on_device=True)
                    writes.add(place)
        checker.access(stream, reads, writes)
        return result
