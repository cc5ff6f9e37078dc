"""Another revision of this project at work beside this one, in workers that run its code.

A worker of another revision runs the same Python with the same packages; only the folder that ``bench``, ``export``,
``models`` and ``pipelines`` come from differs. It says which folder that is before anything else (see
``bench.studies.against.introduction``), and the proof of each of its rows keeps it.

A worker does not know that it is one of two. It is sent the Case without the labels that tell the copies apart, so that
no backend of any revision has to know them, and a run's folder of its own, out of which its samples are taken over.

Runner and worker are then of different versions. What a worker is sent is cut down to what it needs, so that a field
that one version has and the other lacks does not matter while it is at its default; what it answers is looked at
before the runner relies on it. Where that does not do, the revisions cannot be compared, and a ``BenchError`` says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.record import raw_tables
from bench.record.case import Case, Status
from bench.record.run_folder import RunFolder
from bench.run.model_files import why_unprepared
from bench.studies.against import introduction
from bench.studies.against.verdict import REVISION
from bench.studies.against.worktree import Revision
from bench.worker import channel
from bench.worker.messages import Context, Progress
from scarlet.errors import BenchError

# To start a process, import and answer; without it a program that is no worker would be waited for as for a Case.
HANDSHAKE_SECONDS = 120.0

# What the runner reads in an answer that is ok, and in one that is not.
_ANSWERS = {
    "prepare": {"files"},
    "turn": {field.name for field in fields(Progress)},
    "finish": {"stage", "metrics", "proof", "bad_images"},
}
_REASONS = {"status", "reason"}

WORKERS = "workers"  # in the run's folder: the workers' own folders, while they live


@dataclass(frozen=True)
class Side:
    """A revision ready to be measured.

    Attributes:
        revision: which.
        files: what it prepared, with its own code, for its own workers: ``ModelFiles`` as plain JSON types.
        sources_sha256: digest of its Python files: see ``bench.studies.against.introduction``.
    """

    revision: Revision
    files: Mapping[str, Any]
    sources_sha256: str


class RevisionWorker:
    """A worker process that runs a revision's code; to the runner it is a worker like any other.

    Args:
        revision: whose code.
        log: file that takes all the process prints.
        threads: as ``LocalWorker`` takes them.
        side: what the revision prepared; None for the worker that prepares it.

    Raises:
        BenchError: it does not start, runs other code than it should, or speaks another protocol.
    """

    def __init__(self, revision: Revision, log: Path, threads: int, side: Side | None = None) -> None:
        self._revision, self._side = revision, side
        self._case: Case | None = None
        self._run = RunFolder(Path())
        program = f"import runpy; runpy.run_path({introduction.__file__!r}, run_name='__main__')"
        self._worker = channel.LocalWorker(log, threads, revision.home, program)
        try:
            self.introduction = self._introduced()
        except BaseException:
            self._worker.kill()
            raise

    @property
    def pid(self) -> int:
        return self._worker.pid

    def stop(self) -> None:
        """As ``LocalWorker`` does."""
        self._worker.stop()

    def kill(self) -> None:
        """As ``LocalWorker`` does."""
        self._worker.kill()

    def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
        """As ``LocalWorker.ask``; the answer to ``finish`` has, in its proof under ``code``, what code ran.

        Raises:
            BenchError: the answer is not one that the runner understands.
        """
        what = str(request["do"])
        if what == "start":
            request = self._begin(request)
        try:
            answer = self._worker.call(request, timeout_seconds)
        except ValueError:
            raise self._stranger(f"its answer to '{what}' is not JSON") from None
        if not isinstance(answer, dict):
            raise self._stranger(f"its answer to '{what}' is no message")
        wanted = _ANSWERS.get(what, set()) if answer.get("ok") else _REASONS
        missing = sorted(wanted - answer.keys())
        if missing or "ok" not in answer:
            raise self._stranger(f"its answer to '{what}' lacks {', '.join(missing or ['ok'])}")
        if not answer["ok"] and answer["status"] not in [status.value for status in Status]:
            raise self._stranger(f"its answer to '{what}' has a status '{answer['status']}'")
        channel.checked(answer)
        if what == "finish":
            self._take_over(str(answer["stage"]))
            revision = self._revision
            named = {"revision": revision.name, "commit": revision.commit, "dirty": revision.dirty}
            answer = {**answer, "proof": {**answer["proof"], "code": {**named, **self.introduction}}}
        return answer

    def _introduced(self) -> dict[str, Any]:
        try:
            first = self._worker.read(HANDSHAKE_SECONDS)
            if self._side is None:
                # No revision knows this message; that it is answered at all is what counts.
                self._worker.call({"do": "hello"}, HANDSHAKE_SECONDS)
            said = dict(first["introduction"])
        except channel.WorkerFailed as failure:
            raise self._stranger(failure.reason) from None
        except (ValueError, TypeError, KeyError):
            raise self._stranger("it does not say who it is") from None
        for name in introduction.PACKAGES:
            folders = [Path(folder).resolve() for folder in said["packages"].get(name, ())]
            # An older revision has "models", this one "scarlet"; what is there must be the revision's own.
            absent = name in ("models", "scarlet") and not (self._revision.home / name / "__init__.py").exists()
            if folders != ([] if absent else [(self._revision.home / name).resolve()]):
                raise self._stranger(f"there is no package '{name}' in it")
        if said["protocol"] != channel.PROTOCOL:
            raise self._stranger(f"it speaks protocol {said['protocol']}, and this tree speaks {channel.PROTOCOL}")
        if self._side is not None and said["sources_sha256"] != self._side.sources_sha256:
            raise BenchError(
                f"the code of {self._revision.name} changed while it was measured",
                "Measure again, and leave the Python files alone meanwhile.",
            )
        return said

    def _stranger(self, why: str) -> BenchError:
        return BenchError(
            f"the worker of {self._revision.label} cannot be talked to: {why}",
            "Compare with a revision nearer to this one.",
        )

    def _begin(self, message: channel.Message) -> channel.Message:
        """The bare Case, the revision's own files, and no field at its default: that is how fields come in later."""
        case, context = Case.from_dict(message["case"]), Context.from_dict(message["context"])
        self._case, self._run = case, RunFolder(Path(context.run))
        own, bare = self._own_folder(case), case.without(REVISION)
        shutil.rmtree(own, ignore_errors=True)  # of a worker that was killed
        RunFolder.create(own).write_images(self._run.read_images())
        files = {} if self._side is None else {"files": dict(self._side.files)}
        return {
            **message,
            "case": _without_defaults(bare.to_dict(), bare),
            "context": {**_without_defaults(message["context"], context), "run": str(own), **files},
        }

    def _own_folder(self, case: Case) -> Path:
        return self._run.path / WORKERS / case.case_id

    def _take_over(self, stage: str) -> None:
        """Moves the samples out of the worker's own folder."""
        if self._case is None:
            return
        own = self._own_folder(self._case)
        samples = raw_tables.read(own, "samples", {self._case.without(REVISION).case_id: None})
        samples = samples[samples["stage"].astype(str) == stage]
        columns = {name: samples[name].to_numpy() for name in ("round", "images", "warmup", "latency_ns")}
        self._run.write_samples_part(self._case.case_id, stage=stage, **columns)
        shutil.rmtree(own)


def _without_defaults(message: Mapping[str, Any], record: Case | Context) -> dict[str, Any]:
    left_out = {field.name for field in fields(record) if getattr(record, field.name) == field.default}
    return {name: value for name, value in message.items() if name not in left_out}


def prepare(revision: Revision, request: Mapping[str, Any], log: Path, timeout_seconds: float) -> Side:
    """Has a revision prepare the model with its own code.

    The store of artefacts is shared. Its keys hold what decides the content (the network's sources, the exporter's
    source, the packages' versions, the weights): what did not change is found there, and what did is made anew.

    Raises:
        BenchError: the revision's worker cannot be talked to, or the model is at fault.
        PreparationFailed: building took too long, crashed or met a bug.
    """
    worker = RevisionWorker(revision, log, int(request["threads"]))
    try:
        answer = worker.ask({"do": "prepare", "request": dict(request)}, timeout_seconds)
    except channel.WorkerFailed as failure:
        worker.kill()
        raise why_unprepared(failure, log, revision.label) from None
    except BaseException:
        worker.kill()
        raise
    worker.stop()
    return Side(revision, answer["files"], str(worker.introduction["sources_sha256"]))
