"""The worker's process: prepares a model, or runs one Case turn by turn, as the runner says."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from typing import Any

from bench.backends import make_backend
from bench.backends.base import Backend
from bench.backends.cuda import distance_from_cpu, named_range
from bench.backends.instances import Instances
from bench.host import memory
from bench.host.memory import peak_rss_bytes
from bench.record.case import IN_MEMORY, Case
from bench.worker import channel
from bench.worker.footprint import EnergyAccount, model_file_bytes


class Worker:
    """Answers messages. One Case in its life."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._task: Any = None
        self._load_ns = 0
        self._file_bytes: int | None = None
        self._energy = EnergyAccount.open()  # until the Case is known
        self._compare: Callable[[], dict[str, Any]] = dict
        self._range: Callable[[str], AbstractContextManager[Any]] = nullcontext

    def answer(self, message: channel.Message) -> channel.Message:
        """The answer to a message; ``channel.reply`` makes a refusal of what is raised."""
        handlers: dict[str, Callable[[channel.Message], dict[str, Any]]] = {
            "describe": self._describe,
            "prepare": self._prepare,
            "parity": self._parity,
            "digests": self._digests,
            "conventions": self._conventions,
            "profile": self._profile,
            "start": self._start,
            "turn": self._turn,
            "finish": self._finish,
        }
        return handlers[message["do"]](message)

    def _describe(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker.prepare import Request, describe

        return describe(Request(**message["request"]))

    def _prepare(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker.prepare import Request, prepare

        return {"files": prepare(Request(**message["request"])).to_dict(), "peak_rss_bytes": peak_rss_bytes()}

    def _parity(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker.pixel_parity import Request, answer

        return answer(Request.from_dict(message["request"]))

    def _digests(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker.pixel_parity import Request
        from pipelines.parity.digests import of_reference

        request = Request.from_dict(message["request"])
        return {"digests": of_reference(request.image_list(), request.preprocess)}

    def _conventions(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker.pixel_parity import Request, try_conventions

        return try_conventions(Request.from_dict(message["request"]))

    def _profile(self, message: channel.Message) -> dict[str, Any]:
        from bench.backends.profiler import record
        from bench.worker.inputs import first_batch
        from bench.worker.pixel_parity import Request

        case, request = Case.from_dict(message["case"]), Request.from_dict(message["request"])
        assert request.files is not None
        pixels = first_batch(case, request.files, request.image_list())
        return {"recording": asdict(record(case, request.files, pixels, message["repeats"]))}

    def _start(self, message: channel.Message) -> dict[str, Any]:
        from bench.worker import inputs
        from bench.worker.messages import Context
        from bench.worker.tasks import make_task

        case, context = Case.from_dict(message["case"]), Context.from_dict(message["context"])
        if case.scenario in IN_MEMORY:
            inputs.decode_ahead(inputs.library(case), context)
        self._backend = (
            make_backend(case.backend) if case.instances == 1 else Instances(lambda: make_backend(case.backend))
        )
        started = time.perf_counter_ns()
        self._backend.load(case, context.files)
        self._load_ns = time.perf_counter_ns() - started
        self._file_bytes = model_file_bytes(case, context.files)
        if case.device == "cuda":
            self._energy = EnergyAccount.open(case.device)
            self._range = named_range
            self._compare = partial(distance_from_cpu, self._backend, case, context.files)
        self._task = make_task(case, self._backend, context)
        # A collection in the middle of a sample is our noise, not the backend's latency.
        gc.collect()
        gc.freeze()
        return {"load_ns": self._load_ns}

    def _turn(self, message: channel.Message) -> dict[str, Any]:
        worked_on = getattr(self._task, "images_worked_on", 0)
        if "cpus" in message:
            keep_on(message["cpus"])
        gc.disable()
        before = self._energy.meter.read()
        try:
            with self._range("warm-up" if message["round"] < 0 else f"round {message['round']}"):
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
        # Only from here on: torch.export and torch.compile ask whether it is there, and take no exception for that.
        sys.meta_path.insert(0, WithoutPandas)
        outcome = self._task.finish(message.get("stop_reason", ""))
        compared = self._compare()
        sentences = (proof.get("fallback", ""), compared.get("fallback", ""), outcome.fallback)
        fallback = " and ".join(filter(None, sentences))
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
            "proof": {**proof, **compared, "fallback": fallback, "process_threads": memory.thread_count()},
            "bad_images": [dict(bad) for bad in outcome.bad_images],
        }


class WithoutPandas:
    """A finder of modules by which a worker that ends has no pandas.

    pyarrow imports it where it is, to ask whether it was given a frame: half of what the end of a worker cost.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """See ``importlib.abc.MetaPathFinder``."""
        if name == "pandas":
            raise ModuleNotFoundError("no module named 'pandas' in a worker", name=name)


def keep_on(cpus: Sequence[int]) -> None:
    """Has all threads of this process run on these cores alone, until it is told others."""
    for thread in os.listdir("/proc/self/task"):
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread), cpus)


def main() -> None:
    """The main loop; the process ends with it."""
    channel.serve(Worker().answer)


if __name__ == "__main__":
    main()
