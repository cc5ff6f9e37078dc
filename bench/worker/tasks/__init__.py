"""What a worker does with its Case, one file a scenario. Each works in turns and writes its own files."""

from __future__ import annotations

from collections.abc import Callable

from bench.backends.base import Backend
from bench.record.case import Case
from bench.worker.messages import Context
from bench.worker.tasks.accuracy import AccuracyTask
from bench.worker.tasks.base import Task
from bench.worker.tasks.latency import LatencyTask, first_batch
from bench.worker.tasks.throughput import ThroughputTask

__all__ = ["Task", "first_batch", "make_task"]

TASKS: dict[str, Callable[[Case, Backend, Context], Task]] = {
    "accuracy": AccuracyTask,
    "latency": LatencyTask,
    "throughput": ThroughputTask,
}


def make_task(case: Case, backend: Backend, context: Context) -> Task:
    """The task of the Case's scenario, with the backend already loaded."""
    return TASKS[case.scenario](case, backend, context)
