"""ONNX Runtime: the session's own profile, a JSON file of events."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

from bench.backends.base import Backend, ModelFiles
from bench.backends.graphs import graph_for
from bench.backends.onnxruntime.backend import PROVIDERS, session_options
from bench.backends.profiler import Node, Pixels, node_names
from bench.record.case import Case
from scarlet.errors import BenchError

Event = Mapping[str, Any]

_NODE = "_kernel_time"  # how the names of a node's events end; others are of fences and of the session
_RUN = "model_run"
_US = 1000


class OnnxRuntimeProfiler:
    """A session with the settings of the Case's row, and profiling on. A node's times are in whole microseconds."""

    resolution_ns = _US

    def __init__(self, case: Case, files: ModelFiles, backend: Backend) -> None:
        import onnxruntime

        self._folder = tempfile.TemporaryDirectory(prefix="scarlet-bench-profile-")
        folder = Path(self._folder.name)
        graph = graph_for(case, files.typed)
        path = _named(Path(graph.path if graph else files.onnx), folder)
        options = session_options(onnxruntime, case.threads, case.option("optimization", "all"))
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "events")
        # The only place that tells which values the optimised nodes read and write.
        self._optimised = folder / "optimised.onnx"
        options.optimized_model_filepath = str(self._optimised)
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=[PROVIDERS[case.device]], enable_fallback=0
        )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]
        self._kept: list[bool] = []

    def turn(self, pixels: Pixels, dropped: int, calls: int) -> list[int]:
        """See ``Profiler.turn``."""
        times = []
        for place in range(dropped + calls):
            started = time.perf_counter_ns()
            self._session.run(self._outputs, {self._input: pixels})
            times.append(time.perf_counter_ns() - started)
            self._kept.append(place >= dropped)
        return times[dropped:]

    def nodes(self) -> list[Node]:
        """See ``Profiler.nodes``; BenchError where the profile does not hold all calls."""
        import onnx

        events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        graph = onnx.load(str(self._optimised), load_external_data=False).graph
        return nodes_of(events, list(graph.node), _constants(graph), self._kept)

    def close(self) -> None:
        self._session = None
        self._folder.cleanup()


def _named(path: Path, folder: Path) -> Path:
    """The graph, or a copy of it in which each node has a name of its own: by these the profile knows them."""
    import onnx

    model = onnx.load(str(path))
    nodes = model.graph.node
    names = node_names(nodes)
    if names == [node.name for node in nodes]:
        return path
    for node, name in zip(nodes, names, strict=True):
        node.name = name
    copy = folder / "named.onnx"
    onnx.save(model, str(copy))
    return copy


def nodes_of(
    events: Sequence[Event], graph: Sequence[Any], constants: Mapping[str, int], kept: Sequence[bool]
) -> list[Node]:
    """The nodes of a profile, with their times in the runs that are kept.

    Args:
        graph: nodes of the optimised graph (``name``, ``op_type``, ``input``, ``output``). Their order is that of
            execution, which is checked; it alone tells nodes apart that the runtime made and left without a name.
        constants: bytes of the graph's constants, by name.
        kept: of each run, whether it counts.

    Raises:
        BenchError: the profile holds fewer or more runs: ONNX Runtime stops after a million events.
    """
    runs = _runs(events)
    if len(runs) != len(kept):
        raise BenchError(f"ONNX Runtime's profile holds {len(runs)} of {len(kept)} calls", "Give fewer --repeats.")
    chosen = [run for run, keep in zip(runs, kept, strict=True) if keep]
    wiring = _wiring(chosen[0], graph)
    samples = [{_key(event): float(event["dur"] * _US) for event in run} for run in chosen]
    nodes = []
    for event in chosen[0]:
        inputs, outputs = wiring.get(_key(event), ((), ()))
        name = event["name"].removesuffix(_NODE)
        nodes.append(
            Node(
                name=name,
                op=event["args"]["op_name"],
                kernel=_types(event["args"]),
                originals=(name,),
                inputs=inputs,
                outputs=outputs,
                bytes_moved=_bytes_moved(event["args"], inputs, constants),
                samples_ns=tuple(sample.get(_key(event), 0.0) for sample in samples),
            )
        )
    return nodes


def _runs(events: Sequence[Event]) -> list[list[Event]]:
    """Events of nodes, run by run: the event of a run is written when it ends, behind those of its nodes."""
    runs: list[list[Event]] = []
    current: list[Event] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_NODE):
            current.append(event)
        elif event["name"] == _RUN:
            runs.append(current)
            current = []
    return runs


def _key(event: Event) -> tuple[str, str]:
    return event["name"], event["args"].get("node_index", "")


def _wiring(
    run: Sequence[Event], graph: Sequence[Any]
) -> dict[tuple[str, str], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Inputs and outputs of each event's node; of none where events and graph do not go together."""
    together = len(run) == len(graph) and all(
        event["args"]["op_name"] == node.op_type and node.name in ("", event["name"].removesuffix(_NODE))
        for event, node in zip(run, graph, strict=True)
    )
    if not together:
        return {}
    return {_key(event): (tuple(node.input), tuple(node.output)) for event, node in zip(run, graph, strict=True)}


def _types(args: Mapping[str, Any]) -> str:
    """The types of the outputs, which is all that the profile tells of how a node runs."""
    return ", ".join(sorted({name for shape in args.get("output_type_shape", ()) for name in shape}))


def _bytes_moved(args: Mapping[str, Any], inputs: Sequence[str], constants: Mapping[str, int]) -> int | None:
    """Activations as the profile counts them, and constants as the graph has them.

    The profile leaves out the weights that the runtime packed for itself beforehand, which are most of them.
    """
    try:
        activations = int(args["activation_size"]) + int(args["output_size"])
        weights = sum(constants.get(name, 0) for name in inputs) if inputs else int(args["parameter_size"])
    except (KeyError, ValueError):
        return None
    return activations + weights


def _constants(graph: Any) -> dict[str, int]:
    """Bytes of each constant of an ONNX graph."""
    from onnx.helper import tensor_dtype_to_np_dtype

    return {
        tensor.name: prod(tensor.dims) * tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in graph.initializer
    }
