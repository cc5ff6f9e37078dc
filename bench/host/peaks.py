"""The peaks of a machine, measured: how fast it multiplies matrices and copies memory.

The roofline model (Williams, Waterman and Patterson, CACM 52 (2009)): a layer that does few multiply-adds for each
byte it moves is held by memory, one that does many by arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

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
    matrix = torch.ones(SIDE, SIDE).to(getattr(torch, type_))
    multiply = partial(torch._int_mm if type_ == "int8" else torch.mm, matrix, matrix)
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
