"""A GPU made of the CPU: the calls of torch.cuda that the backends use, with a log of what came in which order.

Tensors lie on the CPU, work is done at once, and time passes as the test says. A captured graph is a tape of the
operations, which a replay runs again on the same memory.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.backends import cuda


class FakeCuda:
    """What happened, and what the clock says at each event.

    Attributes:
        log: ``record``, ``wait for event``, ``wait for stream``, ``wait for all``, ``capture``, ``replay``, in order.
        event_ms: gives the time of each event that is recorded.
        capability: of the GPU.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.events_made = 0
        self.capability = (9, 0)
        self._ms = 0.0
        self.event_ms: Callable[[], float] = self._tick

    def _tick(self) -> float:
        self._ms += 1.0
        return self._ms

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Puts itself in the place of the real calls."""
        fake = self

        class Stream:
            cuda_stream = 4096

            def synchronize(self) -> None:
                fake.log.append("wait for stream")

            def wait_event(self, event: Event) -> None:
                fake.log.append("after event")

        class Event:
            def __init__(self, enable_timing: bool = False) -> None:
                assert enable_timing, "an event without a time cannot be read"
                fake.events_made += 1
                self.ms: float | None = None

            def record(self, stream: Stream) -> None:
                fake.log.append("record")
                self.ms = fake.event_ms()

            def synchronize(self) -> None:
                fake.log.append("wait for event")

            def elapsed_time(self, end: Event) -> float:
                assert self.ms is not None
                assert end.ms is not None
                return end.ms - self.ms

        class CUDAGraph:
            def __init__(self) -> None:
                self.tape: list[tuple[Any, Any, Any, Any]] = []

            def replay(self) -> None:
                fake.log.append("replay")
                for function, args, kwargs, results in self.tape:
                    again = function(*args, **kwargs)
                    for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                        if isinstance(old, torch.Tensor) and old is not new:
                            old.copy_(new)

        class Tape(TorchDispatchMode):
            def __init__(self, graph: CUDAGraph) -> None:
                super().__init__()
                self._graph = graph

            def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                results = function(*args, **(kwargs or {}))
                self._graph.tape.append((function, args, kwargs or {}, results))
                return results

        @contextmanager
        def graph(captured: CUDAGraph, stream: Stream, capture_error_mode: str) -> Iterator[None]:
            assert capture_error_mode == "thread_local", "what other threads allocate would spoil it"
            fake.log.append("capture")
            with Tape(captured):
                yield

        properties = types.SimpleNamespace(multi_processor_count=132, total_memory=143 * 2**30, L2_cache_size=1000)
        calls: dict[str, Any] = {
            "Stream": Stream,
            "Event": Event,
            "CUDAGraph": CUDAGraph,
            "graph": graph,
            "stream": lambda stream: nullcontext(),
            "current_device": lambda: 0,
            "synchronize": lambda: fake.log.append("wait for all"),
            "init": lambda: None,
            "get_arch_list": lambda: ["sm_75", "sm_90"],
            "get_device_capability": lambda: fake.capability,
            "get_device_name": lambda: "Fake GPU",
            "get_device_properties": lambda device: properties,
        }
        for name, call in calls.items():
            assert hasattr(torch.cuda, name)
            patch.setattr(torch.cuda, name, call)
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: fake.log.append("kept for stream"))
        patch.setattr(torch.version, "cuda", "13.0")
        patch.setattr(cuda, "DEVICE", "cpu")
        patch.setattr(cuda, "pinned", torch.zeros)


def faked(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A GPU made of the CPU for a fixture; afterwards the process's settings are as they were."""
    fake = FakeCuda()
    before = (torch.backends.cudnn.benchmark, torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    with monkeypatch.context() as patch:
        fake.install(patch)
        yield fake
    torch.backends.cudnn.benchmark = before[0]
    torch.backends.cuda.matmul.allow_tf32 = before[1]
    torch.backends.cudnn.allow_tf32 = before[2]
