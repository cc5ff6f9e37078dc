"""A PyTorch network on the GPU: queued kernel by kernel, or replayed as a CUDA graph."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.backends import cuda
from bench.backends.base import Unavailable
from bench.record.case import Case

if TYPE_CHECKING:
    import torch

# Calls before a capture: libraries choose algorithms and take memory in the first ones, which a capture forbids.
# PyTorch's notes on CUDA graphs use three.
WARM_UPS = 3

Call = Callable[["torch.Tensor"], "torch.Tensor"]


class CudaNetwork:
    """Computes logits on the GPU, on a stream of its own.

    Args:
        call: the network, or what the compiler made of it.
        autocast: type that autocast casts to, or None for no autocast.
        least: smaller batches are filled up to so many images.
    """

    def __init__(
        self,
        call: Call,
        dtype: torch.dtype,
        layout: torch.memory_format,
        autocast: torch.dtype | None = None,
        graph: bool = False,
        least: int = 0,
    ) -> None:
        self._call, self._dtype, self._layout, self._autocast = call, dtype, layout, autocast
        # Of each batch size what replays its graph, and where that leaves its logits.
        self._graphs: dict[int, tuple[Callable[[], None], torch.Tensor]] | None = {} if graph else None
        self.lane = cuda.Lane(self._compute, any_address=not graph, least=least)

    @property
    def captured_batches(self) -> list[int]:
        """Batch sizes of which there is a graph."""
        return sorted(self._graphs or ())

    def eager(self, module: Call, pixels: NDArray[np.float32]) -> None:
        """One pass through the module itself, by no graph and no compiler; complete when this returns."""
        import torch

        with torch.inference_mode(), torch.cuda.stream(self.lane.stream):
            self._forward(module, torch.from_numpy(pixels).to(cuda.DEVICE))
        self.lane.stream.synchronize()

    def _compute(self, pixels: torch.Tensor) -> torch.Tensor:
        if self._graphs is None:
            return self._forward(self._call, pixels)
        if len(pixels) not in self._graphs:
            self._graphs[len(pixels)] = self._capture(pixels)
        replay, logits = self._graphs[len(pixels)]
        replay()
        return logits

    def _forward(self, call: Call, pixels: torch.Tensor) -> torch.Tensor:
        with self._casting():
            return call(pixels.to(dtype=self._dtype, memory_format=self._layout)).float()

    def _capture(self, pixels: torch.Tensor) -> tuple[Callable[[], None], torch.Tensor]:
        """A graph that reads these very pixels' memory. The current stream is the lane's, which is no default one."""
        for _ in range(WARM_UPS):
            self._forward(self._call, pixels)
        logits: list[torch.Tensor] = []
        replay = cuda.captured(lambda: logits.append(self._forward(self._call, pixels)), self.lane.stream)
        return replay, logits[0]

    def _casting(self) -> AbstractContextManager[Any]:
        import torch

        if self._autocast is None:
            return nullcontext()
        # Each weight is used once a call, so a cache of casts would only hold memory that a graph must not share.
        return torch.autocast(cuda.DEVICE, dtype=self._autocast, cache_enabled=False)

    def close(self) -> None:
        """Lets go of graphs and buffers."""
        if self._graphs is not None:
            self._graphs.clear()
        self.lane.close()


def set_up(case: Case) -> None:
    """Sets what PyTorch keeps for the whole process: the Case's process has no other."""
    import torch

    cuda.set_tf32(case.precision == "tf32")
    # Convolutions are tried in the warm-up and the fastest is kept, as somebody would who cares about speed.
    torch.backends.cudnn.benchmark = True


def require_triton() -> None:
    """torch.compile makes Triton kernels for a GPU, whose launchers a C compiler builds.

    Raises:
        Unavailable: Triton, a C compiler where it looks for one, or Python's headers are missing.
    """
    if importlib.util.find_spec("triton") is None:
        raise Unavailable("torch.compile on a GPU needs the package triton; run: pip install triton")
    compilers = (os.environ["CC"],) if os.environ.get("CC") else ("gcc", "clang", "cc")
    if not any(map(shutil.which, compilers)):
        raise Unavailable(
            f"torch.compile on a GPU needs a C compiler, and there is no {' or '.join(compilers)}; install gcc or "
            "name another in the variable CC"
        )
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        raise Unavailable("torch.compile on a GPU needs Python's headers; run: sudo apt install python3-dev")


def device_proof(case: Case, network: CudaNetwork) -> dict[str, Any]:
    """What a proof says of a Case on the GPU, besides what it says of any."""
    import torch

    tf32 = cuda.tf32_state()
    return {
        "gpu": cuda.gpu_facts(),
        "tf32": tf32,
        "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
        "cuda_graph": case.option("graph", "no"),
        "captured_batches": network.captured_batches,
        "host_memory": "pinned",
        "stream": "own",
        "l2": cuda.l2_note(case),
        "fallback": tf32_sentence(case.precision, tf32),
    }


def tf32_sentence(precision: str, state: dict[str, bool]) -> str:
    """A sentence where the switches that a proof shows are not those of the precision; else nothing."""
    wanted = precision == "tf32"
    wrong = [name for name, allowed in state.items() if allowed is not wanted]
    if precision not in ("fp32", "tf32") or not wrong:
        return ""
    return f"TF32 is {'off' if wanted else 'on'} by {' and '.join(wrong)}, and {precision} was asked for"
