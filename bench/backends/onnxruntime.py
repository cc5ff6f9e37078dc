"""ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Choices, ModelFiles, Unavailable, Unsupported, refuse_bad_options
from bench.backends.onnxruntime_proof import final_layers
from bench.backends.precision_proof import precision_proof
from bench.case import Case
from bench.typed import TypedGraph, graph_for, graph_proof

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
PACKAGES = {"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"}


class OnnxRuntime:
    """ONNX Runtime with exactly one execution provider, so that nothing can run elsewhere unseen.

    Options ``dialect`` and ``recipe`` choose the graph of an INT8 Case (``bench.typed``).

    Option ``optimization``: ``all`` (default), or ``none``, which runs the graph as it is in the file, node by node
    (operators without a kernel are written out): what the export alone changed shows there, without fusions.
    """

    name: ClassVar[str] = "onnxruntime"
    OPTIONS: ClassVar[Mapping[str, Choices]] = {
        "optimization": ("all", "none"),
        "dialect": ("ort", "symmetric"),
        "recipe": "text",
    }

    def __init__(self) -> None:
        self._session: Any = None
        self._device = "cpu"
        self._graph: TypedGraph | None = None

    def load(self, case: Case, files: ModelFiles) -> None:
        refuse_bad_options(self, case)
        try:
            import onnxruntime
        except ImportError as missing:
            package = PACKAGES[case.device]
            raise Unavailable(
                f"the package {package} is not installed; run: pip install {package}"
            ) from missing
        self._graph = graph_for(case, files.typed)
        if self._graph is None and case.precision != "fp32":
            raise Unsupported(f"ONNX Runtime runs no {case.precision} graph on the {case.device}")
        provider = PROVIDERS[case.device]
        if provider not in onnxruntime.get_available_providers():
            raise Unavailable(
                f"this ONNX Runtime has no {provider}; on a machine with an NVIDIA GPU run `make clean setup`, "
                "which installs onnxruntime-gpu"
            )
        if case.device == "cuda":
            raise Unavailable("CUDA rows are not built yet for ONNX Runtime; use --devices cpu")
        if files.fixed_batch not in (None, case.batch):
            raise Unsupported(f"the graph takes batches of {files.fixed_batch} only")
        self._optimization = case.option("optimization", "all")
        options = session_options(onnxruntime, case.threads, self._optimization)
        self._session = onnxruntime.InferenceSession(
            self._graph.path if self._graph else files.onnx, options, providers=[provider], enable_fallback=0
        )
        self._device = case.device
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]
        self._threads = case.threads

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        logits: NDArray[np.float32] = self._session.run(self._outputs, {self._input: pixels})[0]
        return logits

    def proof(self) -> dict[str, Any]:
        import onnxruntime

        nodes: dict[str, Counter[str]] = {}
        for subgraph in self._session.get_provider_graph_assignment_info():
            counts = nodes.setdefault(subgraph.ep_name, Counter())
            counts.update(node.op_type for node in subgraph.get_nodes())
        wanted = PROVIDERS[self._device]
        elsewhere = {name: sum(counts.values()) for name, counts in nodes.items() if name != wanted}
        precision = self._precision_proof()
        sentences = [f"nodes ran on {elsewhere} instead of {wanted}"] if elsewhere else []
        sentences += [precision["fallback"]] if precision.get("fallback") else []
        return {
            "version": onnxruntime.__version__,
            "providers": self._session.get_providers(),
            "nodes_per_provider": {
                name: dict(sorted(counts.items())) for name, counts in sorted(nodes.items())
            },
            "intra_op_threads": self._threads,
            "inter_op_threads": 1,
            "graph_optimization": self._optimization,
            **graph_proof(self._graph),
            **precision,
            "fallback": " and ".join(sentences),
        }

    def _precision_proof(self) -> dict[str, Any]:
        """What each layer of a graph of lower precision computes in; nothing for the FP32 graph."""
        if self._graph is None:
            return {}
        import onnxruntime

        from export.asked import asked_of_onnx

        ran = final_layers(
            onnxruntime,
            self._graph.path,
            session_options(onnxruntime, self._threads, self._optimization),
            [PROVIDERS[self._device]],
        )
        return precision_proof(asked_of_onnx(Path(self._graph.path)), ran)

    def close(self) -> None:
        self._session = None


def session_options(onnxruntime: Any, threads: int, optimization: str = "all") -> Any:
    """The session settings of every CPU row: explicit threads, and no spinning between turns.

    ``optimization`` is ``all`` or ``none``: all of the rewritings of the graph, or none.

    ``force_spinning_stop`` lets the pool's threads spin while a call runs (as by default, it is faster) but sends
    them to sleep when the call returns, so that a waiting worker leaves the cores to the one whose turn it is.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    level = {"all": "ORT_ENABLE_ALL", "none": "ORT_DISABLE_ALL"}[optimization]
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options
