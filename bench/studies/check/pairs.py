"""Two models or two revisions of this project in turns: is this one slower than the other, and does it predict as well?

Every latency Case is measured in lives, as in any run: fresh workers of both sides take turns in rounds, and the
figure of a life is the middle of its rounds' ratios, this side's time over the other's. The interval is over
lives (``bench.analysis.stats.lives``), with the order of starts, which is swapped from life to life, taken out.

*Why lives.* Two workers of the very same code differ by 1 to 3 % on a busy machine, for as long as both live (where
the scheduler keeps them, how their memory lies; see docs/method.md). All rounds of a life share that difference, so
that more rounds do not lower it, and an interval over rounds does not hold it: where processes differ with a standard
deviation of 1.5 %, the sign test's 95 % interval over the pooled rounds of six lives holds the true ratio in 47 % of
3,000 simulated comparisons, and the interval over lives in 94.5 % (tests/bench/studies/check/test_revisions.py has the
simulation).

The verdict is ``rules.of_interval`` of that interval; it is ``fail`` too where this side cannot run a Case that the
other one runs. Being faster is no failure. With k Cases each interval has the confidence 1 - 0.05 / k, so that they
hold together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.analysis.stats.lives import clock_error, location, over_lives
from bench.analysis.time import verdict
from bench.backends.base import ModelFiles
from bench.host.disturbance import summary
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder, utc_now
from bench.report.document import Document, notes
from bench.run import pixel_gate, schedule
from bench.run.model_input import settle
from bench.run.progress import make_listener
from bench.run.runner import Order, Runner, Workers
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.check import rows, tolerances
from bench.studies.check.report import Judged, Report
from bench.studies.check.rules import Verdict, of_interval, overall
from bench.studies.check.snapshot import Snapshot, of_run
from bench.worker.channel import LocalWorker, Message, WorkerHandle
from scarlet.errors import BenchError

REVISION = "revision"  # option of a Case that tells its copies apart; every backend ignores it
THIS, OLD = "this", "old"


@dataclass(frozen=True)
class Against:
    """A latency Case of this side against the same Case of the other.

    Attributes:
        outcome: the verdict.
        ratio: this side's time over the other's, over lives; None where there is none.
        low, high: ends of its interval; None with fewer than two lives.
        lives: each life's ratio, in the order of measurement.
        start_effect: what the side that was started first is slower by, as a share; None where nobody can tell.
        n_rounds: of all lives together.
        n_disturbed_rounds: how many of them the host disturbed. They are kept.
        reason: why there is no more to say; else empty.
    """

    case: Case
    outcome: Verdict
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    lives: tuple[float, ...] = ()
    start_effect: float | None = None
    n_rounds: int = 0
    n_disturbed_rounds: int = 0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        figures = {name: value for name, value in vars(self).items() if name != "case"}
        return {"label": self.case.label, **figures, "outcome": self.outcome.value, "lives": list(self.lives)}

    def judged(self, tolerance: float) -> Judged:
        """The verdict with the ratio and its interval, or why there is none."""
        if self.ratio is None or self.reason:
            return Judged(self.case, self.outcome, self.reason)
        ends = "" if self.low is None else f" ({self.low:.3f} to {self.high:.3f})"
        disturbed = f", {self.n_disturbed_rounds} of them disturbed" if self.n_disturbed_rounds else ""
        first = "" if self.start_effect is None else f"; started first: {self.start_effect:+.1%}"
        figures = (
            f"{self.ratio:.3f} times as long{ends}, up to {1.0 + tolerance:.3g} passes; "
            f"{len(self.lives)} lives, {self.n_rounds} rounds{disturbed}{first}"
        )
        return Judged(self.case, self.outcome, figures)


@dataclass(frozen=True)
class Ended:
    """How a comparison of two sides ended.

    Attributes:
        run: its folder.
        found: the verdict on each timed Case, without what tells copies apart.
        tolerance: how much slower is still a pass, as a share.
        labels: of this side and the other, for people.
        notes: what is to be known of them: the same code, other weights, another graph.
        interrupted: the user stopped it.
    """

    run: Path
    found: tuple[Against, ...]
    tolerance: float
    labels: tuple[str, str]
    notes: tuple[str, ...]
    interrupted: bool

    @property
    def outcome(self) -> Verdict:
        """Over all Cases."""
        return overall([each.outcome for each in self.found])

    @property
    def judged(self) -> tuple[Judged, ...]:
        """The verdicts as rows of a report."""
        return tuple(each.judged(self.tolerance) for each in self.found)

    def document(self) -> Document:
        """A line for each Case."""
        import pandas as pd

        lines = [f"{each.verdict.value}: {each.case.label}: {each.reason}" for each in self.judged]
        title, cases = " against ".join(self.labels), [each.to_dict() for each in self.found]
        data = {
            "run": str(self.run),
            "outcome": self.outcome.value,
            "tolerance": self.tolerance,
            "revisions": list(self.labels),
            "notes": list(self.notes),
            "cases": cases,
        }
        return Document(title, notes([title, *self.notes, *lines]), data, {"cases": pd.DataFrame(cases)})


def compare(
    other: str, tolerance: float, bases: Sequence[Case], results: Sequence[CaseResult], run: RunFolder
) -> tuple[Against, ...]:
    """The verdict on each latency Case, by how its copies ended (``other`` is the name of the other side), in the order
    given. The tolerance is a share.
    """
    ended, rounds = {result.case.case_id: result for result in results}, run.rounds()
    times = verdict.round_times([each for each in results if each.status is Status.OK], run.samples())
    disturbed = {int(number) for number in rounds.loc[rounds["disturbed"].astype(bool), "round"]}
    found = []
    for base in bases:
        mine, theirs = (ended.get(base.having(REVISION, name).case_id) for name in (THIS, other))
        outcome, reason = Verdict.UNRESOLVED, ""
        if mine is None or theirs is None or Status.INTERRUPTED in (mine.status, theirs.status):
            reason = "the run was stopped before it was through"
        elif theirs.status is not Status.OK:
            reason = f"{other} has no time: {theirs.status.value}, {theirs.reason}"
        elif mine.status is not Status.OK:
            reason = f"{other} ran it, and this one did not: {mine.status.value}, {mine.reason}"
            outcome = Verdict.FAIL
        else:
            each = over_their_lives(mine, theirs, times, tolerance, len(bases))
            numbers = times[mine.case.case_id].keys() & times[theirs.case.case_id].keys()
            found.append(replace(each, case=base, n_rounds=len(numbers), n_disturbed_rounds=len(disturbed & numbers)))
        if reason:
            found.append(Against(base, outcome, reason=reason))
    return tuple(found)


def over_their_lives(
    mine: CaseResult, theirs: CaseResult, times: Mapping[str, Mapping[int, float]], tolerance: float, comparisons: int
) -> Against:
    """The verdict on one of so many comparisons, from the times of each Case's rounds."""
    rounds, order = verdict.by_life(mine, theirs, times)
    logs = list(map(location, rounds))
    steps = clock_error(*(list(times[row.case.case_id].values()) for row in (mine, theirs)))
    over = over_lives(logs, order, comparisons, least_error=steps)
    lives, outcome = tuple(map(math.exp, logs)), of_interval(over.low, over.high, tolerance)
    return Against(mine.case, outcome, over.ratio, over.low, over.high, lives, over.start_effect)


@dataclass(frozen=True)
class Sides:
    """What is measured in turns.

    Attributes:
        described: both for ``run.json``, this one first, by the values of ``REVISION``.
        labels: of both, for people, in the same order.
        notes: as of ``Ended``.
        files: of this one's model.
        make_worker: starts a worker for a copy of a Case.
    """

    described: Mapping[str, Any]
    labels: tuple[str, str]
    notes: tuple[str, ...]
    files: ModelFiles
    make_worker: Callable[[Case], WorkerHandle]


def check(spec: RunSpec, tolerance: float | None) -> None:
    """Refuses what no pair can be measured by."""
    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        what = f"--tolerance {100 * tolerance:g} is not a number above 0"
        raise BenchError(what, "Give per cent, for example --tolerance 5.")
    if spec.lives == 1:
        raise BenchError("--lives 1 does not tell what processes differ by", "Write for example --lives 6.")


def carry_out(session: Session, sides: Sides, tolerance: float | None) -> Ended:
    """Measures both copies of every Case of the session's spec, and compares those of latency.

    Args:
        tolerance: how much slower is still a pass, as a share; the machine's materiality where None.
    """
    folder, _, other = session.folder, *sides.described
    info = folder.read_run_info()
    allowed = verdict.materiality(info) if tolerance is None else tolerance
    bases = session.spec.cases(sides.files.weights, sides.files.fixed_batch)
    cases = [base.having(REVISION, name) for base in bases for name in (other, THIS)]
    told = {"revisions": sides.described, "notes": sides.notes, "tolerance": allowed}
    session.write_plan(sides.files, cases)
    session.write(against=told)
    stopped = False
    with make_listener(session.console, len(cases)) as listener:
        context = session.context(sides.files)
        runner = Runner(folder, context, listener, session.limits, Workers(sides.make_worker))
        try:
            runner.execute(cases, pair_by_pair(cases))
        except KeyboardInterrupt:
            stopped = True
    folder.merge_parts()
    timed = [base for base in bases if base.scenario == "latency"]
    found = compare(other, allowed, timed, folder.case_results(), folder)
    ended = Ended(folder.path, found, allowed, sides.labels, sides.notes, stopped)
    session.write(
        warnings=[*info.get("warnings", ()), *summary(runner.rounds)],
        resolves=runner.resolves,
        against={**told, "outcome": ended.outcome.value, "cases": [each.to_dict() for each in found]},
        finished_at=None if stopped else utc_now(),
        exit_code=130 if stopped else 0,
    )
    return ended


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


def of_model(spec: RunSpec, model: str) -> RunSpec:
    """The spec with a model: an ONNX file, a file of weights for the spec's own model, or a model's name."""
    path = Path(model).expanduser()
    if path.suffix == ".onnx" and not model.startswith(("onnx:", "torch:")):
        return spec.but(model=f"onnx:{model}", checkpoint=None)
    return spec.but(checkpoint=model) if path.is_file() else spec.but(model=model)


class ModelWorker(LocalWorker):
    """A worker that is sent one model's files, whatever the run's are."""

    def __init__(self, log: Path, threads: int, files: ModelFiles) -> None:
        super().__init__(log, threads)
        self._files = files.to_dict()

    def call(self, request: Message, timeout_seconds: float) -> Message:
        """As ``LocalWorker.call``."""
        return super().call(with_files(request, self._files), timeout_seconds)


def with_files(request: Message, files: Mapping[str, Any]) -> Message:
    """A request whose context, where it has one, names these files of a model."""
    context = request.get("context")
    return {**request, "context": {**context, "files": dict(files)}} if context else request


def compare_models(models: tuple[str, str], spec: RunSpec, console: Console, tolerance: float | None = None) -> Ended:
    """Measures two models in turns; leaves a run's folder behind, with the copies of each Case that ``REVISION`` tells
    apart.

    Args:
        models: the old one and the new one: see ``of_model``.
        spec: what to measure of both.
        tolerance: as of ``carry_out``.

    Raises:
        BenchError: a model, the options or the data are at fault.
    """
    check(spec, tolerance)
    old, new = (of_model(spec, model) for model in models)
    with Session.open(new, None, console, "against") as session:
        shared = {"data": session.spec.data, "pipeline": session.spec.pipeline}
        fed, _ = settle(old.absolute(), old.source)
        other = replace(session, spec=fed.but(**shared), source=old.source)
        files = {THIS: session.require(), OLD: other.require()}

        def make_worker(case: Case) -> LocalWorker:
            threads = case.threads * case.instances
            return ModelWorker(session.folder.log_path(case.case_id), threads, files[case.option(REVISION)])

        request = pixel_gate.sample(session.images, str(session.root), files[THIS].preprocess, spec.seed)
        pixels = pixel_gate.gate(session.folder, session.spec.cases(), request, console)
        session.write(preprocessing=pixels)
        described = {name: each.to_dict() for name, each in files.items()}
        notes_ = (f"{THIS}: {models[1]}", f"{OLD}: {models[0]}")
        return carry_out(session, Sides(described, models[::-1], notes_, files[THIS], make_worker), tolerance)


def report(ended: Ended, config: Path | None) -> Report:
    """Two models that were measured in one run: accuracy image by image, and then the verdicts on their times.

    Leads move with any change of the weights: only top-1 and its margin are judged.
    """
    limits = tolerances.load(config)
    limits = limits.model_copy(update={"classes": {name: each.margin_alone for name, each in limits.classes.items()}})
    both = of_run(RunFolder.open(ended.run))

    def side(name: str) -> Snapshot:
        own = [row for row in both.rows if row.case.option(REVISION) == name]
        return replace(both, name=name, rows=tuple(replace(row, case=row.case.without(REVISION)) for row in own))

    known = side(OLD)
    known = replace(known, rows=tuple(row for row in known.rows if row.top1 is not None))
    found = rows.judge(known, side(THIS), limits)
    # The same code on the same images: only the model differs.
    judged = [
        replace(row, stage=row.stage or "weights")
        if row.verdict is Verdict.FAIL and row.status == Status.OK.value
        else row
        for row in found.rows
    ]
    return replace(found, rows=(*judged, *ended.judged))
