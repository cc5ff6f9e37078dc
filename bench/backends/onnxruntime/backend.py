"""ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.backends import cuda
from bench.backends.base import Facts, ModelFiles, Unavailable, Unsupported, read_options, refuse_case
from bench.backends.graphs import TypedGraph, graph_for, graph_proof
from bench.backends.onnxruntime import cuda as onnxruntime_cuda
from bench.backends.onnxruntime.proof import (
    ASSIGNMENT_SINCE,
    Node,
    assigned_nodes,
    final_layers,
    profiled_nodes,
    tells_assignment,
)
from bench.backends.precision import precision_proof
from bench.record.case import Case

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": onnxruntime_cuda.PROVIDER}
# What runs on the FP32 graph.
FP32_GRAPH = {"cpu": ("fp32",), "cuda": ("fp32", "tf32")}
# Options that say something about the GPU.
GPU_OPTIONS = ("graph", "layout", "search")


@dataclass(frozen=True)
class Options:
    """Options of ONNX Runtime.

    Attributes:
        optimization: ``none`` runs the graph as it is in the file, node by node (operators without a kernel are written
            out): what the export alone changed shows there, without fusions.
        dialect: of the graph of an INT8 Case; see ``bench.backends.graphs``.
        recipe: a file that says how that graph is made.
        graph: on a GPU, ``yes`` replays a CUDA graph, one for each batch size.
        layout: on a GPU, ``nhwc`` prefers kernels that take channels last.
        search: on a GPU, how cuDNN's algorithms are chosen; ``exhaustive`` tries all in the warm-up.
    """

    optimization: Literal["all", "none"] = "all"
    dialect: Literal["ort", "symmetric"] | None = None
    recipe: str | None = None
    graph: Literal["no", "yes"] = "no"
    layout: Literal["nchw", "nhwc"] = "nchw"
    search: Literal["exhaustive", "heuristic", "default"] = "exhaustive"


class OnnxRuntime(cuda.OnLane):
    """ONNX Runtime with exactly one execution provider, so that nothing can run elsewhere unseen.

    On a GPU, tensors are bound there, on a stream of its own, and TF32 is on in precision ``tf32`` alone.
    """

    FACTS: ClassVar[Facts] = Facts(
        name="onnxruntime",
        display_name="ONNX Runtime",
        colour="#0072B2",
        module="onnxruntime",
        packages={"cpu": "onnxruntime", "cuda": "onnxruntime-gpu"},
        dialects={"fp16": ("",), "int8": ("ort", "symmetric")},
        options=Options,
        default="always",
        profiler="bench.backends.onnxruntime.profiler:OnnxRuntimeProfiler",
    )

    def __init__(self) -> None:
        self._session: Any = None
        self._cuda: onnxruntime_cuda.CudaSession | None = None
        self._device = "cpu"
        self._graph: TypedGraph | None = None

    def load(self, case: Case, files: ModelFiles) -> None:
        chosen = read_options(Options, case)
        refuse_case(self.FACTS, case, files)
        if case.device == "cuda":
            onnxruntime_cuda.import_cuda_libraries()
        onnxruntime = self.FACTS.import_runtime(case.device)
        _refuse_precision(case, chosen)
        self._graph = graph_for(case, files.typed)
        provider = PROVIDERS[case.device]
        if provider not in onnxruntime.get_available_providers():
            raise Unavailable(
                f"this ONNX Runtime has no {provider}; on a machine with an NVIDIA GPU run `make clean setup`, "
                "which installs onnxruntime-gpu"
            )
        if case.device == "cuda":
            if not tells_assignment(onnxruntime):
                raise Unavailable(
                    f"onnxruntime-gpu {onnxruntime.__version__} does not say which nodes run on the GPU; install "
                    f"{ASSIGNMENT_SINCE} or newer, which needs Python 3.11"
                )
            cuda.require_cuda(case)
        self._optimization = chosen.optimization
        options = session_options(onnxruntime, case.threads, self._optimization)
        path = self._graph.path if self._graph else files.onnx
        self._path, self._shape = path, (case.batch, 3, files.input_size, files.input_size)
        self._device, self._threads, self._precision = case.device, case.threads, case.precision
        if case.device == "cuda":
            self._cuda = onnxruntime_cuda.CudaSession(onnxruntime, path, case, options, files.classes)
            self._session, self._lane = self._cuda.session, self._cuda.lane
            # Algorithms are chosen and graphs captured here, not in a sample.
            self.infer(np.zeros(self._shape, np.float32))
            return
        self._session = onnxruntime.InferenceSession(path, options, providers=[provider], enable_fallback=0)
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._lane is not None:
            return self._lane.infer(pixels)
        logits: NDArray[np.float32] = self._session.run(self._outputs, {self._input: pixels})[0]
        return logits

    def proof(self) -> dict[str, Any]:
        import onnxruntime

        nodes, untold = self._nodes(onnxruntime)
        operations: dict[str, Counter[str]] = {}
        for node in nodes:
            operations.setdefault(node.provider, Counter())[node.operation] += 1
        wanted = PROVIDERS[self._device]
        elsewhere = onnxruntime_cuda.nodes_elsewhere(nodes, wanted)
        precision = self._precision_proof()
        of_device = self._cuda.proof() if self._cuda is not None else {}
        sentences = [f"not on {wanted} ran {onnxruntime_cuda.named(elsewhere)}"] if elsewhere else []
        sentences += [part["fallback"] for part in (precision, of_device) if part.get("fallback")]
        return {
            "version": onnxruntime.__version__,
            "providers": self._session.get_providers(),
            "nodes_per_provider": {name: dict(sorted(counts.items())) for name, counts in sorted(operations.items())},
            **({"nodes_untold": untold} if untold else {}),
            "session": {"providers": [wanted], **session_settings(self._threads, self._optimization)},
            "intra_op_threads": self._threads,
            "inter_op_threads": 1,
            "graph_optimization": self._optimization,
            **graph_proof(self._graph),
            **of_device,
            **precision,
            "fallback": " and ".join(sentences),
        }

    def _nodes(self, onnxruntime: Any) -> tuple[list[Node], str]:
        """The nodes with their providers, and what this version could not tell of them."""
        if tells_assignment(onnxruntime):
            return assigned_nodes(self._session), ""
        options = session_options(onnxruntime, self._threads, self._optimization)
        providers = self._session.get_providers()
        nodes = profiled_nodes(onnxruntime, self._path, options, providers, self._shape)
        return nodes, (
            f"ONNX Runtime {onnxruntime.__version__} does not say which provider each node of the timed session was "
            f"given ({ASSIGNMENT_SINCE} and newer do, with Python 3.11); the nodes are those that ran in one profiled "
            "pass of a second session with the same settings and providers"
        )

    def _precision_proof(self) -> dict[str, Any]:
        """What each layer of a graph of lower precision computes in; nothing for the FP32 graph."""
        if self._graph is None:
            return {}
        import onnxruntime

        from export.precision.audit import requested_by_onnx

        provider: Any = PROVIDERS[self._device]
        if self._cuda is not None:
            # A second session: no CUDA graph, and its own stream.
            settings = dict(self._cuda.provider_options) | {"enable_cuda_graph": "0"}
            del settings["user_compute_stream"]
            provider = (provider, settings)
        options = session_options(onnxruntime, self._threads, self._optimization)
        if self._cuda is not None:
            onnxruntime_cuda.configure(options, self._precision)
        try:
            ran = final_layers(onnxruntime, self._graph.path, options, [provider])
        except Exception as error:
            if self._cuda is None:
                raise
            # Not every provider lets its graph be written out; what was timed is not lost for that.
            return {"fallback": f"what its layers computed in could not be read ({error})"}
        return precision_proof(requested_by_onnx(Path(self._graph.path)), ran)

    def close(self) -> None:
        if self._cuda is not None:
            self._cuda.close()
        self._session = self._cuda = self._lane = None


def _refuse_precision(case: Case, options: Options) -> None:
    """Raises ``Unsupported`` for what no graph of this device gives, and for the GPU's options elsewhere."""
    if case.device == "cpu":
        asked = [name for name in GPU_OPTIONS if getattr(options, name) != getattr(Options, name)]
        if asked:
            raise Unsupported(f"onnxruntime.{asked[0]} is about GPUs; leave it out on the CPU")
    if case.device == "cuda" and case.precision == "bf16":
        raise Unsupported(
            "ONNX Runtime has no BF16 kernels for pooling, neither in its CUDA provider nor in its CPU's; use fp16, or "
            "PyTorch or TensorRT for bf16"
        )
    if case.precision not in ("fp16", "int8", *FP32_GRAPH[case.device]):
        raise Unsupported(f"ONNX Runtime runs no {case.precision} graph on the {case.device}")


def session_settings(threads: int, optimization: str = "all") -> dict[str, Any]:
    """The session settings of every row, by their names: explicit threads, and no spinning between turns.

    ``optimization`` is ``all`` or ``none``: all of the rewritings of the graph, or none.

    ``force_spinning_stop`` lets the pool's threads spin while a call runs (as by default, it is faster) but sends
    them to sleep when the call returns, so that a waiting worker leaves the cores to the one whose turn it is.
    """
    return {
        "intra_op_num_threads": threads,
        "inter_op_num_threads": 1,
        "execution_mode": "ORT_SEQUENTIAL",
        "graph_optimization_level": {"all": "ORT_ENABLE_ALL", "none": "ORT_DISABLE_ALL"}[optimization],
        "session.force_spinning_stop": "1",
    }


def session_options(onnxruntime: Any, threads: int, optimization: str = "all") -> Any:
    """``session_settings`` as ONNX Runtime takes them."""
    options, enums = onnxruntime.SessionOptions(), ("ExecutionMode", "GraphOptimizationLevel")
    known = {name: value for enum in enums for name, value in getattr(onnxruntime, enum).__members__.items()}
    for name, value in session_settings(threads, optimization).items():
        if "." in name:
            options.add_session_config_entry(name, value)
        else:
            setattr(options, name, known.get(value, value))
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options
