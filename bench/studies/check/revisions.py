"""This tree against another revision of this project: a git worktree of it, and workers that run its code.

A worker of another revision runs the same Python with the same packages; only the folder that ``bench``, ``export``,
``models`` and ``pipelines`` come from differs. It says which folder that is before anything else (see
``bench.studies.check.introduction``), and the proof of each of its rows keeps it.

A worker does not know that it is one of two. It is sent the Case without the labels that tell the copies apart, so that
no backend of any revision has to know them, and a run's folder of its own, out of which its samples are taken over.

Runner and worker are then of different versions. What a worker is sent is cut down to what it needs, so that a field
that one version has and the other lacks does not matter while it is at its default; what it answers is looked at
before the runner relies on it. Where that does not do, the revisions cannot be compared, and a ``BenchError`` says so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import host
from bench.backends.base import ModelFiles
from bench.record import raw_tables
from bench.record.case import Case
from bench.record.run_folder import RunFolder
from bench.run.images import working
from bench.run.model_files import why_unprepared
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.check import introduction
from bench.studies.check.pairs import REVISION, THIS, Ended, Sides, carry_out, check
from bench.worker import channel
from bench.worker.messages import Context, Progress
from scarlet.errors import BenchError, error_text

# Set in hooks of git: they would send us to another repository, or to an index that is being committed.
_GIT_VARIABLES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR")
ID_LENGTH = 12  # of a commit in a Case's options

# To start a process, import and answer; without it a program that is no worker would be waited for as for a Case.
HANDSHAKE_SECONDS = 120.0

# What the runner reads in an answer.
_ANSWERS = {
    "prepare": {"files"},
    "turn": {field.name for field in fields(Progress)},
    "finish": {"stage", "metrics", "proof", "bad_images"},
}

WORKERS = "workers"  # in the run's folder: the workers' own folders, while they live


@dataclass(frozen=True)
class Revision:
    """A state of this project's files.

    Attributes:
        name: as people call it: ``this tree``, or what was given, such as ``HEAD~1``.
        commit: the commit it is, or stems from.
        dirty: whether it differs from that commit.
        home: the folder with its packages.
    """

    name: str
    commit: str
    dirty: bool
    home: Path

    @property
    def label(self) -> str:
        """``HEAD~1 (5f9e716b)``."""
        return f"{self.name} ({self.commit[:8]}{', changed' if self.dirty else ''})"


@dataclass(frozen=True)
class Side:
    """A revision ready to be measured.

    Attributes:
        revision: which.
        files: what it prepared, with its own code, for its own workers: ``ModelFiles`` as plain JSON types.
        sources_sha256: digest of its Python files: see ``bench.studies.check.introduction``.
    """

    revision: Revision
    files: Mapping[str, Any]
    sources_sha256: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        files = {name: self.files.get(name) for name in ("weights", "weights_sha256", "onnx_sha256")}
        home = str(self.revision.home)
        return {**asdict(self.revision), "home": home, "sources_sha256": self.sources_sha256, **files}


def run(
    ref: str,
    spec: RunSpec,
    out: Path | None,
    console: Console,
    tolerance: float | None = None,
    home: Path | None = None,
) -> Ended:
    """Benchmarks this tree and another revision in turns; leaves a run's folder behind.

    Args:
        ref: the other revision: a commit, branch or tag.
        out: folder for the run; a new one in ``results/runs`` where None.
        tolerance: how much slower is still a pass, as a share; the machine's materiality where None.
        home: folder of this tree's packages; those of this process where None.

    Raises:
        BenchError: the revision, the options, the data or the output folder are at fault, or the revisions are too
            far apart to be compared.
    """
    check(spec, tolerance)
    this = this_revision(home or channel.own_home())
    spec = spec.but(scenarios="latency")
    with worktree(this.home, ref) as other, Session.open(spec, out, console, "against") as session:
        sides: dict[str, Side] = {}
        for name, each in ((THIS, this), (other.commit[:ID_LENGTH], other)):
            with working(console, f"preparing the model with the code of {each.label}"):
                log = session.folder.log_path("prepare-this" if each is this else "prepare-other")
                sides[name] = prepare(each, session.request, log, spec.timeout_seconds)

        def make_worker(case: Case) -> channel.WorkerHandle:
            side = sides[case.option(REVISION)]
            log = session.folder.log_path(case.case_id)
            return RevisionWorker(side.revision, log, case.threads * case.instances, side)

        described = {name: side.to_dict() for name, side in sides.items()}
        files, notes = ModelFiles.from_dict(sides[THIS].files), notes_on(*sides.values())
        ended = carry_out(session, Sides(described, (this.label, other.label), notes, files, make_worker), tolerance)
        shutil.rmtree(session.folder.path / WORKERS, ignore_errors=True)
    return ended


def notes_on(this: Side, other: Side) -> tuple[str, ...]:
    """What the two sides have in common that they need not, or do not that they should."""
    notes = ["the Python files of both are the same"] if this.sources_sha256 == other.sources_sha256 else []
    for what, digest in (("weights", "weights_sha256"), ("ONNX graphs", "onnx_sha256")):
        if this.files.get(digest) != other.files.get(digest):
            notes.append(f"each measured its own {what}: they differ")
    return tuple(notes)


def this_revision(home: Path) -> Revision:
    """The tree as it is, changes and new files included.

    Raises:
        BenchError: it is no checkout.
    """
    state = host.git_revision(home / "bench")
    if state is None:
        raise BenchError(
            f"{home} is no git checkout: there is no other revision to compare with",
            "Clone the repository, and run this in the clone.",
        )
    return Revision("this tree", state["commit"], bool(state["dirty"]), home)


@contextmanager
def worktree(home: Path, ref: str) -> Iterator[Revision]:
    """Another revision's files, in a git worktree in a temporary folder, gone when this ends.

    Args:
        home: the folder with this revision's packages, in a git checkout.
        ref: a commit, branch or tag.

    Raises:
        BenchError: there is no such revision, or git cannot make the worktree.
    """
    found = _git(home, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    if found.returncode or not found.stdout.strip():
        said = f": {error_text(found.stderr)}" if found.stderr.strip() else ""
        raise BenchError(
            f"'{ref}' is no revision of {home}{said}",
            "Name a commit, branch or tag, such as HEAD~1; in a shallow clone run first: git fetch --unshallow",
        )
    commit, prefix = found.stdout.strip(), _git(home, "rev-parse", "--show-prefix").stdout.strip()
    parent = Path(tempfile.mkdtemp(prefix="scarlet-bench-")).resolve()
    tree = parent / "tree"
    try:
        # Hooks are for people's own checkouts.
        made = _git(home, "-c", f"core.hooksPath={os.devnull}", "worktree", "add", "--detach", str(tree), commit)
        if made.returncode:
            raise BenchError(
                f"git cannot make a worktree of '{ref}': {error_text(made.stderr)}",
                "Free some space in the temporary folder, or see what git says of the repository: git fsck",
            )
        yield Revision(ref, commit, False, tree / prefix)
    finally:
        # Twice forced: a worktree that was interrupted while it was made is locked.
        _git(home, "worktree", "remove", "--force", "--force", str(tree))
        shutil.rmtree(parent, ignore_errors=True)


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_VARIABLES}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0"}
    try:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, env=environment)
    except FileNotFoundError:
        raise BenchError("git is not installed", "Install git: it makes the other revision's files.") from None


class RevisionWorker(channel.LocalWorker):
    """A worker process that runs a revision's code; to the runner it is a worker like any other.

    Args:
        revision: whose code.
        log, threads: as ``LocalWorker`` takes them.
        side: what the revision prepared; None for the worker that prepares it.

    Raises:
        BenchError: it does not start, runs other code than it should, or speaks another protocol.
    """

    def __init__(self, revision: Revision, log: Path, threads: int, side: Side | None = None) -> None:
        self._revision, self._side = revision, side
        self._case: Case | None = None
        self._run = RunFolder(Path())
        program = f"import runpy; runpy.run_path({introduction.__file__!r}, run_name='__main__')"
        super().__init__(log, threads, revision.home, program)
        try:
            self.introduction = self._introduced()
        except BaseException:
            self.kill()
            raise

    def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
        """As ``LocalWorker.ask``; the answer to ``finish`` has, in its proof under ``code``, what code ran.

        Raises:
            BenchError: the answer is not one that the runner understands.
        """
        what = str(request["do"])
        if what == "start":
            request = self._begin(request)
        try:
            answer = super().ask(request, timeout_seconds)
            if missing := sorted(_ANSWERS.get(what, set()) - answer.keys()):
                raise KeyError(", ".join(missing))
        except (ValueError, TypeError, KeyError) as error:
            said = f"its answer to '{what}' is not what it should be"
            raise self._stranger(f"{said} ({type(error).__name__}: {error_text(error)})") from None
        if what == "finish":
            self._take_over(str(answer["stage"]))
            revision = self._revision
            named = {"revision": revision.name, "commit": revision.commit, "dirty": revision.dirty}
            answer = {**answer, "proof": {**answer["proof"], "code": {**named, **self.introduction}}}
        return answer

    def _introduced(self) -> dict[str, Any]:
        try:
            first = self.read(HANDSHAKE_SECONDS)
            if self._side is None:
                # No revision knows this message; that it is answered at all is what counts.
                self.call({"do": "hello"}, HANDSHAKE_SECONDS)
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
        what = f"the worker of {self._revision.label} cannot be talked to: {why}"
        return BenchError(what, "Compare with a revision nearer to this one.")

    def _begin(self, message: channel.Message) -> channel.Message:
        """The bare Case, the revision's own files, and no field at its default: that is how fields come in later."""
        case, context = Case.from_dict(message["case"]), Context.from_dict(message["context"])
        self._case, self._run = case, RunFolder(Path(context.run))
        own, bare = self._run.path / WORKERS / case.case_id, case.without(REVISION)
        shutil.rmtree(own, ignore_errors=True)  # of a worker that was killed
        RunFolder.create(own).write_images(self._run.read_images())
        files = {} if self._side is None else {"files": dict(self._side.files)}
        return {
            **message,
            "case": _without_defaults(bare.to_dict(), bare),
            "context": {**_without_defaults(message["context"], context), "run": str(own), **files},
        }

    def _take_over(self, stage: str) -> None:
        """Moves the samples out of the worker's own folder."""
        if self._case is None:
            return
        own = self._run.path / WORKERS / self._case.case_id
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
    try:
        worker = RevisionWorker(revision, log, int(request["threads"]))
        with worker:
            answer = worker.ask({"do": "prepare", "request": dict(request)}, timeout_seconds)
            return Side(revision, answer["files"], str(worker.introduction["sources_sha256"]))
    except channel.WorkerFailed as failure:
        raise why_unprepared(failure, log, revision.label) from None
