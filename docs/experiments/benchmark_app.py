"""OpenVINO rows against OpenVINO's own benchmark_app: the same file, settings and pixels, in alternating rounds.

    python docs/experiments/benchmark_app.py [--rounds 16] [--seconds 5] [--batch 1] [--threads 2]

In each round a latency Case of ours and benchmark_app, both in new processes, take turns of a quarter of a second (the
one that waits is stopped). Both have one compiled model for the static shape of the batch, one stream, FP32 and
synchronous calls; ours times whole calls from Python, benchmark_app takes what the runtime says that the inference
took. Prints the ratio of the medians (ours / theirs) with its sign-test interval. Exit code 1 where the whole interval
lies more than 3 % from equal.
"""

from __future__ import annotations

import argparse
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from common import Prepared, prepared

from bench import host
from bench.analysis.stats import intervals
from bench.record.case import Case
from bench.worker import channel
from bench.worker.inputs import first_batch

LIMIT = 0.03
TURN_SECONDS = 0.25

# Without its telemetry, like ours.
APP = (
    "import sys; sys.modules['openvino_telemetry'] = None; "
    "from openvino.tools.benchmark.main import main; sys.exit(main())"
)
# What it prints when its timed calls begin.
BEGINS = "[Step 10/11]"
MEDIAN = re.compile(r"Median:\s+([0-9.]+) (us|ms)")


class App:
    """benchmark_app at work in a process of its own, which can be made to pause."""

    def __init__(self, graph: str, pixels: Path, case: Case, seconds: float) -> None:
        shape = ",".join(map(str, np.load(pixels, mmap_mode="r").shape))
        # It lets threads and streams be set with the hint none only; the plugin's default is then latency.
        settings = [*("-hint", "none"), *("-nstreams", "1"), *("-nthreads", str(case.threads))]
        # An input of three channels it takes for an image, and would feed with bytes and a conversion added.
        settings += [*("-ip", "f32"), *("-infer_precision", "f32"), *("-api", "sync"), *("-shape", f"[{shape}]")]
        command = [sys.executable, "-u", "-c", APP, "-m", graph, "-d", "CPU", "-i", str(pixels), *settings]
        self._process = subprocess.Popen(
            [*command, "-t", str(round(seconds))], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._told: list[str] = []

    def wait_until_it_measures(self) -> None:
        """Returns when the model is loaded and its timed calls begin."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._told.append(line)
            if BEGINS in line:
                return
        self._fail()

    @property
    def measures(self) -> bool:
        """It has not come to its end."""
        return self._process.poll() is None

    def pause(self) -> None:
        """Stops all its threads."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Lets them run again."""
        self._process.send_signal(signal.SIGCONT)

    def median_ns(self) -> float:
        """The median latency that it reports; waits for its end."""
        self._told.append(self._process.communicate()[0])
        found = MEDIAN.search("".join(self._told))
        if self._process.returncode or found is None:
            self._fail()
        assert found is not None
        return float(found[1]) * {"us": 1e3, "ms": 1e6}[found[2]]

    def _fail(self) -> NoReturn:
        raise SystemExit(f"benchmark_app failed:\n{''.join(self._told)[-2000:]}")

    def kill(self) -> None:
        """Ends it, paused or not."""
        self._process.kill()
        self._process.wait()


def one_round(model: Prepared, case: Case, number: int, seconds: float) -> tuple[float, float]:
    """Medians in ns of one round, ours and theirs: both processes are new, and take turns of a fraction of a second.

    A process keeps what chance gave it (where its pages lie, how its threads fell on the cores), and the machine
    changes from second to second. New processes in each round and short turns leave neither to one side.
    """
    run = model.folder(f"ours-{number}", [case])
    context = model.context(run)
    pixels = run.path / "pixels.npy"
    np.save(pixels, first_batch(case, context.files, context.images()))
    worker = channel.LocalWorker(run.log_path(case.case_id), case.threads)
    app = None

    def ask(message: dict[str, Any]) -> Any:
        try:
            return worker.ask(message, 600)
        except channel.WorkerFailed as failure:
            raise SystemExit(failure.line) from None

    try:
        ask({"do": "start", "case": case.to_dict(), "context": context.to_dict()})
        ask({"do": "turn", "round": -1, "slice_ns": round(1e9)})
        app = App(model.files.onnx, pixels, case, 2 * seconds)
        app.wait_until_it_measures()
        time.sleep(1.0)  # its own warm-up
        ours = []
        while app.measures:
            app.pause()
            turn = {"do": "turn", "round": len(ours), "slice_ns": round(TURN_SECONDS * 1e9)}
            ours.append(float(ask(turn)["median_ns"]))
            app.go_on()
            time.sleep(TURN_SECONDS)
        return statistics.median(ours), app.median_ns()
    finally:
        worker.stop()
        if app is not None:
            app.kill()


def compare(model: Prepared, case: Case, rounds: int, seconds: float) -> tuple[list[float], list[float]]:
    """The medians of each round in ns: ours, theirs."""
    ours: list[float] = []
    theirs: list[float] = []
    for number in range(1, rounds + 1):
        mine, its = one_round(model, case, number, seconds)
        ours.append(mine)
        theirs.append(its)
        print(
            f"round {number:2}: ours {mine / 1e6:.3f} ms, benchmark_app {its / 1e6:.3f} ms, ratio {mine / its:.4f}",
            flush=True,
        )
    return ours, theirs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scarlet_c")
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each side in a round, whole seconds")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=host.allowed_cores())
    wanted = parser.parse_args()
    with prepared(wanted.model) as model:
        case = model.case("openvino", batch=wanted.batch, threads=wanted.threads, pipeline="reference")
        ours, theirs = compare(model, case, wanted.rounds, wanted.seconds)
    ratio = intervals.ratio_interval(ours, theirs)
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
