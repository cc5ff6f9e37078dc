"""Measures this tree against another revision of it, or any two of a kind; ``bench.studies.against.verdict`` says what
the figures mean."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.analysis.time import verdict
from bench.backends.base import ModelFiles
from bench.host.disturbance import summary
from bench.record.case import Case
from bench.record.run_folder import utc_now
from bench.report.document import Document, notes
from bench.run import schedule
from bench.run.images import working
from bench.run.progress import make_listener
from bench.run.runner import Order, Runner, Workers
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.against import revision_worker
from bench.studies.against import verdict as against
from bench.studies.against.revision_worker import RevisionWorker, Side, prepare
from bench.studies.against.verdict import THIS, Against, Outcome
from bench.studies.against.worktree import this_revision, worktree
from bench.worker import channel
from bench.worker.channel import WorkerHandle
from scarlet.errors import BenchError

ID_LENGTH = 12  # of a commit in a Case's options


@dataclass(frozen=True)
class Ended:
    """How a comparison of two revisions ended.

    Attributes:
        run: its folder.
        cases: what was timed, without what tells copies apart.
        found: the verdict on each of them.
        tolerance: how much slower is still a pass, as a share.
        revisions: both, for people: this tree and the other.
        notes: what is to be known of them: the same code, other weights, another graph.
        interrupted: the user stopped it.
    """

    run: Path
    cases: tuple[Case, ...]
    found: tuple[Against, ...]
    tolerance: float
    revisions: tuple[str, str]
    notes: tuple[str, ...]
    interrupted: bool

    @property
    def outcome(self) -> Outcome:
        """Over all Cases."""
        return against.overall(self.found)

    @property
    def complaints(self) -> list[tuple[str, Against, str]]:
        """What did not pass: ``error`` or ``warning``, which, and its line."""
        levels = {Outcome.FAIL: "error", Outcome.UNRESOLVED: "warning"}
        return [
            (levels[each.outcome], each, against.text([each], self.tolerance))
            for each in self.found
            if each.outcome in levels
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "run": str(self.run),
            "outcome": self.outcome.value,
            "tolerance": self.tolerance,
            "revisions": list(self.revisions),
            "notes": list(self.notes),
            "cases": [each.to_dict() for each in self.found],
        }


def document(ended: Ended) -> Document:
    """A line for each Case."""
    import pandas as pd

    title = f"{ended.revisions[0]} against {ended.revisions[1]}"
    lines = [*ended.notes, *against.text(ended.found, ended.tolerance).splitlines()]
    frame = pd.DataFrame([each.to_dict() for each in ended.found])
    return Document(title, notes([title, *lines]), ended.to_dict(), {"cases": frame})


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

        def make_worker(case: Case) -> WorkerHandle:
            side = sides[case.option(against.REVISION)]
            log = session.folder.log_path(case.case_id)
            return RevisionWorker(side.revision, log, case.threads * case.instances, side)

        described = {name: _described(side) for name, side in sides.items()}
        mine, theirs = sides.values()
        files, labels, notes_ = ModelFiles.from_dict(mine.files), (this.label, other.label), notes_on(mine, theirs)
        ended = carry_out(session, files, labels, described, make_worker, notes_, tolerance)
        shutil.rmtree(session.folder.path / revision_worker.WORKERS, ignore_errors=True)
    return ended


def check(spec: RunSpec, tolerance: float | None) -> None:
    """Refuses what no pair can be measured by."""
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        what = f"--tolerance {100 * tolerance:g} is not a number above 0"
        raise BenchError(what, "Give per cent, for example --tolerance 5.")
    if spec.lives == 1:
        raise BenchError("--lives 1 does not tell what processes differ by", "Write for example --lives 6.")


def carry_out(
    session: Session,
    files: ModelFiles,
    labels: tuple[str, str],
    described: Mapping[str, Any],
    make_worker: Callable[[Case], WorkerHandle],
    notes_: tuple[str, ...],
    tolerance: float | None,
) -> Ended:
    """Measures both copies of every Case of the session's spec, and compares those of latency.

    Args:
        labels: for people: of this one and the other.
        described: both for ``run.json``, this one first, by their names in ``verdict.copy_of``.
    """
    folder, spec = session.folder, session.spec
    _, other = described
    info = folder.read_run_info()
    allowed = verdict.materiality(info) if tolerance is None else tolerance
    bases = spec.cases(files.weights, files.fixed_batch)
    timed = [base for base in bases if base.scenario == "latency"]
    cases = [against.copy_of(base, name) for base in bases for name in (other, THIS)]
    told = {"revisions": described, "notes": notes_, "tolerance": allowed}
    session.write_plan(files, cases)
    session.write(against=told)
    stopped = False
    with make_listener(session.console, len(cases)) as listener:
        runner = Runner(folder, session.context(files), listener, session.limits, Workers(make_worker))
        try:
            runner.execute(cases, pair_by_pair(cases))
        except KeyboardInterrupt:
            stopped = True
    folder.merge_parts()
    found = against.compare(other, allowed, timed, folder.case_results(), folder)
    ended = Ended(folder.path, tuple(timed), tuple(found), allowed, labels, notes_, stopped)
    session.write(
        warnings=[*info.get("warnings", ()), *summary(runner.rounds)],
        resolves=runner.resolves,
        against={**told, "outcome": ended.outcome.value, "cases": [each.to_dict() for each in found]},
        finished_at=None if ended.interrupted else utc_now(),
        exit_code=130 if ended.interrupted else 0,
    )
    return ended


def _described(side: Side) -> dict[str, Any]:
    which = side.revision
    files = {name: side.files.get(name) for name in ("weights", "weights_sha256", "onnx_sha256")}
    return {**asdict(which), "home": str(which.home), "sources_sha256": side.sources_sha256, **files}


def notes_on(this: Side, other: Side) -> tuple[str, ...]:
    """What the two sides have in common that they need not, or do not that they should."""
    notes = []
    if this.sources_sha256 == other.sources_sha256:
        notes.append("the Python files of both are the same")
    for what, digest in (("weights", "weights_sha256"), ("ONNX graphs", "onnx_sha256")):
        if this.files.get(digest) != other.files.get(digest):
            notes.append(f"each measured its own {what}: they differ")
    return tuple(notes)


def pair_by_pair(planned: Sequence[Case]) -> Order:
    """The copies of each timed Case in lives of their own, one pair after the other: no more processes wait than need
    be; before them what is not timed."""
    timed = [case for case in planned if case.scenario == "latency"]
    pairs = [timed[first : first + 2] for first in range(0, len(timed), 2)]

    def order(runner: Runner, cases: Sequence[Case]) -> None:
        schedule.by_scenario(planned)(runner, [case for case in cases if case.scenario != "latency"])
        for pair in pairs:
            share = runner.limits.budget_seconds / len(pairs)
            schedule.Lives(len(pairs), share, pairs_only=True)(runner, pair)

    return order
