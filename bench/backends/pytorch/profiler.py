"""PyTorch: hooks around every module, in eager mode."""

from __future__ import annotations

import time
from typing import Any

from bench.backends.base import Backend, ModelFiles, Unsupported
from bench.backends.profiler import Node, Pixels
from bench.record.case import Case


class PyTorchProfiler:
    """The backend's own network with hooks on, for the time of a turn.

    A module's time is its own: that of the modules inside of it is taken off. So a container's time is what its
    ``forward`` computes itself (a residual's addition, a gate's multiplication) and the calling of its parts. The hooks
    are PyTorch's global ones, which reach the network through the backend's public ``infer``.
    """

    resolution_ns = 1

    def __init__(self, case: Case, files: ModelFiles, backend: Backend) -> None:
        if case.option("compile"):
            raise Unsupported("a compiled network has no modules to watch; leave pytorch.compile out")
        self._backend = backend
        self._open: list[list[int]] = []  # of modules begun and not ended: entered, started, time inside
        self._own_ns: dict[int, float] = {}
        self._seen: dict[int, Any] = {}
        self._samples: list[dict[int, float]] = []
        self._root: Any = None

    def turn(self, pixels: Pixels, dropped: int, calls: int) -> list[int]:
        """See ``Profiler.turn``."""
        from torch.nn.modules import module as hooks

        times = []
        entered = hooks.register_module_forward_pre_hook(self._enter)
        with entered, hooks.register_module_forward_hook(self._leave):
            for place in range(dropped + calls):
                self._own_ns = {}
                started = time.perf_counter_ns()
                self._backend.infer(pixels)
                times.append(time.perf_counter_ns() - started)
                if place >= dropped:
                    self._samples.append(self._own_ns)
        return times[dropped:]

    def _enter(self, module: Any, inputs: Any) -> None:
        span = [time.perf_counter_ns(), 0, 0]
        self._open.append(span)
        span[1] = time.perf_counter_ns()

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        ended = time.perf_counter_ns()
        entered, started, inside = self._open.pop()
        key = id(module)
        self._own_ns[key] = self._own_ns.get(key, 0.0) + ended - started - inside
        self._seen.setdefault(key, module)
        if self._open:
            # Up to now, so that most of what the hooks cost is no time of the module around.
            self._open[-1][2] += time.perf_counter_ns() - entered
        else:
            self._root = module

    def nodes(self) -> list[Node]:
        """See ``Profiler.nodes``."""
        names = {id(module): name for name, module in self._root.named_modules()}
        return [
            Node(
                names.get(key, ""),
                type(module).__name__,
                originals=(names.get(key, ""),),
                samples_ns=tuple(sample.get(key, 0.0) for sample in self._samples),
            )
            for key, module in self._seen.items()
        ]

    def close(self) -> None:
        self._seen.clear()
        self._root = None
