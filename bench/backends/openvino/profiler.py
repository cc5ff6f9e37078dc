"""OpenVINO: the CPU plugin's performance counters, and the execution graph that says what they belong to."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from bench.backends.base import Backend, ModelFiles
from bench.backends.graphs import graph_for
from bench.backends.openvino.backend import core, import_openvino, settings
from bench.backends.openvino.proof import executed
from bench.backends.profiler import Node, Pixels
from bench.record.case import Case

_US = 1000
_ENDS = ("Input", "Output")


class OpenVinoProfiler:
    """The Case's graph, compiled anew for each turn with its counters on.

    A counter of the CPU plugin is the mean of all calls since the graph was compiled, in whole microseconds
    (its ``PerfCount::avg``), and nothing resets it. A call's own time is the difference of two of them, each times its
    number of calls, so that its error grows with these: some microseconds after eight calls, too many after a
    hundred. That is why each turn begins with a new graph. The median over many calls is finer than one of them.
    """

    resolution_ns = _US

    def __init__(self, case: Case, files: ModelFiles, backend: Backend) -> None:
        openvino = import_openvino()
        self._tensor = openvino.Tensor
        self._core = core()
        graph = graph_for(case, files.typed)
        self._model = self._core.read_model(graph.path if graph else files.onnx)
        if files.fixed_batch is None:
            self._model.reshape({0: [case.batch, 3, files.input_size, files.input_size]})
        self._settings = {**settings(case), "PERF_COUNT": True}
        self._compiled: Any = None
        self._samples: list[dict[str, float]] = []

    def turn(self, pixels: Pixels, dropped: int, calls: int) -> list[int]:
        """See ``Profiler.turn``."""
        self._compiled = None  # the one before goes first: two would need twice the memory
        self._compiled = self._core.compile_model(self._model, "CPU", self._settings)
        request = self._compiled.create_infer_request()
        for _ in range(dropped):
            self._infer(request, pixels)
        before, times = _counters(request), []
        for place in range(dropped, dropped + calls):
            started = time.perf_counter_ns()
            self._infer(request, pixels)
            times.append(time.perf_counter_ns() - started)
            after = _counters(request)
            self._samples.append(last_call(before, after, place + 1))
            before = after
        return times

    def _infer(self, request: Any, pixels: Pixels) -> None:
        """As the backend does it, the copy of the logits included."""
        request.set_input_tensor(self._tensor(pixels, shared_memory=pixels.flags.writeable))
        request.infer(share_outputs=True)
        request.get_output_tensor(0).data.copy()

    def nodes(self) -> list[Node]:
        """See ``Profiler.nodes``."""
        return nodes_of(describe(self._compiled.get_runtime_model()), self._samples)

    def close(self) -> None:
        self._compiled = self._model = None


def _counters(request: Any) -> dict[str, float]:
    """Each node's mean time since the graph was compiled, in ns; 0 where it is under a microsecond or not run."""
    return {info.node_name: info.real_time.total_seconds() * 1e9 for info in request.profiling_info}


def last_call(before: Mapping[str, float], after: Mapping[str, float], calls: int) -> dict[str, float]:
    """Times in ns of the last call by node, from the means over all calls but it and over all ``calls``.

    Single ones may be off by ``calls`` microseconds, and even negative: the means come in whole microseconds.
    """
    return {name: mean * calls - before.get(name, 0.0) * (calls - 1) for name, mean in after.items()}


def describe(runtime_model: Any) -> list[dict[str, Any]]:
    """The execution graph in plain types, in its order; constants are left out."""
    return [
        {
            "name": str(node.get_friendly_name()),
            "op": facts["layerType"],
            "kernel": facts["primitiveType"],
            "originals": tuple(name for name in facts["originalLayersNames"].split(",") if name),
        }
        for node, facts in executed(runtime_model)
    ]


def nodes_of(described: Sequence[Mapping[str, Any]], samples: Sequence[Mapping[str, float]]) -> list[Node]:
    """The nodes with their times.

    Whether a node is too fast for the clock or was optimised away, the counters do not tell: those without any time are
    kept where they stand for something of the model's, which else would seem to be fused into another node.

    Args:
        samples: of each call, times in ns by name.
    """
    counted = {name for sample in samples for name in sample}
    ran = {name for sample in samples for name, took in sample.items() if took}
    kept = [
        facts
        for facts in described
        if facts["name"] in ran or (facts["name"] in counted and facts["originals"] and facts["op"] not in _ENDS)
    ]
    unknown = sorted(ran - {facts["name"] for facts in kept})
    kept += [{"name": name, "op": "not in the execution graph"} for name in unknown]
    return [Node(**facts, samples_ns=tuple(sample.get(facts["name"], 0.0) for sample in samples)) for facts in kept]
