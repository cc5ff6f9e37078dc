"""How much processor time the waiting workers of a run take.

    python docs/experiments/idle_workers.py [--seconds 10]

Starts twelve Cases (PyTorch and ONNX Runtime, six batch sizes), lets each compute once, then lets all wait and reads
their processor time from /proc. Then one of them computes while the eleven others wait. Exit code 1 when the waiting
workers together take 3 % of a core or more.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

from common import prepared

from bench.worker import channel

LIMIT = 0.03
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    wanted = parser.parse_args()
    with prepared() as model:
        cases = [
            model.case(backend, batch=batch)
            for backend in ("pytorch", "onnxruntime", "openvino")
            for batch in (1, 2, 3, 4, 6, 8)
        ]
        run = model.folder("idle", cases)
        context = model.context(run).to_dict()
        workers = []
        for case in cases:
            worker = channel.LocalWorker(run.log_path(case.case_id), case.threads)
            worker.ask({"do": "start", "case": case.to_dict(), "context": context}, 300)
            worker.ask({"do": "turn", "round": -1, "slice_ns": 0}, 300)
            workers.append(worker)
        waiting = share_of(workers, lambda: time.sleep(wanted.seconds))

        def one_computes() -> None:
            ended = time.monotonic() + wanted.seconds
            while time.monotonic() < ended:
                workers[-1].ask({"do": "turn", "round": 0, "slice_ns": 50_000_000}, 300)

        beside = share_of(workers[:-1], one_computes)
        for worker in workers:
            worker.stop()
    print(f"12 workers waiting: {100 * waiting:.2f} % of one core together")
    print(f"11 workers waiting while one computes: {100 * beside:.2f} % of one core together")
    return int(max(waiting, beside) >= LIMIT)


def share_of(workers: list[channel.LocalWorker], during: object) -> float:
    """Processor time of the workers over wall time, while ``during`` runs."""
    before, started = sum(cpu_seconds(worker.pid) for worker in workers), time.monotonic()
    during()  # type: ignore[operator]
    return (sum(cpu_seconds(worker.pid) for worker in workers) - before) / (time.monotonic() - started)


if __name__ == "__main__":
    sys.exit(main())
