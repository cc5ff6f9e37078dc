"""What the harness itself adds: its medians against bare loops of other tools, timed in turns.

    python docs/experiments/harness_cost.py [--rounds 40] [--batch 1]

ONNX Runtime against ``session.run`` between two readings of the clock, PyTorch against ``torch.utils.benchmark``,
each with the backend's own settings, in this process; the harness measures the same graph and pixels in its worker.
Both take slices in turn, so that drift of the machine hits both alike. Exit code 1 when a median differs by more
than 3 %.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
from common import Prepared, prepared
from numpy.typing import NDArray

from bench.analysis.stats import intervals
from bench.backends import make_backend
from bench.backends.base import Backend
from bench.record.case import Status
from bench.record.run_folder import CaseResult
from bench.worker import channel
from bench.worker.inputs import first_batch

LIMIT = 0.03
SLICE_NS = 50_000_000
CALLS = 5

Pixels = NDArray[np.float32]


def onnxruntime_loop(backend: Backend, pixels: Pixels) -> Callable[[], list[float]]:
    session = backend._session  # type: ignore[attr-defined]
    feed = {session.get_inputs()[0].name: pixels}

    def take() -> list[float]:
        taken: list[float] = []
        started = time.perf_counter_ns()
        while len(taken) < CALLS + 1 or time.perf_counter_ns() - started < SLICE_NS:
            before = time.perf_counter_ns()
            session.run(None, feed)
            taken.append(time.perf_counter_ns() - before)
        return taken[1:]  # the first call of a turn is not counted, as in the harness

    return take


def torch_benchmark_timer(backend: Backend, pixels: Pixels) -> Callable[[], list[float]]:
    import torch
    from torch.utils.benchmark import Timer

    timer = Timer(
        "infer(pixels)", globals={"infer": backend.infer, "pixels": pixels}, num_threads=torch.get_num_threads()
    )

    def take() -> list[float]:
        timer.timeit(1)
        return [timer.timeit(1).mean * 1e9 for _ in range(CALLS)]

    return take


LOOPS = {
    "onnxruntime": ("bare loop of session.run", onnxruntime_loop),
    "pytorch": ("torch.utils.benchmark", torch_benchmark_timer),
}


def compare(model: Prepared, name: str, batch: int, rounds: int) -> bool:
    """Prints the comparison for one backend; True when the medians agree."""
    case = model.case(name, batch=batch)
    run = model.folder(f"{name}-{batch}", [case])
    context = model.context(run)
    worker = channel.LocalWorker(run.log_path(case.case_id), case.threads)
    start = {"do": "start", "case": case.to_dict(), "context": context.to_dict()}
    worker.ask(start, timeout_seconds=120)
    backend = make_backend(name)
    backend.load(case, model.files)
    what, loop = LOOPS[name]
    take = loop(backend, first_batch(case, context.files, context.images()))
    theirs: list[float] = []

    def turn(round_: int) -> None:
        worker.ask({"do": "turn", "round": round_, "slice_ns": SLICE_NS}, timeout_seconds=120)

    for _ in range(10):
        take()
        turn(-1)
    for round_ in range(rounds):
        if round_ % 2:
            theirs.append(float(np.median(take())))
            turn(round_)
        else:
            turn(round_)
            theirs.append(float(np.median(take())))
    worker.ask({"do": "finish"}, timeout_seconds=120)
    worker.stop()
    run.append_case(CaseResult(case, Status.OK))
    samples = run.samples()
    ours = samples[~samples["warmup"]].groupby("round")["latency_ns"].median().tolist()
    ratio = intervals.ratio_interval(ours, theirs)
    print(f"{name}, batch {batch}, {case.threads} threads, {rounds} rounds in turns:", end=" ")
    print(f"harness {np.median(ours) / 1e6:.3f} ms, {what} {np.median(theirs) / 1e6:.3f} ms,", end=" ")
    print(f"ratio {ratio.ratio:.4f} (95 % interval {ratio.low:.4f} to {ratio.high:.4f})", flush=True)
    return abs(ratio.ratio - 1) <= LIMIT


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--batch", type=int, default=1)
    wanted = parser.parse_args()
    with prepared() as model:
        agree = [compare(model, name, wanted.batch, wanted.rounds) for name in LOOPS]
    return int(not all(agree))


if __name__ == "__main__":
    sys.exit(main())
