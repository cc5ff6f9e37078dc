"""What a worker does with its Case, one file a scenario. Each works in turns and writes its own files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.backends import load_name
from bench.record.case import LOAD

if TYPE_CHECKING:
    from bench.backends.base import Backend
    from bench.record.case import Case
    from bench.worker.messages import Context
    from bench.worker.tasks.base import Task

# A scenario's file is imported by the workers that take it: no other pays for its libraries.
TASKS = {
    "accuracy": "bench.worker.tasks.accuracy:AccuracyTask",
    "latency": "bench.worker.tasks.latency:LatencyTask",
    "throughput": "bench.worker.tasks.throughput:ThroughputTask",
    **dict.fromkeys(LOAD, "bench.worker.tasks.load:LoadTask"),
}


def make_task(case: Case, backend: Backend, context: Context) -> Task:
    """The task of the Case's scenario, with the backend already loaded."""
    task: Task = load_name(TASKS[case.scenario])(case, backend, context)
    return task
