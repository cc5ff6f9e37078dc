"""How near a row comes to what the machine can do: measured peaks, and the share of them that a Case reaches.

The roofline model (Williams, Waterman and Patterson, CACM 52 (2009)): a layer that does few multiply-adds for each
byte it moves is held by memory, one that does many by arithmetic. A network's row carries what it computes in a
second and what share of the measured peak of matrix multiplication that is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.record.files import warn_damaged, write_text
from export.store import default_root

# Large enough that a multiplication is held by arithmetic, small enough that a fifth of a second holds many.
SIDE = 1024
SECONDS = 0.3
COPY_BYTES = 64 * 2**20  # more than the last-level caches of the cores that a benchmark gets

# What is multiplied for each precision. A CPU computes TF32 as FP32; FP16 graphs run in FP32 where there are no units.
TYPES = {"fp32": "float32", "tf32": "float32", "bf16": "bfloat16", "fp16": "float16", "int8": "int8"}


@dataclass(frozen=True)
class Peak:
    """What a machine reached.

    Attributes:
        threads: on which it was measured.
        gflop_per_s: by precision: 2 * n**3 over the shortest time of a multiplication of two n x n matrices, in
            10**9 operations a second (integer ones for int8). Precisions that PyTorch cannot multiply here are absent.
        copy_gbyte_per_s: bytes read and written by the fastest copy of ``COPY_BYTES``, in 10**9 a second.
    """

    threads: int
    gflop_per_s: Mapping[str, float]
    copy_gbyte_per_s: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "gflop_per_s": dict(self.gflop_per_s)}


def measure_peak(
    threads: int,
    precisions: Sequence[str] = ("fp32",),
    seconds: float = SECONDS,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Peak:
    """Multiplies matrices and copies memory with PyTorch on the CPU, ``seconds`` each.

    The shortest time counts: the peak is what the machine can do when nothing disturbs it. The number of PyTorch's
    threads is set for good, so this belongs in a process of its own.
    """
    import torch

    torch.set_num_threads(threads)
    reached = {}
    for precision in dict.fromkeys(precisions):
        multiply = _multiplication(torch, TYPES[precision])
        if multiply is not None:
            reached[precision] = 2 * SIDE**3 / shortest_ns(multiply, seconds, clock_ns)
    source = torch.ones(COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    copy_ns = shortest_ns(lambda: target.copy_(source), seconds, clock_ns)
    return Peak(threads, reached, 2 * COPY_BYTES / copy_ns)


def _multiplication(torch: Any, type_: str) -> Callable[[], object] | None:
    """A multiplication of two matrices of this type, or None where PyTorch has none for it."""
    if type_ == "int8":
        ones = torch.ones(SIDE, SIDE, dtype=torch.int8)

        def multiply() -> object:
            return torch._int_mm(ones, ones)
    else:
        matrix = torch.ones(SIDE, SIDE).to(getattr(torch, type_))

        def multiply() -> object:
            return matrix @ matrix

    try:
        multiply()
    except RuntimeError:  # not implemented for this type on this machine
        return None
    return multiply


def shortest_ns(call: Callable[[], object], seconds: float, clock_ns: Callable[[], int]) -> int:
    """The shortest of as many calls as fit into ``seconds``, and of three at least, in nanoseconds; 1 or more."""
    began, times = clock_ns(), list[int]()
    while len(times) < 3 or clock_ns() - began < seconds * 1e9:
        started = clock_ns()
        call()
        times.append(clock_ns() - started)
    return max(1, min(times))


def gflop_per_s(multiply_adds: int, images_per_s: float) -> float:
    """What a network computes, in 10**9 operations a second; a multiply-add counts as two."""
    return 2.0 * multiply_adds * images_per_s / 1e9


def peak_percent(
    reached_gflop_per_s: float, precision: str, threads: int, peaks: Sequence[Mapping[str, Any]]
) -> float | None:
    """The share of the measured peak in that precision on as many threads; None where it was not measured.

    Args:
        reached_gflop_per_s: of the row.
        precision: of the row.
        threads: that compute at the same time, over all instances.
        peaks: ``Peak.to_dict()`` of each number of threads that was measured.
    """
    for peak in peaks:
        if peak["threads"] == threads and peak["gflop_per_s"].get(precision):
            return 100.0 * reached_gflop_per_s / float(peak["gflop_per_s"][precision])
    return None


def save(peaks: Sequence[Peak], host_fingerprint: str, folder: Path | None = None) -> Path:
    """Stores what a host reached, in place of what was stored before.

    Args:
        peaks: one for each number of threads.
        host_fingerprint: of the host.
        folder: ``default_folder()`` where None.

    Raises:
        BenchError: the folder cannot be written.
    """
    path = (folder or default_folder()) / f"{host_fingerprint}.json"
    write_text(path, json.dumps([peak.to_dict() for peak in peaks], indent=1) + "\n")
    return path


def lookup(host_fingerprint: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """``Peak.to_dict()`` of each number of threads that was measured on a host; empty where there is none."""
    path = (folder or default_folder()) / f"{host_fingerprint}.json"
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return [
            {"threads": int(peak["threads"]), "gflop_per_s": dict(peak["gflop_per_s"]), **peak}
            for peak in stored
        ]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        warn_damaged(f"{path} left out: {error}")
        return []


def default_folder() -> Path:
    """Beside the artefact store."""
    return default_root() / "peaks"
