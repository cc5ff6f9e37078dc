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
        self._open: list[_Span] = []
        self._own_ns: dict[int, float] = {}
        self._seen: dict[int, Any] = {}
        self._bytes: dict[int, int] = {}
        self._samples: list[dict[int, float]] = []
        self._counting = True
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
                self._counting = False  # the first call, which is dropped, has counted the bytes
                if place >= dropped:
                    self._samples.append(self._own_ns)
        return times[dropped:]

    def _enter(self, module: Any, inputs: Any) -> None:
        span = _Span(time.perf_counter_ns())
        self._open.append(span)
        span.started = time.perf_counter_ns()

    def _leave(self, module: Any, inputs: Any, output: Any) -> None:
        ended = time.perf_counter_ns()
        span = self._open.pop()
        key = id(module)
        self._own_ns[key] = self._own_ns.get(key, 0.0) + ended - span.started - span.inside
        if not self._open:
            self._root = module
        if self._counting:
            self._seen[key] = module
            self._bytes[key] = self._bytes.get(key, 0) + _bytes_moved(module, inputs, output)
        if self._open:
            # Up to now, so that most of what the hooks cost is no time of the module around.
            self._open[-1].inside += time.perf_counter_ns() - span.entered

    def nodes(self) -> list[Node]:
        """See ``Profiler.nodes``."""
        names = {id(module): name for name, module in self._root.named_modules()}
        nodes = []
        for key, module in self._seen.items():
            leaf = not list(module.children())
            nodes.append(
                Node(
                    name=names.get(key, ""),
                    op=type(module).__name__,
                    originals=(names.get(key, ""),),
                    bytes_moved=self._bytes[key] if leaf else None,
                    samples_ns=tuple(sample.get(key, 0.0) for sample in self._samples),
                )
            )
        return nodes

    def close(self) -> None:
        self._seen.clear()
        self._root = None


class _Span:
    """A module that has begun and not ended."""

    __slots__ = ("entered", "inside", "started")

    def __init__(self, entered: int) -> None:
        self.entered = entered
        self.started = entered
        self.inside = 0


def _bytes_moved(module: Any, inputs: Any, output: Any) -> int:
    """Weights, inputs and outputs once each, in the types in which they are; an identity moves nothing."""
    from torch import nn

    if isinstance(module, nn.Identity):
        return 0
    weights = [*module.parameters(recurse=False)]
    weights += [buffer for buffer in module.buffers(recurse=False) if buffer.is_floating_point()]
    return sum(tensor.numel() * tensor.element_size() for tensor in (*weights, *_tensors(inputs), *_tensors(output)))


def _tensors(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [tensor for item in value for tensor in _tensors(item)]
    return [value] if hasattr(value, "element_size") else []
