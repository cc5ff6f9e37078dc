"""Has a worker build a model's files, so that the process that drives a run never imports a framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import wire
from bench.backends.base import Unavailable
from bench.case import Status
from models.errors import BenchError


class PreparationFailed(BenchError):
    """Preparing broke in a way that only its log explains."""


def prepare_files(request: dict[str, Any], log: Path, threads: int, timeout_seconds: float) -> dict[str, Any]:
    """Has a worker build the model's files, so that this process never imports a framework.

    Returns:
        ``ModelFiles`` as plain JSON types.

    Raises:
        BenchError: the model or its checkpoint is at fault.
        PreparationFailed: building took too long, crashed or met a bug.
        Unavailable: a package that the model needs is missing.
    """
    worker = wire.LocalWorker(log, threads)
    whole_log = f"The whole log is {log}."
    try:
        answer = worker.call({"do": "prepare", "request": request}, timeout_seconds)
    except wire.WorkerTimeout:
        what = f"preparing the model took longer than {timeout_seconds:g} s"
        raise PreparationFailed(what, f"Give a larger --timeout. {whole_log}") from None
    except wire.WorkerDied as death:
        what = f"preparing the model failed: the worker was {death.cause}; its last words: {death.last_words}"
        raise PreparationFailed(what, whole_log) from None
    except KeyboardInterrupt:
        worker.kill()
        raise
    worker.stop()
    if answer["ok"]:
        files: dict[str, Any] = answer["files"]
        return files
    if answer["status"] == Status.UNAVAILABLE.value:
        raise Unavailable(answer["reason"])
    if "do" in answer:
        raise BenchError(answer["reason"], answer["do"])
    raise PreparationFailed(f"preparing the model failed: {answer['reason']}", whole_log)
