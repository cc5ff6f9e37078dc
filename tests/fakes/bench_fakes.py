"""What the tests of this folder share: a graph of one layer, a listener that remembers, Cases of the fake backend."""

import gc
import json
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.backends.base import ModelFiles
from bench.record.case import Case
from bench.record.run_folder import CaseResult, RunFolder
from bench.worker import channel
from bench.worker.channel import WorkerHandle
from bench.worker.serve import WithoutPandas, Worker

WNIDS = ("n01440764", "n01443537", "n01484850")  # the first three of the sorted 1000


def make_graph(batch: str | int, classes: int = 1000, size: int = 224) -> onnx.ModelProto:
    """A graph from ``(batch, 3, size, size)`` to ``(batch, classes)``."""
    weight = np.random.default_rng(1).standard_normal((3, classes)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def tiny_files(onnx: Path | str = "") -> ModelFiles:
    """The files of a model that somebody gave as this graph."""
    return ModelFiles("onnx:tiny.onnx", "user", "0" * 64, str(onnx), "0" * 64)


def run_on(path: Path, image_folder: Path, cases: Iterable[Case] = ()) -> RunFolder:
    """A new run's folder that knows these Cases and the labelled images of a folder."""
    folder = RunFolder.create(path)
    plan = {"cases": [case.to_dict() for case in cases]}
    folder.write_run_info({"created_at": "2026-01-01T00:00:00+00:00", "plan": plan})
    names = sorted(file.relative_to(image_folder).as_posix() for file in image_folder.rglob("*.JPEG"))
    folder.write_images((name, WNIDS.index(name.split("/")[1])) for name in names)
    return folder


# A worker that also says what it has imported.
SAYS_MODULES = (
    "import sys\n"
    "from bench.worker import main, serve\n"
    "answer = serve.Worker.answer\n"
    "serve.Worker.answer = lambda own, asked: {**answer(own, asked), 'modules': list(sys.modules)}\n"
    "main()\n"
)


class Answer(NamedTuple):
    """Exit code of a command, what it printed, and what it complained of."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


class Ends(AbstractContextManager[Any]):
    """A worker that remembers how it was ended."""

    pid, ended = 1, ""

    def __exit__(self, *raised: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.ended = "stopped"

    def kill(self) -> None:
        self.ended = "killed"


class HereWorker(Ends):
    """A worker without a process of its own; ``fails`` on its third request where it is told to."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.worker, self.requests, self.fails = Worker(), 0, fails

    def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
        self.requests += 1
        if self.fails and self.requests == 3:
            raise self.fails
        answer: dict[str, Any] = json.loads(json.dumps(channel.reply(self.worker.answer, request)))
        # What it does to a process that is to end soon.
        gc.unfreeze()
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not WithoutPandas]
        return channel.checked(answer)


class Clock:
    """Seconds that pass where workers say so: what their turns took, and so many for a start."""

    def __init__(self, start_seconds: float = 0.0) -> None:
        self.seconds, self.start_seconds, self._lock = 0.0, start_seconds, threading.Lock()

    def __call__(self) -> float:
        return self.seconds

    def of(self, worker: WorkerHandle) -> WorkerHandle:
        """The worker, with its requests on this clock."""
        ask = worker.ask

        def timed(request: channel.Message, timeout_seconds: float) -> channel.Message:
            answer = ask(request, timeout_seconds)
            with self._lock:
                self.seconds += answer.get("busy_ns", 0) / 1e9
                self.seconds += self.start_seconds if request["do"] == "start" else 0.0
            return answer

        worker.ask = timed  # type: ignore[method-assign]
        return worker


class Scripted(Ends):
    """A worker that gives prepared answers, one after the other; those that are exceptions are raised."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers, self.requests = answers, list[channel.Message]()

    def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return channel.checked(answer)


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.started: list[Case] = []
        self.ended: list[CaseResult] = []
        self.turns: list[str] = []
        self.notes: list[str] = []

    def case_started(self, case: Case) -> None:
        self.started.append(case)

    def progress(self, case: Case, fraction: float, detail: str) -> None:
        self.turns.append(case.case_id)

    def case_ended(self, result: CaseResult) -> None:
        self.ended.append(result)

    def note(self, text: str) -> None:
        self.notes.append(text)


def fake_case(scenario: str = "latency", batch: int = 1, **options: str) -> Case:
    """A Case of the fake backend with these options."""
    return Case(
        model="onnx:tiny.onnx",
        weights="user",
        backend="fake",
        pipeline="reference",
        batch=batch,
        scenario=scenario,
        options=tuple(sorted(options.items())),
    )
