"""The worker's process: prepares a model, or runs one Case turn by turn, as the runner says."""

from __future__ import annotations

import gc
import json
import os
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from bench.backends import make_backend
from bench.backends.base import Backend, Unavailable, Unsupported
from bench.backends.instances import Instances
from bench.host import memory
from bench.host.memory import peak_rss_bytes
from bench.record.case import Case, Status
from bench.worker import channel
from bench.worker.footprint import EnergyAccount, model_file_bytes
from scarlet.errors import BenchError

# Out of memory has no type of its own in the runtimes: this is how they say it.
OOM_WORDS = ("out of memory", "can't allocate memory", "failed to allocate memory", "bad_alloc")


class Worker:
    """Answers messages. One Case in its life."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._task: Any = None
        self._load_ns = 0
        self._file_bytes: int | None = None
        self._energy = EnergyAccount.open()

    def answer(self, message: channel.Message) -> channel.Message:
        """One answer for one message; whatever is raised becomes a status and a reason."""
        handlers: dict[str, Callable[[channel.Message], dict[str, Any]]] = {
            "prepare": self._prepare,
            "parity": self._parity,
            "start": self._start,
            "turn": self._turn,
            "finish": self._finish,
        }
        try:
            return {"ok": True, **handlers[message["do"]](message)}
        except BenchError as mistake:
            stage = {"stage": mistake.stage} if mistake.stage else {}
            return {"ok": False, "status": "failed", "reason": mistake.what, "do": mistake.do, **stage}
        except (
            Exception
        ) as error:  # whatever a runtime raises is the Case's result, with its traceback in the log
            traceback.print_exc()
            status, reason = classify(error)
            return {"ok": False, "status": status.value, "reason": reason}

    def _prepare(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker.prepare import Request, prepare

        return {"files": prepare(Request(**message["request"])).to_dict(), "peak_rss_bytes": peak_rss_bytes()}

    def _parity(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker.pixel_parity import Request, answer

        return answer(Request(**message["request"]))

    def _start(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker.tasks import Context, make_task

        case, context = Case.from_dict(message["case"]), Context(**message["context"])
        self._backend = (
            make_backend(case.backend)
            if case.instances == 1
            else Instances(lambda: make_backend(case.backend))
        )
        started = time.perf_counter_ns()
        self._backend.load(case, context.model_files)
        self._load_ns = time.perf_counter_ns() - started
        self._file_bytes = model_file_bytes(case, context.model_files)
        self._task = make_task(case, self._backend, context)
        # A collection in the middle of a sample is our noise, not the backend's latency.
        gc.collect()
        gc.freeze()
        return {"load_ns": self._load_ns}

    def _turn(self, message: channel.Message) -> dict[str, Any]:
        worked_on = getattr(self._task, "images_worked_on", 0)
        gc.disable()
        before = self._energy.meter.read()
        try:
            progress = asdict(self._task.turn(message["round"], message["slice_ns"]))
        finally:
            gc.enable()
        if message["round"] >= 0:
            self._energy.joules += self._energy.meter.joules(before, self._energy.meter.read())
            self._energy.images += getattr(self._task, "images_worked_on", 0) - worked_on
        return progress

    def _finish(self, message: channel.Message) -> dict[str, Any]:
        assert self._backend is not None
        peak = peak_rss_bytes()  # before the tools that write the results are imported
        proof = self._backend.proof()
        outcome = self._task.finish(message.get("stop_reason", ""))
        fallback = " and ".join(filter(None, [proof.get("fallback", ""), outcome.fallback]))
        self._task.close()
        self._backend.close()
        metrics = {
            **outcome.metrics,
            "load_ns": self._load_ns,
            "peak_rss_bytes": peak,
            # A TensorRT plan is made of the graph; its size is in the proof.
            "model_file_bytes": proof.get("plan_bytes", self._file_bytes),
            **self._energy.metrics(),
        }
        return {
            "stage": outcome.stage,
            "metrics": metrics,
            "proof": {**proof, "fallback": fallback, "process_threads": memory.thread_count()},
            "bad_images": [dict(bad) for bad in outcome.bad_images],
        }


def classify(error: BaseException) -> tuple[Status, str]:
    """The status that an exception of a backend or pipeline means, and its reason on one line."""
    from pipelines.base import PipelineUnavailable, PipelineUnsupported

    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, (Unavailable, PipelineUnavailable)):
        return Status.UNAVAILABLE, str(error)
    if isinstance(error, (Unsupported, PipelineUnsupported)):
        return Status.UNSUPPORTED, str(error)
    if isinstance(error, MemoryError) or any(word in reason.lower() for word in OOM_WORDS):
        return Status.OOM, f"{reason}; use a smaller --batches or free memory"
    return Status.FAILED, f"{reason}; its traceback is in the Case's log"


def main() -> None:
    """Reads messages until stdin ends: the runner closed it, or is gone."""
    incoming, outgoing = channel.own_channel()
    worker = Worker()
    for line in iter(incoming.readline, b""):
        outgoing.write(json.dumps(worker.answer(json.loads(line))).encode() + b"\n")
        outgoing.flush()
    # Runtimes with threads of their own sometimes hang or crash while the interpreter takes itself apart.
    os._exit(0)


if __name__ == "__main__":
    main()
