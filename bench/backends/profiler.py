"""What a runtime tells of its own nodes, and how their times are taken."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.backends.base import Backend, ModelFiles
from bench.record.case import Case

Pixels = NDArray[np.float32]

# Calls with and without profiling take turns, so that drift hits both alike.
CALLS_PER_TURN = 5
# The first calls of a turn find the caches as the other side left them, or a graph that was never run.
DROPPED_CALLS = 3
FIRST_DROPPED_CALLS = 10


@dataclass(frozen=True)
class Node:
    """One thing that a runtime executes and times.

    Attributes:
        op: the runtime's operator (``Conv``, ``ReorderOutput``); of a PyTorch module, its class.
        kernel: how it runs, as far as the runtime says (``brgconv_avx512_1x1_f32``), or empty.
        originals: names of the model's nodes that it stands for, as the runtime writes them.
        samples_ns: its time in each call that was kept.
    """

    name: str
    op: str
    kernel: str = ""
    originals: tuple[str, ...] = ()
    samples_ns: tuple[float, ...] = ()


@dataclass(frozen=True)
class Recording:
    """Times of whole calls and of the nodes inside of them.

    Attributes:
        plain_ns: calls without profiling, by turn.
        plain_cpu_ns: processor time of the same calls, of all threads: pauses for others' sake are not in it.
        profiled_ns: calls with profiling, by turn.
        nodes: in the order of execution, without those that never ran.
        resolution_ns: the finest step of the runtime's own clock.
    """

    plain_ns: tuple[tuple[int, ...], ...]
    plain_cpu_ns: tuple[tuple[int, ...], ...]
    profiled_ns: tuple[tuple[int, ...], ...]
    nodes: tuple[Node, ...]
    resolution_ns: int = 1


class Profiler(Protocol):
    """A backend's network once more, with its runtime's profiling on."""

    resolution_ns: int

    def turn(self, pixels: Pixels, dropped: int, calls: int) -> list[int]:
        """Profiled calls one after another.

        Args:
            dropped: first calls, which are not kept.
            calls: further calls, which are.

        Returns:
            Wall time in ns of each call that is kept.
        """
        ...

    def nodes(self) -> list[Node]:
        """What ran in the calls that were kept, in order. Called once, after the last turn."""
        ...

    def close(self) -> None: ...


def record(case: Case, files: ModelFiles, pixels: Pixels, repeats: int) -> Recording:
    """Loads a Case's backend and its profiler and times both, as ``measure``.

    Raises:
        Unavailable, Unsupported: see ``Backend.load``.
        BenchError: the runtime's profile is not whole.
    """
    from bench.backends import facts, load_name, make_backend

    backend = make_backend(case.backend)
    backend.load(case, files)
    profiler: Profiler = load_name(facts(case.backend).profiler)(case, files, backend)
    try:
        return measure(backend, profiler, pixels, repeats)
    finally:
        profiler.close()
        backend.close()


def measure(
    backend: Backend,
    profiler: Profiler,
    pixels: Pixels,
    repeats: int,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
    cpu_clock_ns: Callable[[], int] = time.process_time_ns,
) -> Recording:
    """Times calls with and without profiling, in turns of ``CALLS_PER_TURN``.

    Args:
        backend: loaded; its calls are the yardstick.
        pixels: float32, ``(batch, 3, size, size)``.
        repeats: calls of each kind; rounded up to whole turns.
    """
    plain, plain_cpu, profiled = [], [], []
    # A collection in the middle of a call is our noise, not the layer's time.
    gc.collect()
    gc.disable()
    try:
        for turn in range(-(-repeats // CALLS_PER_TURN)):
            dropped = DROPPED_CALLS if turn else FIRST_DROPPED_CALLS
            timed(backend.infer, pixels, dropped)
            times, cpu_times = [], []
            for _ in range(CALLS_PER_TURN):
                cpu_started, started = cpu_clock_ns(), clock_ns()
                backend.infer(pixels)
                times.append(clock_ns() - started)
                cpu_times.append(cpu_clock_ns() - cpu_started)
            plain.append(tuple(times))
            plain_cpu.append(tuple(cpu_times))
            profiled.append(tuple(profiler.turn(pixels, dropped, CALLS_PER_TURN)))
    finally:
        gc.enable()
    return Recording(
        plain_ns=tuple(plain),
        plain_cpu_ns=tuple(plain_cpu),
        profiled_ns=tuple(profiled),
        nodes=tuple(profiler.nodes()),
        resolution_ns=profiler.resolution_ns,
    )


def timed(call: Callable[[Any], object], argument: Any, times: int) -> list[int]:
    """Wall time in ns of each of so many calls, one after another."""
    clock = [time.perf_counter_ns()]
    for _ in range(times):
        call(argument)
        clock.append(time.perf_counter_ns())
    return [after - before for before, after in pairwise(clock)]


def node_names(nodes: Sequence[Any]) -> list[str]:
    """A name for each node of an ONNX graph: its own, or its first output's where it has none or shares it."""
    counts = Counter(node.name for node in nodes)
    return [
        node.name if node.name and counts[node.name] == 1 else next(filter(None, node.output), "") for node in nodes
    ]
