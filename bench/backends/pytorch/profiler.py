"""PyTorch: hooks around every module, in eager mode; on a GPU the kernels that each launches."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from bench.backends.base import Backend, ModelFiles, Unsupported
from bench.backends.profiler import Node, Pixels, timed
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
        if case.option("graph", "no") == "yes":
            raise Unsupported("a captured CUDA graph calls no modules; leave pytorch.graph out")
        self._open: list[Any] = []  # of modules begun and not ended: entered, started, time inside
        self._own_ns: dict[int, float] = {}
        self._seen: dict[int, Any] = {}
        self._samples: list[dict[int, float]] = []
        self._root: Any = None

    def turn(self, pixels: Pixels, dropped: int, calls: int) -> list[int]:
        """See ``Profiler.turn``."""
        from torch.nn.modules import module as hooks

        before = len(self._samples)
        entered = hooks.register_module_forward_pre_hook(self._enter)
        with entered, hooks.register_module_forward_hook(self._leave):
            times = timed(self._backend.infer, pixels, dropped + calls)
        del self._samples[before : before + dropped]
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
            self._samples.append(self._own_ns)
            self._own_ns = {}

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


# What events of modules are called in PyTorch's profile, before the module's id.
_MODULE = "scarlet-bench module "


class KernelProfiler(PyTorchProfiler):
    """The same with the time of the kernels that each module launches, on the device's clock, by PyTorch's profiler."""

    spent = "self_device_time_total"  # of an event, in us

    def turn(self, pixels: Pixels, dropped: int, calls: int) -> list[int]:
        """See ``Profiler.turn``."""
        from torch.profiler import profile

        with profile() as recorded:
            times = super().turn(pixels, dropped, calls)
        self._samples += self._by_module(recorded.events() or ())[dropped:]
        return times

    def _enter(self, module: Any, inputs: Any) -> None:
        from torch.profiler import record_function

        self._open.append(record_function(f"{_MODULE}{id(module)}"))
        self._open[-1].__enter__()

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        self._open.pop().__exit__(None, None, None)
        self._seen.setdefault(id(module), module)
        self._root = module

    def _by_module(self, events: Iterable[Any]) -> list[dict[int, float]]:
        """Of each call the nanoseconds by the innermost module around what launched a kernel."""
        samples: list[dict[int, float]] = []
        # The device's side of a mark bears its name, too.
        on_host = [event for event in events if event.device_type.name == "CPU"]
        for event in sorted(on_host, key=lambda event: event.time_range.start):
            mark = event
            while mark is not None and not mark.name.startswith(_MODULE):
                mark = mark.cpu_parent
            if mark is not None:
                key = int(mark.name.removeprefix(_MODULE))
                if event is mark and key == id(self._root):
                    samples.append({})
                samples[-1][key] = samples[-1].get(key, 0.0) + 1e3 * getattr(event, self.spent)
        return samples


def profiler_of(case: Case, files: ModelFiles, backend: Backend) -> PyTorchProfiler:
    """What measures a Case's modules on its device."""
    return (PyTorchProfiler if case.device == "cpu" else KernelProfiler)(case, files, backend)
