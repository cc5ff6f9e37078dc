"""PyTorch: eager, or compiled by Inductor."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bench.backends import cuda
from bench.backends.base import Facts, ModelFiles, Unavailable, Unsupported, read_options
from bench.backends.pytorch import cuda as pytorch_cuda
from bench.record.case import Case

if TYPE_CHECKING:
    import torch
    from torch import nn

# What a layer's result is of in each precision. TF32 is float32 in memory; its switches are proved apart.
RESULT_TYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}

_NO_INT8 = "PyTorch's eager network is not quantised; int8 rows need a quantised graph and another backend"
REFUSED_PRECISIONS: Mapping[str, Mapping[str, str]] = {
    "cpu": {
        "tf32": "TF32 is a number format of NVIDIA's GPUs",
        "fp16": "in PyTorch fp16 is for GPUs; the 16-bit format of its CPU kernels is bf16",
        "int8": _NO_INT8,
    },
    "cuda": {"int8": _NO_INT8},
}


@dataclass(frozen=True)
class Options:
    """Options of PyTorch.

    Attributes:
        form: ``plain`` runs the network as it was published, NCHW and with its BatchNorms. ``channels_last`` stores
            tensors channels last; ``folded`` folds BatchNorm into the convolutions; ``tuned`` does both, as somebody
            who cares about speed would.
        compile: compiles with Inductor and frozen weights; without it, eager. It is compiled for the Case's batch, in
            ``load``; smaller batches are filled up to it. Never from Inductor's cache, so that the proof's
            ``compile_seconds`` are those of a first time.
        bf16: what precision ``bf16`` means. ``cast`` stores weights in BF16 and computes all in it; ``autocast`` keeps
            float32 weights and casts them for each layer that autocast lists, which costs time.
        graph: ``yes`` replays a CUDA graph of the Case's batch instead of queueing every kernel; smaller batches are
            filled up to it. On GPUs only.
    """

    form: Literal["tuned", "plain", "channels_last", "folded"] = "tuned"
    compile: Literal["default", "max-autotune"] | None = None
    bf16: Literal["cast", "autocast"] = "cast"
    graph: Literal["no", "yes"] = "no"


class PyTorch(cuda.OnLane):
    """The reference runtime.

    On a GPU it has a stream of its own and pinned host memory, and TF32 is on in precision ``tf32`` alone.
    """

    FACTS: ClassVar[Facts] = Facts(
        name="pytorch",
        display_name="PyTorch",
        colour="#D55E00",
        module="torch",
        packages={"cpu": "torch", "cuda": "torch"},
        graph="module",
        options=Options,
        default="always",
        profiler="bench.backends.pytorch.profiler:profiler_of",
    )

    def __init__(self) -> None:
        self._module: nn.Module | None = None
        self._cuda: pytorch_cuda.CudaNetwork | None = None
        self._proof: dict[str, Any] = {}

    def load(self, case: Case, files: ModelFiles) -> None:
        options = read_options(Options, case)
        on_gpu = case.device == "cuda"
        if on_gpu:
            cuda.require_cuda(case)
        if case.precision in REFUSED_PRECISIONS[case.device]:
            raise Unsupported(REFUSED_PRECISIONS[case.device][case.precision])
        if options.graph == "yes" and not on_gpu:
            raise Unsupported("pytorch.graph replays CUDA graphs, which a CPU has not; leave it out there")
        if options.compile:
            pytorch_cuda.require_triton() if on_gpu else require_compiler()
        import torch

        torch.set_num_threads(case.threads)
        if torch.get_num_interop_threads() != 1:
            torch.set_num_interop_threads(1)
        if on_gpu:
            pytorch_cuda.set_up(case)
        self._case, self._size = case, files.input_size
        self._device = cuda.DEVICE if on_gpu else "cpu"
        # Autocast takes float32; all else gets its pixels in the type of the weights.
        self._autocasts = case.precision == "bf16" and options.bf16 == "autocast"
        types = {"fp16": torch.float16, "bf16": torch.float32 if self._autocasts else torch.bfloat16}
        self._dtype = types.get(case.precision, torch.float32)
        module, self._proof = _shaped(files.network(), options.form)
        channels_last = options.form in ("tuned", "channels_last")
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._module = module.to(  # type: ignore[call-overload]
            device=self._device, dtype=self._dtype, memory_format=self._layout
        )
        self._call: Any = self._module
        self._compiled_batch = 0
        if options.compile:
            inductor: dict[str, Any] = {"freezing": True, "max_autotune": options.compile == "max-autotune"}
            self._call = torch.compile(self._module, dynamic=False, options=inductor)
            self._compiled_batch = case.batch
        if on_gpu:
            self._cuda = pytorch_cuda.CudaNetwork(
                self._call,
                self._dtype,
                self._layout,
                torch.bfloat16 if self._autocasts else None,
                options.graph == "yes",
                # Smaller batches are filled up: a graph of their own would be captured amid the pipeline's work.
                case.batch if options.graph == "yes" else self._compiled_batch,
            )
            self._lane = self._cuda.lane
        if options.compile:
            self._compile(options.compile)
        elif on_gpu:
            self.infer(self._blank(case.batch))  # algorithms are chosen and graphs captured here, not in a sample

    def _compile(self, mode: str) -> None:
        """Has the compiler do its work, which it does in the first call."""
        from torch._dynamo.utils import counters

        counters.clear()
        blank = self._blank(self._case.batch)
        started = time.perf_counter()
        with _empty_cache():
            self.infer(blank)
        self._proof |= {
            "compile": mode,
            "compile_seconds": time.perf_counter() - started,
            "compiled_graphs": int(counters["stats"]["unique_graphs"]),
            "graph_breaks": sum(counters["graph_break"].values()),
        }

    def _blank(self, n: int) -> NDArray[np.float32]:
        return np.zeros((n, 3, self._size, self._size), np.float32)

    def network(self, case: Case, files: ModelFiles) -> nn.Module:
        """See ``RunsModule``."""
        return _shaped(files.network(), read_options(Options, case).form)[0]

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._lane is not None:
            return self._lane.infer(pixels)
        n = len(pixels)
        if n < self._compiled_batch:
            filling = np.zeros((self._compiled_batch - n, *pixels.shape[1:]), pixels.dtype)
            pixels = np.concatenate([pixels, filling])
        return self._infer(self._call, pixels)[:n]

    def _infer(self, call: Any, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode(), self._autocast():
            images = torch.from_numpy(pixels).to(dtype=self._dtype, memory_format=self._layout)
            logits: NDArray[np.float32] = call(images).float().numpy()
        return logits

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast("cpu", dtype=torch.bfloat16) if self._autocasts else nullcontext()

    def proof(self) -> dict[str, Any]:
        import torch

        assert self._module is not None
        parameters = dict(self._module.named_parameters())
        layers = layer_precisions(self._module, self._eager_pass)
        counts = Counter(f"{kind} {dtype}" for kind, dtype in layers.values())
        of_device = self._proof_of_device()
        sentences = (
            self._not_compiled(),
            other_precision(self._case.precision, layers),
            other_device(self._device, parameters),
            of_device.pop("fallback", ""),
        )
        return {
            **self._proof,
            **self._compiled_later(),
            "version": torch.__version__,
            "devices": sorted({str(parameter.device) for parameter in parameters.values()}),
            "dtypes": sorted({plain_name(parameter.dtype) for parameter in parameters.values()}),
            "layout": plain_name(self._layout),
            "intra_op_threads": torch.get_num_threads(),
            **of_device,
            "layer_counts": dict(sorted(counts.items())),
            "fallback": " and ".join(filter(None, sentences)),
        }

    def _proof_of_device(self) -> dict[str, Any]:
        import torch

        if self._cuda is not None:
            return {"autocast": self._autocasts, **pytorch_cuda.device_proof(self._case, self._cuda)}
        with self._autocast():
            autocast = torch.is_autocast_enabled("cpu")
        return {
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "onednn": bool(torch.backends.mkldnn.enabled),
            "autocast": autocast,
        }

    def _eager_pass(self) -> None:
        """One pass through the network itself, which hooks can watch."""
        assert self._module is not None
        if self._cuda is not None:
            self._cuda.eager(self._module, self._blank(1))
        else:
            self._infer(self._module, self._blank(1))

    def _compiled_later(self) -> dict[str, int]:
        """How many graphs were compiled after ``load``, where there should be none: they cost time when they came."""
        if not self._compiled_batch:
            return {}
        from torch._dynamo.utils import counters

        return {"graphs_compiled_later": int(counters["stats"]["unique_graphs"]) - self._proof["compiled_graphs"]}

    def _not_compiled(self) -> str:
        if self._compiled_batch and not self._proof["compiled_graphs"]:
            return "torch.compile found nothing to compile"
        return ""

    def close(self) -> None:
        if self._cuda is not None:
            self._cuda.close()
        self._module = self._call = self._cuda = self._lane = None


def _shaped(network: nn.Module, form: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network with its BatchNorms folded, if the form says so, and what the proof tells of it."""
    if form not in ("tuned", "folded"):
        return network, {"form": form, "batchnorms_folded": 0}
    from scarlet.networks import fold_batchnorm

    folded = fold_batchnorm(network)
    return folded.module, {
        "form": form,
        "batchnorms_folded": folded.pairs_folded,
        "batchnorms_left": folded.batchnorms_left,
    }


def require_compiler() -> None:
    """torch.compile makes C++ for a CPU, and needs somebody to compile that.

    Raises:
        Unavailable: there is no C++ compiler where Inductor looks for one.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise Unavailable(
            f"torch.compile needs a C++ compiler, and there is no {compiler}; install g++ (package g++ of Debian and "
            "Ubuntu, gcc-c++ of Fedora) or name another in the variable CXX"
        )


@contextmanager
def _empty_cache() -> Iterator[None]:
    """Inductor's cache in an empty folder, which goes at the end."""
    name = "TORCHINDUCTOR_CACHE_DIR"
    before = os.environ.get(name)
    with tempfile.TemporaryDirectory(prefix="scarlet-bench-inductor-", ignore_cleanup_errors=True) as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            os.environ.pop(name)
            if before is not None:
                os.environ[name] = before


def plain_name(constant: object) -> str:
    """``torch.float32`` as ``float32``."""
    return str(constant).removeprefix("torch.")


def layer_precisions(module: nn.Module, run: Callable[[], object]) -> dict[str, tuple[str, str]]:
    """Class and result type of every convolution and linear layer by name."""
    from torch import nn

    seen: dict[str, tuple[str, str]] = {}

    def watch(name: str) -> Any:
        def look(layer: nn.Module, _: Any, result: torch.Tensor) -> None:
            seen[name] = (type(layer).__name__, plain_name(result.dtype))

        return look

    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                hooks.enter_context(layer.register_forward_hook(watch(name)))
        run()
    return seen


def other_precision(precision: str, layers: Mapping[str, tuple[str, str]]) -> str:
    """A sentence on layers whose result is of another type than the precision's; nothing where there is none."""
    wanted = RESULT_TYPES[precision]
    other = [f"{name} ({dtype})" for name, (_, dtype) in layers.items() if dtype != wanted]
    return f"these layers gave another type than {wanted}: {', '.join(other)}" if other else ""


def other_device(device: str, parameters: Mapping[str, torch.nn.Parameter]) -> str:
    """A sentence on parameters that lie elsewhere than on the Case's device; nothing where there is none."""
    elsewhere = [name for name, parameter in parameters.items() if parameter.device.type != device]
    return f"these weights are not on the {device}: {', '.join(elsewhere)}" if elsewhere else ""
