"""ONNX Runtime: the session's own profile, a JSON file of events."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any

from bench.backends.base import Backend, ModelFiles, Unsupported
from bench.backends.graphs import graph_for
from bench.backends.onnxruntime.backend import PROVIDERS, session_options
from bench.backends.profiler import Node, Pixels, node_names, timed
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

        if case.device != "cpu":  # the published builds are linked without CUPTI
            raise Unsupported(
                "ONNX Runtime tells how long the kernels of a GPU take to be launched, not to run; profile pytorch or "
                "tensorrt there, or look at its rows in Nsight Systems"
            )
        self._folder = tempfile.TemporaryDirectory(prefix="scarlet-bench-profile-")
        folder = Path(self._folder.name)
        graph = graph_for(case, files.typed)
        path = _named(Path(graph.path if graph else files.onnx), folder)
        options = session_options(onnxruntime, case.threads, case.option("optimization", "all"))
        options.enable_profiling = True
        options.profile_file_prefix = str(folder / "events")
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=[PROVIDERS[case.device]], enable_fallback=0
        )
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]
        self._kept: list[bool] = []

    def turn(self, pixels: Pixels, dropped: int, calls: int) -> list[int]:
        """See ``Profiler.turn``."""
        self._kept += [False] * dropped + [True] * calls
        return timed(partial(self._session.run, self._outputs), {self._input: pixels}, dropped + calls)[dropped:]

    def nodes(self) -> list[Node]:
        """See ``Profiler.nodes``; BenchError where the profile does not hold all calls."""
        return nodes_of(json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8")), self._kept)

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


def nodes_of(events: Sequence[Event], kept: Sequence[bool]) -> list[Node]:
    """The nodes of a profile, in the order of execution, with their times in the runs that are kept.

    Args:
        kept: of each run, whether it counts.

    Raises:
        BenchError: the profile holds fewer or more runs: ONNX Runtime stops after a million events.
    """
    runs = _runs(events)
    if len(runs) != len(kept):
        raise BenchError(f"ONNX Runtime's profile holds {len(runs)} of {len(kept)} calls", "Give fewer --repeats.")
    chosen = list(compress(runs, kept))
    samples = [{_key(event): float(event["dur"] * _US) for event in run} for run in chosen]
    nodes = []
    for event in chosen[0]:
        name, args = event["name"].removesuffix(_NODE), event["args"]
        # The types of the outputs are all that the profile tells of how a node runs.
        types = ", ".join(sorted({name for shape in args.get("output_type_shape", ()) for name in shape}))
        times = tuple(sample.get(_key(event), 0.0) for sample in samples)
        nodes.append(Node(name, args["op_name"], types, (name,), times))
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
