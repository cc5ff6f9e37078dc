"""OpenVINO rows against OpenVINO's own benchmark_app: the same file, settings and pixels, in alternating rounds.

    python tests/benchmarks/benchmark_app.py [--rounds 12] [--seconds 2] [--batch 1] [--threads 2]

In each round a latency Case of ours takes a turn and benchmark_app runs once, in an order that alternates. Both have
one compiled model for the static shape of the batch, one stream, FP32 and synchronous calls; ours times whole calls
from Python, benchmark_app takes what the runtime says that the inference took. Prints the ratio of the medians
(ours / theirs) with its sign-test interval. Exit code 1 where the whole interval lies more than 3 % from equal.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from common import Prepared, prepared

from bench import host, stats, wire
from bench.case import Case
from bench.tasks import first_batch

LIMIT = 0.03

# Without its telemetry, like ours.
APP = (
    "import sys; sys.modules['openvino_telemetry'] = None; "
    "from openvino.tools.benchmark.main import main; sys.exit(main())"
)
MEDIAN = re.compile(r"Median:\s+([0-9.]+) (us|ms)")


def app_median_ns(graph: str, pixels: Path, case: Case, seconds: float) -> float:
    """The median latency that benchmark_app reports, of a process of its own."""
    shape = ",".join(map(str, np.load(pixels, mmap_mode="r").shape))
    # It lets threads and streams be set with the hint none only; the plugin's default is then latency.
    settings = [*("-hint", "none"), *("-nstreams", "1"), *("-nthreads", str(case.threads))]
    # An input of three channels it takes for an image, and would feed with bytes and a conversion added.
    settings += [*("-ip", "f32"), *("-infer_precision", "f32"), *("-api", "sync"), *("-shape", f"[{shape}]")]
    command = [sys.executable, "-c", APP, "-m", graph, "-d", "CPU", "-i", str(pixels), *settings]
    done = subprocess.run([*command, "-t", str(round(seconds))], capture_output=True, text=True, check=False)
    found = MEDIAN.search(done.stdout)
    if done.returncode or found is None:
        raise SystemExit(f"benchmark_app failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return float(found[1]) * {"us": 1e3, "ms": 1e6}[found[2]]


def compare(model: Prepared, case: Case, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """The medians of each round in ns: ours, theirs."""
    run = model.folder("ours", [case])
    context = model.context(run)
    pixels = run.path / "pixels.npy"
    np.save(pixels, first_batch(case, context))
    worker = wire.LocalWorker(run.log_path(case.case_id), case.threads)

    def turn(round_: int) -> float:
        message = {"do": "turn", "round": round_, "slice_ns": round(seconds * 1e9)}
        answer = worker.call(message, 600)
        if not answer["ok"]:
            raise SystemExit(answer["reason"])
        return float(answer["median_ns"])

    ours: list[float] = []
    theirs: list[float] = []
    try:
        started = worker.call(
            {"do": "start", "case": case.to_dict(), "context": dataclasses.asdict(context)}, 300
        )
        if not started["ok"]:
            raise SystemExit(started["reason"])
        turn(-1)
        for number in range(rounds):
            halves = [
                lambda number=number: ours.append(turn(number)),
                lambda: theirs.append(app_median_ns(model.files["onnx"], pixels, case, seconds)),
            ]
            for half in halves if number % 2 == 0 else reversed(halves):
                half()
            print(
                f"round {number + 1:2}: ours {ours[-1] / 1e6:.3f} ms, benchmark_app {theirs[-1] / 1e6:.3f} ms, "
                f"ratio {ours[-1] / theirs[-1]:.4f}",
                flush=True,
            )
    finally:
        worker.stop()
    return ours, theirs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scarlet_c")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each half of a round, whole seconds")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=host.allowed_cores())
    wanted = parser.parse_args()
    with prepared(wanted.model) as model:
        case = model.case("openvino", batch=wanted.batch, threads=wanted.threads, pipeline="reference")
        ours, theirs = compare(model, case, wanted.rounds, wanted.seconds)
    ratio = stats.ratio_interval(ours, theirs)
    interval = "too few rounds for an interval"
    if ratio.low is not None and ratio.high is not None:
        interval = f"95 % interval {ratio.low:.4f} to {ratio.high:.4f}"
    print(
        f"OpenVINO FP32, batch {wanted.batch}, {wanted.threads} threads, {wanted.rounds} rounds: "
        f"ours / benchmark_app {ratio.ratio:.4f}, {interval}"
    )
    if ratio.low is None or ratio.high is None:
        return 0
    return int(ratio.low > 1 + LIMIT or ratio.high < 1 / (1 + LIMIT))


if __name__ == "__main__":
    sys.exit(main())
