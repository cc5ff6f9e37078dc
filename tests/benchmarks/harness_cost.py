"""What the harness itself adds to a latency: its median for ONNX Runtime against a bare loop, timed in turns.

    python tests/benchmarks/harness_cost.py [--model scarlet_c] [--batch 1] [--rounds 40]

The bare loop is ``session.run`` between two readings of the clock, in this process, with the session settings of
the backend. The harness measures the same graph and the same pixels in its worker process. Both take slices in
turn, so that drift of the machine hits both alike. Exit code 1 when the medians differ by more than 3 %.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console

from bench import host, session, stats, wire
from bench.backends.base import ModelFiles
from bench.backends.onnxruntime import OnnxRuntime
from bench.case import Case, Status
from bench.results import CaseResult, RunFolder
from bench.runner import prepare_files
from bench.tasks import Context, first_batch

LIMIT = 0.03
SLICE_NS = 50_000_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scarlet_c")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    wanted = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        image_set, images = session.choose_images(None, None, console)
        run = RunFolder.create(Path(folder) / "run")
        run.write_images((image.image_id, image.label) for image in images)
        files = prepare_files(
            session.prepare_request(wanted.model, None, str(image_set.root.resolve()), images),
            log=run.log_path("prepare"),
            threads=host.allowed_cores(),
            timeout_seconds=600,
        )
        case = Case(
            wanted.model, files["weights"], "onnxruntime", batch=wanted.batch, threads=host.allowed_cores()
        )
        context = Context(run=str(run.path), data=str(image_set.root.resolve()), files=files)
        worker = wire.LocalWorker(run.log_path(case.case_id), case.threads)
        worker.call(
            {"do": "start", "case": case.to_dict(), "context": dataclasses.asdict(context)},
            timeout_seconds=120,
        )
        backend = OnnxRuntime()
        backend.load(case, ModelFiles(**files))
        session_ = backend._session
        feed = {session_.get_inputs()[0].name: first_batch(case, context)}
        bare: list[list[int]] = []
        for _ in range(10):
            bare_slice(session_, feed)
            worker.call({"do": "turn", "round": -1, "slice_ns": SLICE_NS}, timeout_seconds=120)
        for round_ in range(wanted.rounds):
            if round_ % 2:
                bare.append(bare_slice(session_, feed))
            worker.call({"do": "turn", "round": round_, "slice_ns": SLICE_NS}, timeout_seconds=120)
            if not round_ % 2:
                bare.append(bare_slice(session_, feed))
        worker.call({"do": "finish"}, timeout_seconds=120)
        run.append_case(CaseResult(case, Status.OK))
        worker.stop()
        samples = run.samples()
    harness = samples[~samples["warmup"]]
    medians = harness.groupby("round")["latency_ns"].median().to_numpy()
    interval = stats.ratio_interval(medians, np.array([np.median(part) for part in bare]))
    bare_ms = float(np.median(np.concatenate(bare))) / 1e6
    harness_ms = float(harness["latency_ns"].median()) / 1e6
    print(f"{wanted.model}, batch {wanted.batch}, {case.threads} threads, {wanted.rounds} rounds in turns")
    print(f"bare loop {bare_ms:.3f} ms, harness {harness_ms:.3f} ms")
    print(f"ratio of medians {harness_ms / bare_ms:.4f}; by round {interval.ratio:.4f}", end="")
    print(f" (95 % interval {interval.low:.4f} to {interval.high:.4f})")
    return int(abs(harness_ms / bare_ms - 1) > LIMIT)


def bare_slice(session_: object, feed: dict[str, np.ndarray]) -> list[int]:
    """A slice of the bare loop: its first call is not counted, as in the harness."""
    taken: list[int] = []
    started = time.perf_counter_ns()
    while len(taken) < 6 or time.perf_counter_ns() - started < SLICE_NS:
        before = time.perf_counter_ns()
        session_.run(None, feed)  # type: ignore[attr-defined]
        taken.append(time.perf_counter_ns() - before)
    return taken[1:]


if __name__ == "__main__":
    sys.exit(main())
