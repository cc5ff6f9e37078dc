"""What backends on an NVIDIA GPU share: a stream, pinned buffers, stages timed by events, facts for proofs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, ModelFiles, OnDevice, Unavailable, Unsupported
from bench.record.case import Case
from pipelines.base import DevicePixels
from scarlet.gpu import why_torch_cannot

if TYPE_CHECKING:
    import torch

# PyTorch's name of the GPU: the first that CUDA_VISIBLE_DEVICES leaves.
DEVICE = "cuda"

Pixels = NDArray[np.float32]

# What a backend is handed: pixels in the host's memory, or on the device that it computes on.
Work = Pixels | DevicePixels

# What the buffer that evicts the L2 is larger by: with exactly its size, some lines of before would stay.
L2_FACTOR = 2


def require_cuda(case: Case) -> None:
    """Finds out whether this process can compute on a GPU, and that in the Case's precision.

    Raises:
        Unavailable: it cannot; the text says why: a CPU build, no device or driver, a driver or a GPU that is too old.
        Unsupported: the GPU has no such arithmetic. Compute capability 8.0 brought TF32 and BF16: CUDA C++ Programming
            Guide, Compute Capabilities.
    """
    if why := why_torch_cannot():
        raise Unavailable(why)
    import torch

    if case.precision in ("tf32", "bf16") and torch.cuda.get_device_capability() < (8, 0):
        raise Unsupported(
            f"{torch.cuda.get_device_name()} has no {case.precision.upper()}; that needs compute capability 8.0 "
            "(Ampere) or newer"
        )


def takes_device_pixels(backend: Backend) -> bool:
    """Whether it, or each of its copies, takes pixels on the device."""
    return isinstance(getattr(backend, "first", backend), OnDevice)


def infer(backend: Backend, work: Work) -> Pixels:
    """The logits of one batch, wherever its pixels lie."""
    if isinstance(work, DevicePixels):
        assert isinstance(backend, OnDevice)
        return backend.infer_on_device(work)
    return backend.infer(work)


@contextmanager
def named_range(name: str) -> Iterator[None]:
    """A range of this name in the timeline of Nsight Systems; costs next to nothing where nobody looks."""
    import torch

    torch.cuda.nvtx.range_push(name)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.cuda.nvtx.range_pop()  # type: ignore[no-untyped-call]


class StageClock:
    """Times the stages of a call by CUDA events on one stream; the host waits once, at the end.

    Events mark moments of the device: what is timed is the device's work between them, and its waiting for the host
    where that is slower (batch 1 without CUDA graphs). They resolve about half a microsecond.
    CUDA Runtime API, Event Management. The events are made once and used again in every call.
    """

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream
        self._events: list[torch.cuda.Event] = []
        self._names: list[str] = []

    def mark(self, name: str) -> None:
        """The stage of this name begins, and the one before ends."""
        self._record()
        self._names.append(name)

    def finish(self) -> dict[str, int]:
        """Ends the last stage, waits for it, and gives nanoseconds by stage; a name that came twice has the sum."""
        self._record()
        names, self._names = self._names, []
        self._events[len(names)].synchronize()
        taken = dict.fromkeys(names, 0)
        for place, name in enumerate(names):
            milliseconds = self._events[place].elapsed_time(self._events[place + 1])
            taken[name] += round(milliseconds * 1e6)
        return taken

    def _record(self) -> None:
        import torch

        place = len(self._names)
        if place == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        self._events[place].record(self._stream)


@dataclass
class _Buffers:
    """Of one batch size: host memory is pinned, so that copies run by themselves; addresses never change."""

    host_pixels: torch.Tensor
    pixels: torch.Tensor
    host_logits: torch.Tensor | None = None


class Lane:
    """Takes a batch to the GPU, has it computed there, and brings the logits back, all on a stream of its own.

    Nothing waits for the device but the end of a call. A call first copies the pixels into pinned memory: that is
    the host's work, so it counts in ``end_to_end`` and not in ``h2d``.

    Args:
        compute: logits on the device, queued on the current stream, of float32 pixels ``(n, 3, size, size)`` there.
            It always gets the same memory for the same n, unless ``any_address``.
        any_address: ``compute`` takes pixels wherever they lie.
        least: smaller batches are filled up to so many images: ``compute`` is made for that size.
    """

    def __init__(
        self,
        compute: Callable[[torch.Tensor], torch.Tensor],
        any_address: bool = False,
        least: int = 0,
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        import torch

        self.stream = stream or torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._compute, self._any_address, self._least = compute, any_address, least
        self._clock = StageClock(self.stream)
        self._buffers: dict[int, _Buffers] = {}

    def infer(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits on the host, complete. See ``Backend.infer``."""
        logits, _ = self._call(pixels, None)
        return logits

    def infer_stages(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict[str, int]]:
        """The same with its stages. See ``TimesStages``."""
        return self._call(pixels, self._clock)

    def infer_on_device(self, on_device: DevicePixels) -> NDArray[np.float32]:
        """Logits on the host of pixels on the device. See ``OnDevice``.

        The legacy default stream has no part in it: work there waits for that of all other streams, and they for it.
        """
        import torch

        buffers = self._buffers_for(tuple(on_device.tensor.shape))
        pixels = on_device.wait(self.stream)
        n = len(pixels)
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            if self._any_address and n >= self._least:
                logits = self._compute(pixels)
            else:
                buffers.pixels[:n].copy_(pixels, non_blocking=True)
                logits = self._compute(buffers.pixels)
            self._fetch(logits, buffers)
        self.stream.synchronize()
        return _taken(buffers, n)

    def _call(
        self, pixels: NDArray[np.float32], clock: StageClock | None
    ) -> tuple[NDArray[np.float32], dict[str, int]]:
        import torch

        n = len(pixels)
        buffers = self._buffers_for(pixels.shape)
        buffers.host_pixels[:n].copy_(torch.from_numpy(pixels))
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            if clock:
                clock.mark("h2d")
            buffers.pixels.copy_(buffers.host_pixels, non_blocking=True)
            if clock:
                clock.mark("compute")
            queued_from = time.perf_counter_ns()
            logits = self._compute(buffers.pixels)
            enqueue_ns = time.perf_counter_ns() - queued_from
            if clock:
                clock.mark("d2h")
            self._fetch(logits, buffers)
        if clock:
            stages = {**clock.finish(), "enqueue": enqueue_ns}
        else:
            self.stream.synchronize()
            stages = {}
        return _taken(buffers, n), stages

    def _fetch(self, logits: torch.Tensor, buffers: _Buffers) -> None:
        if buffers.host_logits is None:  # the first call of this size, in warm-up
            buffers.host_logits = pinned(tuple(logits.shape))
        buffers.host_logits.copy_(logits, non_blocking=True)

    def _buffers_for(self, shape: tuple[int, ...]) -> _Buffers:
        import torch

        n = max(shape[0], self._least)
        if n not in self._buffers:
            full = (n, *shape[1:])
            with torch.cuda.stream(self.stream):  # zeroed before whatever is queued there
                pixels = torch.zeros(full, dtype=torch.float32, device=DEVICE)
            self._buffers[n] = _Buffers(pinned(full), pixels)
        return self._buffers[n]

    def close(self) -> None:
        """Lets go of the buffers."""
        self._buffers.clear()


def pinned(shape: tuple[int, ...]) -> torch.Tensor:
    """Float32 zeros in host memory that the GPU copies to and from by itself."""
    import torch

    return torch.zeros(shape, dtype=torch.float32, pin_memory=True)


class OnLane:
    """What a backend has besides on a GPU, once it has a lane: ``TimesStages`` and ``OnDevice``."""

    _lane: Lane | None = None

    def infer_stages(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], Mapping[str, int]]:
        """See ``TimesStages``."""
        assert self._lane is not None
        return self._lane.infer_stages(pixels)

    def infer_on_device(self, pixels: DevicePixels) -> NDArray[np.float32]:
        """See ``OnDevice``."""
        assert self._lane is not None
        return self._lane.infer_on_device(pixels)


def _taken(buffers: _Buffers, n: int) -> NDArray[np.float32]:
    """A copy of the first n logits: the next call overwrites the buffer."""
    assert buffers.host_logits is not None
    logits: NDArray[np.float32] = buffers.host_logits[:n].numpy().copy()
    return logits


def set_tf32(allowed: bool) -> None:
    """Lets this process's float32 matrix products and convolutions use TF32, or forbids it.

    The two older switches are set, and not ``fp32_precision``: they keep both interfaces in step, while after the
    newer ones alone PyTorch 2.9 and later raises wherever a library still reads the older ones.
    """
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*TF32 behavior")  # on what will replace them
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def tf32_state() -> dict[str, bool]:
    """What matrix products and convolutions may use now, as PyTorch tells: ``True`` where TF32 is on."""
    import torch

    return {
        "matmul_allow_tf32": bool(torch.backends.cuda.matmul.allow_tf32),
        "cudnn_allow_tf32": bool(torch.backends.cudnn.allow_tf32),
    }


# FP32 is off from the CPU's by some 1e-5 of the largest logit, by 3e-4 at worst with Winograd's convolutions; TF32,
# which keeps 10 bits of 23, by 1e-3.
FP32_DISTANCE = 3e-4
PROOF_IMAGES = 4


def distance_from_cpu(backend: Backend, case: Case, files: ModelFiles) -> dict[str, Any]:
    """How far the logits of some noise are from PyTorch's in FP32 on the CPU, relative to the largest.

    A switch that says that TF32 is off proves nothing where a library goes round it.

    Returns:
        ``logits_distance_from_cpu``, and under ``fallback`` a sentence where an FP32 Case is too far; nothing for
        other precisions than FP32 and TF32, and for a model without a module.
    """
    import torch

    if case.precision not in ("fp32", "tf32"):
        return {}
    try:
        network = files.network()
    except (Unavailable, Unsupported):
        return {}
    n = files.fixed_batch or min(case.batch, PROOF_IMAGES)
    shape = (n, 3, files.input_size, files.input_size)
    pixels = np.random.default_rng(0).standard_normal(shape, np.float32)
    with torch.inference_mode():
        right = network(torch.from_numpy(pixels)).numpy()
    distance = float(np.abs(backend.infer(pixels) - right).max() / np.abs(right).max())
    proof: dict[str, Any] = {"logits_distance_from_cpu": distance}
    if case.precision == "fp32" and not distance <= FP32_DISTANCE:
        proof["fallback"] = f"its logits are {distance:.0e} from the CPU's, further than FP32 is: TF32 or less computed"
    return proof


def gpu_facts() -> dict[str, Any]:
    """The GPU and its libraries, for a proof. Call it after ``require_cuda``.

    Keys: ``name``, ``compute_capability``, ``multiprocessors``, ``memory_bytes``, ``l2_bytes``, ``driver`` (None
    where the management library does not tell), ``cuda``, ``cudnn``.
    """
    import torch

    from bench.host.gpu_state import describe_gpus

    major, minor = torch.cuda.get_device_capability()
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "name": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        "l2_bytes": properties.L2_cache_size,
        "driver": describe_gpus()["driver"],
        "cuda": torch.version.cuda,
        "cudnn": _cudnn_version(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
    }


def _cudnn_version(number: int | None) -> str | None:
    """92000 as 9.20.0: from cuDNN 9 on ten thousands, before that thousands."""
    if number is None:
        return None
    factor = 10_000 if number >= 90_000 else 1_000
    return f"{number // factor}.{number % factor // 100}.{number % 100}"


def l2_note(case: Case) -> str:
    """What the L2 cache holds when a timed call begins, a sentence for the proof."""
    if case.scenario != "latency":
        return "as the work before left it"
    if case.option("l2", "warm") == "cold":
        return f"cold: a buffer of {L2_FACTOR} times its size is written before every call, outside of what is timed"
    return "warm: it is not flushed between calls, which use the same weights and the same pixels"


def captured(work: Callable[[], object], stream: torch.cuda.Stream) -> Callable[[], None]:
    """Captures what ``work`` queues on the stream; what comes back launches it on the current stream.

    The capture minds this thread alone: copies of a backend, or a pipeline, may be at work in others.
    """
    import torch

    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            work()
    except RuntimeError as error:
        # To end a capture that failed fails too: the first error says why.
        raise error.__context__ or error from None
    replay: Callable[[], None] = graph.replay
    return replay


class L2Flush:
    """Empties the L2 cache of what a call left there: writes a buffer of twice its size, and waits for that."""

    def __init__(self) -> None:
        import torch

        size = torch.cuda.get_device_properties(torch.cuda.current_device()).L2_cache_size
        self._buffer = torch.empty(L2_FACTOR * size, dtype=torch.int8, device=DEVICE)

    def __call__(self) -> None:
        import torch

        self._buffer.zero_()
        torch.cuda.synchronize()
