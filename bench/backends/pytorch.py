"""PyTorch: eager, or compiled by Inductor."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Choices, ModelFiles, Unavailable, Unsupported, refuse_bad_options
from bench.case import Case

if TYPE_CHECKING:
    import torch
    from torch import nn

REFUSED_PRECISIONS = {
    "tf32": "TF32 is a number format of NVIDIA's GPUs",
    "fp16": "in PyTorch fp16 is for GPUs; the 16-bit format of its CPU kernels is bf16",
    "int8": "PyTorch's eager network is not quantised; int8 rows need a quantised graph and another backend",
}


class PyTorch:
    """The reference runtime.

    Options:
        form: ``plain`` runs the network as it was published, NCHW and with its BatchNorms. ``channels_last`` stores
            tensors channels last; ``folded`` folds BatchNorm into the convolutions; ``tuned`` (default) does both, as
            somebody who cares about speed would.
        compile: ``default`` or ``max-autotune`` compiles with Inductor and frozen weights; without it, eager. It is
            compiled for the Case's batch, in ``load``; smaller batches are filled up to it. Never from Inductor's
            cache, so that the proof's ``compile_seconds`` are those of a first time.
        bf16: what precision ``bf16`` means. ``cast`` (default) stores weights in BF16 and computes all in it;
            ``autocast`` keeps float32 weights and casts them for each layer that autocast lists, which costs time.
    """

    name: ClassVar[str] = "pytorch"
    OPTIONS: ClassVar[Mapping[str, Choices]] = {
        "form": ("tuned", "plain", "channels_last", "folded"),
        "compile": ("default", "max-autotune"),
        "bf16": ("cast", "autocast"),
    }

    def __init__(self) -> None:
        self._module: nn.Module | None = None
        self._proof: dict[str, Any] = {}

    def load(self, case: Case, files: ModelFiles) -> None:
        refuse_bad_options(self, case)
        if files.state is None:
            raise Unsupported("an ONNX file has no PyTorch module; use another backend")
        if case.device == "cuda":
            _require_cuda()
        if case.precision in REFUSED_PRECISIONS:
            raise Unsupported(REFUSED_PRECISIONS[case.precision])
        if case.option("compile"):
            require_compiler()
        import torch

        torch.set_num_threads(case.threads)
        if torch.get_num_interop_threads() != 1:
            torch.set_num_interop_threads(1)
        self._case, self._size = case, files.input_size
        # Autocast takes float32; all else gets its pixels in the type of the weights.
        self._autocasts = case.precision == "bf16" and case.option("bf16") == "autocast"
        self._dtype = torch.bfloat16 if case.precision == "bf16" and not self._autocasts else torch.float32
        form = case.option("form", "tuned")
        module, self._proof = shaped(_network(files), form)
        channels_last = form in ("tuned", "channels_last")
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self._module = module.to(dtype=self._dtype, memory_format=self._layout)  # type: ignore[call-overload]
        self._call: Any = self._module
        self._compiled_batch = 0
        if case.option("compile"):
            self._compile(case.option("compile"))

    def _compile(self, mode: str) -> None:
        import torch
        from torch._dynamo.utils import counters

        assert self._module is not None
        counters.clear()
        options: dict[str, Any] = {"freezing": True, "max_autotune": mode == "max-autotune"}
        self._call = torch.compile(self._module, dynamic=False, options=options)
        self._compiled_batch = self._case.batch
        blank = np.zeros((self._case.batch, 3, self._size, self._size), np.float32)
        started = time.perf_counter()
        with _empty_cache():
            self.infer(blank)
        self._proof |= {
            "compile": mode,
            "compile_seconds": time.perf_counter() - started,
            "compiled_graphs": int(counters["stats"]["unique_graphs"]),
            "graph_breaks": sum(counters["graph_break"].values()),
        }

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
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
        parameters = list(self._module.parameters())
        layers = self._layer_precisions()
        counts = Counter(f"{kind} {dtype}" for kind, dtype in layers.values())
        with self._autocast():
            autocast = torch.is_autocast_enabled("cpu")
        return {
            **self._proof,
            **self._compiled_later(),
            "version": torch.__version__,
            "devices": sorted({str(parameter.device) for parameter in parameters}),
            "dtypes": sorted({_name(parameter.dtype) for parameter in parameters}),
            "layout": _name(self._layout),
            "intra_op_threads": torch.get_num_threads(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "onednn": bool(torch.backends.mkldnn.enabled),
            "autocast": autocast,
            "layer_counts": dict(sorted(counts.items())),
            "fallback": " and ".join(filter(None, [self._not_compiled(), self._other_precision(layers)])),
        }

    def _layer_precisions(self) -> dict[str, tuple[str, str]]:
        """Class and result type of every convolution and linear layer by name, watched in one eager pass."""
        from torch import nn

        assert self._module is not None
        seen: dict[str, tuple[str, str]] = {}

        def watch(name: str) -> Any:
            def look(layer: nn.Module, _: Any, result: torch.Tensor) -> None:
                seen[name] = (type(layer).__name__, _name(result.dtype))

            return look

        hooks = [
            layer.register_forward_hook(watch(name))
            for name, layer in self._module.named_modules()
            if isinstance(layer, (nn.Conv2d, nn.Linear))
        ]
        try:
            self._infer(self._module, np.zeros((1, 3, self._size, self._size), np.float32))
        finally:
            for hook in hooks:
                hook.remove()
        return seen

    def _other_precision(self, layers: Mapping[str, tuple[str, str]]) -> str:
        wanted = {"fp32": "float32", "bf16": "bfloat16"}[self._case.precision]
        other = [f"{name} ({dtype})" for name, (_, dtype) in layers.items() if dtype != wanted]
        return f"these layers gave another type than {wanted}: {', '.join(other)}" if other else ""

    def _compiled_later(self) -> dict[str, int]:
        """How many graphs were compiled after ``load``, where there should be none: they cost time when they came."""
        if not self._compiled_batch:
            return {}
        from torch._dynamo.utils import counters

        return {
            "graphs_compiled_later": int(counters["stats"]["unique_graphs"]) - self._proof["compiled_graphs"]
        }

    def _not_compiled(self) -> str:
        if self._compiled_batch and not self._proof["compiled_graphs"]:
            return "torch.compile found nothing to compile"
        return ""

    def close(self) -> None:
        self._module = self._call = None


def shaped(network: nn.Module, form: str) -> tuple[nn.Module, dict[str, Any]]:
    """The network with its BatchNorms folded, if the form says so, and what the proof tells of it."""
    if form not in ("tuned", "folded"):
        return network, {"form": form, "batchnorms_folded": 0}
    from models import fold

    folded = fold.fold_batchnorm(network)
    return folded.module, {
        "form": form,
        "batchnorms_folded": folded.pairs_folded,
        "batchnorms_left": folded.batchnorms_left,
    }


def _network(files: ModelFiles) -> nn.Module:
    """The network with its weights, in eval mode."""
    from safetensors.torch import load_file

    from models import zoo

    assert files.state is not None
    try:
        module: nn.Module = zoo.untrained(zoo.resolve(files.model))
    except zoo.ModelUnavailable as missing:
        raise Unavailable(str(missing)) from missing
    module.load_state_dict(load_file(files.state), strict=True)
    return module.eval()


def _name(constant: object) -> str:
    """``torch.float32`` as ``float32``."""
    return str(constant).removeprefix("torch.")


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


def _require_cuda() -> None:
    """Raises ``Unavailable`` where this PyTorch has no CUDA device, saying which half is missing."""
    import torch

    if torch.version.cuda is None:
        raise Unavailable(
            f"this PyTorch ({torch.__version__}) is a CPU build; on a machine with an NVIDIA GPU run "
            "`make clean setup`, which installs the CUDA build"
        )
    if not torch.cuda.is_available():
        raise Unavailable(
            "PyTorch sees no CUDA device; `scarlet-bench doctor` tells whether a driver is there"
        )
    raise Unavailable("CUDA rows are not built yet for PyTorch; use --devices cpu")
