"""ONNX Runtime's CUDA execution provider: its options, tensors bound on the GPU, and no way back to the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.backends import cuda
from bench.backends.base import Unavailable, Unsupported
from bench.backends.onnxruntime.proof import Node, assigned_nodes
from bench.backends.precision import LAYERS_NAMED
from bench.record.case import Case

if TYPE_CHECKING:
    import torch

PROVIDER = "CUDAExecutionProvider"

# Session settings of the GPU, besides those of bench.backends.onnxruntime.backend.session_options.
# A node without a CUDA kernel ends the session's making, instead of going to the CPU.
NO_CPU = {"session.disable_cpu_ep_fallback": "1"}
# The provider multiplies no integers, so what ONNX Runtime rewrites for those that do only harms: it makes biases
# INT32, which only the CPU restores. Without it weights are restored once, when the session is made.
NO_INTEGERS = {"session.disable_quant_qdq": "1"}
# What ONNX Runtime says of nodes without a CUDA kernel (inference_session.cc): with NO_CPU, and with CUDA graphs.
REFUSALS = ("fallback to CPU EP has been explicitly disabled", "cannot use the graph capture feature")

# Settings of each call. Without the first, a call ends with a synchronisation of its own, inside of what is timed;
# replays of CUDA graphs heed it since May 2026 (microsoft/onnxruntime#28686), and wait all the same before that.
RUN_CONFIG = {"disable_synchronize_execution_providers": "1"}
GRAPH_ID = "gpu_graph_id"

# With PyTorch's own search, the fair counterpart of its cudnn.benchmark; ONNX Runtime's default too.
ALGORITHM_SEARCH = "EXHAUSTIVE"


def provider_options(case: Case, stream_handle: int) -> dict[str, str]:
    """Every option of the provider that decides what runs, also those at their defaults."""
    return {
        "device_id": "0",
        "user_compute_stream": str(stream_handle),
        "use_tf32": "1" if case.precision == "tf32" else "0",
        "prefer_nhwc": "1" if case.option("layout", "nchw") == "nhwc" else "0",
        "cudnn_conv_algo_search": case.option("search", ALGORITHM_SEARCH.lower()).upper(),
        "cudnn_conv_use_max_workspace": "1",
        "enable_cuda_graph": "1" if case.option("graph", "no") == "yes" else "0",
        "do_copy_in_default_stream": "1",
    }


def configure(options: Any, precision: str) -> None:
    """Adds the session settings of the GPU."""
    for key, value in {**NO_CPU, **(NO_INTEGERS if precision == "int8" else {})}.items():
        options.add_session_config_entry(key, value)


def import_cuda_libraries() -> None:
    """Makes CUDA's libraries known to ONNX Runtime, which looks for them when it is imported or first used.

    A CUDA build of PyTorch brings them along; a CPU build harms nothing.
    """
    import torch  # noqa: F401


class CudaSession:
    """A session whose every node runs on the GPU, on a stream of its own, between tensors bound there.

    Args:
        options: settings of the session; changed here.

    Raises:
        Unavailable: the provider does not come up.
        Unsupported: it has no kernel for some node, or the graph does not take and give float32.
    """

    def __init__(self, onnxruntime: Any, graph: str, case: Case, options: Any, classes: int) -> None:
        import torch

        self._onnxruntime, self._case, self._classes = onnxruntime, case, classes
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.provider_options = provider_options(case, stream.cuda_stream)
        configure(options, case.precision)
        self.session = _made(onnxruntime, graph, options, self.provider_options)
        self._input, self._output = self.session.get_inputs()[0], self.session.get_outputs()[0]
        for place in (self._input, self._output):
            if place.type != "tensor(float)":
                raise Unsupported(f"the graph's '{place.name}' is {place.type}, and tensor(float) is needed")
        self._graphs = case.option("graph", "no") == "yes"
        # By batch size the binding, how to run it, and its logits, which must live as long.
        self._bound: dict[int, tuple[Any, Any, torch.Tensor]] = {}
        # Bindings hold addresses, and CUDA graphs must find the same ones again. Smaller batches are filled up: a graph
        # of their own would be captured amid the pipeline's work, whose allocations spoil a capture.
        self.lane = cuda.Lane(self._compute, least=case.batch if self._graphs else 0, stream=stream)

    def _compute(self, pixels: torch.Tensor) -> torch.Tensor:
        n = len(pixels)
        if n not in self._bound:
            self._bound[n] = self._bind(pixels)
        binding, run_options, logits = self._bound[n]
        self.session.run_with_iobinding(binding, run_options)
        return logits

    def _bind(self, pixels: torch.Tensor) -> tuple[Any, Any, torch.Tensor]:
        import torch

        n = len(pixels)
        logits = torch.empty((n, self._classes), dtype=torch.float32, device=cuda.DEVICE)
        binding = self.session.io_binding()
        place = (cuda.DEVICE, torch.cuda.current_device(), np.float32)
        binding.bind_input(self._input.name, *place, tuple(pixels.shape), pixels.data_ptr())
        binding.bind_output(self._output.name, *place, tuple(logits.shape), logits.data_ptr())
        run_options = self._onnxruntime.RunOptions()
        for key, value in run_config(n, self._graphs).items():
            run_options.add_run_config_entry(key, value)
        return binding, run_options, logits

    def proof(self) -> dict[str, Any]:
        """What a proof says of a Case on the GPU, besides what it says of any."""
        told = self.session.get_provider_options().get(PROVIDER, {})
        return {
            "gpu": cuda.gpu_facts(),
            "provider_options": self.provider_options,
            "provider_options_told": {name: told[name] for name in self.provider_options if name in told},
            "tf32": self.provider_options["use_tf32"] == "1",
            "cuda_graph": "yes" if self._graphs else "no",
            "cuda_graph_ids": sorted(self._bound) if self._graphs else [],
            "host_memory": "pinned",
            "stream": "own",
            "l2": cuda.l2_note(self._case),
            "fallback": options_sentence(self.provider_options, told),
        }

    def close(self) -> None:
        """Lets go of the session and of all memory."""
        self._bound.clear()
        self.lane.close()
        self.session = None


def run_config(n: int, graph: bool) -> dict[str, str]:
    """The entries of the run options for batches of n images; each size has a CUDA graph of its own."""
    return {**RUN_CONFIG, GRAPH_ID: str(n)} if graph else dict(RUN_CONFIG)


def options_sentence(asked: Mapping[str, str], told: Mapping[str, str]) -> str:
    """A sentence where the session tells of an option another value than was asked for; else nothing.

    What it does not tell of cannot be compared.
    """
    plain = {"true": "1", "false": "0"}
    other = [
        f"{name} is {told[name]}"
        for name, value in asked.items()
        if name in told and plain.get(told[name].lower(), told[name]) != value
    ]
    return f"the provider did not take its options: {', '.join(other)}" if other else ""


def _made(onnxruntime: Any, graph: str, options: Any, settings: dict[str, str]) -> Any:
    """The session, on the GPU alone."""
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=[(PROVIDER, settings)], enable_fallback=0)
    except Exception as error:  # its errors have no common base
        if not any(words in str(error) for words in REFUSALS):
            raise
        raise _refusal(onnxruntime, graph, settings) from error
    _require_provider(session)
    return session


def _require_provider(session: Any) -> None:
    """Where its libraries do not load, ONNX Runtime goes on without the provider and says so in its log alone."""
    providers = session.get_providers()
    if not providers or providers[0] != PROVIDER:
        raise Unavailable(
            f"onnxruntime-gpu runs on {' and '.join(providers) or 'nothing'} instead of {PROVIDER}: its CUDA libraries "
            "did not load; `scarlet-bench doctor` tells which versions fit together"
        )


def _refusal(onnxruntime: Any, graph: str, settings: dict[str, str]) -> Unsupported:
    """Why no session could be made without the CPU: the nodes that would have gone there, by name.

    Raises:
        Unavailable: the provider did not come up, so that all of them would.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    # No CUDA graph: it allows no node elsewhere, and this session is never run.
    providers = [(PROVIDER, {**settings, "enable_cuda_graph": "0"}), "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
    _require_provider(session)
    elsewhere = nodes_elsewhere(assigned_nodes(session), PROVIDER)
    return Unsupported(f"ONNX Runtime has no CUDA kernel for {named(elsewhere) or 'some nodes of the graph'}")


def nodes_elsewhere(nodes: Sequence[Node], provider: str) -> list[str]:
    """``name (operation on provider)`` of every node that another provider was given."""
    return [
        f"{node.name or 'a nameless one'} ({node.operation} on {node.provider})"
        for node in nodes
        if node.provider != provider
    ]


def named(nodes: Sequence[str]) -> str:
    """Some of them by name, the others by number."""
    more = [f"{len(nodes) - LAYERS_NAMED} more"] if len(nodes) > LAYERS_NAMED else []
    return ", ".join([*nodes[:LAYERS_NAMED], *more])
