"""PyTorch, eager."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from bench.backends.base import ModelFiles, Unavailable, Unsupported
from bench.case import Case
from models import fold, zoo

FORMS = ("tuned", "plain")


class PyTorch:
    """The reference runtime.

    Option ``form``: ``tuned`` (default) folds BatchNorm into the convolutions and stores tensors channels last,
    as somebody who cares about speed would; ``plain`` runs the network as it was published, NCHW and unfolded.
    """

    name: ClassVar[str] = "pytorch"

    def __init__(self) -> None:
        self._module: torch.nn.Module | None = None
        self._proof: dict[str, Any] = {}
        self._layout = torch.contiguous_format

    def load(self, case: Case, files: ModelFiles) -> None:
        form = case.option("form", "tuned")
        if form not in FORMS:
            raise Unsupported(f"pytorch.form is '{form}'; it can be {' or '.join(FORMS)}")
        if files.state is None:
            raise Unsupported("an ONNX file has no PyTorch module; use another backend")
        if case.precision != "fp32":
            raise Unsupported(f"precision {case.precision} is not built for PyTorch yet")
        if case.device == "cuda":
            _require_cuda()
        torch.set_num_threads(case.threads)
        if torch.get_num_interop_threads() != 1:
            torch.set_num_interop_threads(1)
        try:
            module = zoo.untrained(zoo.resolve(files.model))
        except zoo.ModelUnavailable as missing:
            raise Unavailable(str(missing)) from missing
        module.load_state_dict(load_file(files.state), strict=True)
        module.eval()
        proof = {"batchnorms_folded": 0}
        if form == "tuned":
            folded = fold.fold_batchnorm(module)
            module, proof = folded.module, {"batchnorms_folded": folded.pairs_folded}
            proof["batchnorms_left"] = folded.batchnorms_left
            self._layout = torch.channels_last
        self._module = module.to(memory_format=self._layout)  # type: ignore[call-overload]
        self._proof = {"form": form, **proof}

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        assert self._module is not None
        with torch.inference_mode():
            images = torch.from_numpy(pixels).to(memory_format=self._layout)
            logits: NDArray[np.float32] = self._module(images).numpy()
        return logits

    def proof(self) -> dict[str, Any]:
        assert self._module is not None
        parameters = list(self._module.parameters())
        return {
            **self._proof,
            "version": torch.__version__,
            "devices": sorted({str(parameter.device) for parameter in parameters}),
            "dtypes": sorted({str(parameter.dtype).removeprefix("torch.") for parameter in parameters}),
            "layout": str(self._layout).removeprefix("torch."),
            "intra_op_threads": torch.get_num_threads(),
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "onednn": bool(torch.backends.mkldnn.enabled),
            "autocast": torch.is_autocast_enabled("cpu"),
        }

    def close(self) -> None:
        self._module = None


def _require_cuda() -> None:
    """Raises ``Unavailable`` where this PyTorch has no CUDA device, saying which half is missing."""
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
