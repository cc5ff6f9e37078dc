"""Measures this tree against another revision of it; ``bench.studies.against.verdict`` says what the figures mean."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
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
from bench.studies.against.worktree import Revision, this_revision, worktree
from bench.worker import channel
from bench.worker.channel import WorkerHandle
from scarlet.errors import BenchError

ID_LENGTH = 12  # of a commit in a Case's options


@dataclass(frozen=True)
class Ended:
    """How a comparison of two revisions ended.

    Attributes:
        run: its folder.
        found: the verdict on each Case.
        tolerance: how much slower is still a pass, as a share.
        revisions: both, for people: this tree and the other.
        notes: what is to be known of them: the same code, other weights, another graph.
        interrupted: the user stopped it.
    """

    run: Path
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
        spec: what to measure; its scenario is always latency.
        out: folder for the run; a new one in ``results/runs`` where None.
        console: for people.
        tolerance: how much slower is still a pass, as a share; the machine's materiality where None.
        home: folder of this tree's packages; those of this process where None.

    Raises:
        BenchError: the revision, the options, the data or the output folder are at fault, or the revisions are too
            far apart to be compared.
    """
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        what = f"--tolerance {100 * tolerance:g} is not a number above 0"
        raise BenchError(what, "Give per cent, for example --tolerance 5.")
    if spec.lives == 1:
        raise BenchError("--lives 1 does not tell what processes differ by", "Write for example --lives 6.")
    this = this_revision(home or channel.own_home())
    spec = spec.but(scenarios="latency")
    with worktree(this.home, ref) as other, Session.open(spec, out, console, "against") as session:
        sides: dict[Revision, Side] = {}
        for each in (this, other):
            with working(console, f"preparing the model with the code of {each.label}"):
                log = session.folder.log_path("prepare-this" if each is this else "prepare-other")
                sides[each] = prepare(each, session.request, log, spec.timeout_seconds)
        return _carry_out(session, sides[this], sides[other], tolerance)


def _carry_out(session: Session, this: Side, other: Side, tolerance: float | None) -> Ended:
    folder, spec = session.folder, session.spec
    info = folder.read_run_info()
    allowed = verdict.materiality(info) if tolerance is None else tolerance
    bases = spec.cases(str(this.files["weights"]), this.files.get("fixed_batch"))
    names = {THIS: this, other.revision.commit[:ID_LENGTH]: other}
    files = ModelFiles.from_dict(this.files)
    cases = [against.copy_of(base, name) for base in bases for name in reversed(names)]
    described = {
        "revisions": {name: _described(side) for name, side in names.items()},
        "notes": notes_on(this, other),
        "tolerance": allowed,
    }
    session.write_plan(files, cases)
    session.write(against=described)

    def make_worker(case: Case) -> WorkerHandle:
        side = names[case.option(against.REVISION)]
        return RevisionWorker(side.revision, folder.log_path(case.case_id), case.threads * case.instances, side)

    stopped = False
    with make_listener(session.console, len(cases)) as listener:
        runner = Runner(folder, session.context(files), listener, session.limits, Workers(make_worker))
        try:
            runner.execute(cases, pair_by_pair(cases))
        except KeyboardInterrupt:
            stopped = True
    shutil.rmtree(folder.path / revision_worker.WORKERS, ignore_errors=True)
    folder.merge_parts()
    found = against.compare(list(names)[1], allowed, bases, folder.case_results(), folder)
    revisions = (this.revision.label, other.revision.label)
    ended = Ended(folder.path, tuple(found), allowed, revisions, notes_on(this, other), stopped)
    session.write(
        warnings=[*info.get("warnings", ()), *summary(runner.rounds)],
        resolves=runner.resolves,
        against={**described, "outcome": ended.outcome.value, "cases": [each.to_dict() for each in found]},
        finished_at=None if ended.interrupted else utc_now(),
        exit_code=130 if ended.interrupted else 0,
    )
    return ended


def _described(side: Side) -> dict[str, Any]:
    which: Revision = side.revision
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
    """The copies of each Case in lives of their own, one pair after the other: no more processes wait than need be."""
    pairs = [planned[first : first + 2] for first in range(0, len(planned), 2)]

    def order(runner: Runner, cases: Sequence[Case]) -> None:
        for pair in pairs:
            share = runner.limits.budget_seconds / len(pairs)
            schedule.Lives(len(pairs), share, pairs_only=True)(runner, pair)

    return order
