"""TensorRT: its own profiler, which reports each layer's time on the device."""

from __future__ import annotations

from bench.backends.base import Backend, ModelFiles, Unsupported
from bench.backends.profiler import Node, Pixels, timed
from bench.backends.tensorrt.backend import TensorRt
from bench.backends.tensorrt.proof import EngineLayer, engine_layers
from bench.record.case import Case


class TensorRtProfiler:
    """A second copy of the Case's engine, which reports its layers: each call of it is waited for."""

    resolution_ns = 1

    def __init__(self, case: Case, files: ModelFiles, backend: Backend) -> None:
        if case.option("graph", "no") == "yes":
            raise Unsupported("a captured CUDA graph reports no layers; leave tensorrt.graph out")
        self._own, self._samples = TensorRt(), list[dict[str, float]]()
        self._own.load(case, files)
        assert self._own.engine is not None
        self._engine = self._own.engine
        self._engine.report_to(self._hear)

    def _hear(self, layer: str, milliseconds: float) -> None:
        self._samples[-1][layer] = self._samples[-1].get(layer, 0.0) + 1e6 * milliseconds

    def _infer(self, pixels: Pixels) -> None:
        self._samples.append({})
        self._own.infer(pixels)

    def turn(self, pixels: Pixels, dropped: int, calls: int) -> list[int]:
        """See ``Profiler.turn``."""
        times = timed(self._infer, pixels, dropped + calls)
        del self._samples[-dropped - calls : -calls]
        return times[dropped:]

    def nodes(self) -> list[Node]:
        """See ``Profiler.nodes``."""
        layers = {layer.name: layer for layer in engine_layers(self._engine.information())}
        nodes = []
        for name in self._samples[0]:
            layer: EngineLayer = layers.get(name) or EngineLayer(name, "", False, "", "", frozenset({name}))
            times = tuple(sample.get(name, 0.0) for sample in self._samples)
            nodes.append(Node(name, layer.kind, layer.tactic, tuple(sorted(layer.nodes)), times))
        return nodes

    def close(self) -> None:
        self._own.close()
