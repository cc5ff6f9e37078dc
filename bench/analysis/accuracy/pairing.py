"""Which Cases are compared with which: of one run against its reference, or of two runs.

Latencies are not among it: Cases are only comparable in time where they took turns in one run
(``bench.analysis.time.verdict``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.analysis.accuracy.flips import FlipLedger, compare
from bench.analysis.accuracy.predictions import Predicted, ScoredRun, load, reference_case
from bench.record.case import MEASURED, Case
from bench.record.run_folder import CaseResult, RunFolder
from scarlet.errors import BenchError

TIMED_NOTE = "latencies are compared only inside one run, where Cases take turns: see the report of the run, not this"
_HOW = "Name a run's folder, FOLDER:CASE_ID, or the id of a Case of the newest run."


@dataclass(frozen=True)
class LeftOut:
    """An accuracy Case that was not compared: of which run, and why, in a sentence."""

    run: str
    case: Case
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Ledgers of one run or of two.

    Attributes:
        ledgers: in the order of the base's plan.
        is_demo: demo images or demo weights took part.
    """

    title: str
    ledgers: tuple[FlipLedger, ...]
    left_out: tuple[LeftOut, ...]
    notes: tuple[str, ...]
    is_demo: bool

    def to_dict(self, most_flips: int | None = None) -> dict[str, Any]:
        """Plain JSON types, without NaN; of each ledger at most so many flips."""
        alone = [
            {"run": left.run, "case_id": left.case.case_id, "label": left.case.label, "reason": left.reason}
            for left in self.left_out
        ]
        return {
            "title": self.title,
            "ledgers": [ledger.to_dict(most_flips) for ledger in self.ledgers],
            "left_out": alone,
            "notes": list(self.notes),
            "is_demo": self.is_demo,
        }


@dataclass(frozen=True)
class _Side:
    """A run, or one Case of it."""

    run: ScoredRun
    one: Predicted | None

    @property
    def case(self) -> Case:
        """The Case, of a side that is one."""
        assert self.one is not None
        return self.one.case


def compare_named(base: str, other: str | None, latest: Path) -> Comparison:
    """Compares what two texts name: a run's folder, ``FOLDER:CASE_ID``, or the id of a Case of the newest run.

    An id may be cut short where it stays unambiguous. Two runs are compared Case by Case; a Case and a run, with the
    same Case of that run; without ``other`` the Cases of a run, or the one named, with the run's reference.

    Raises:
        BenchError: a text names nothing, there is nothing to compare, or two Cases cannot be paired (as returned by
            ``flips.compare``).
    """
    loaded: dict[Path, ScoredRun] = {}
    first = _side(base, latest, loaded)
    if other is None:
        return _with_reference(first)
    second = _side(other, latest, loaded)
    if first.one is None and second.one is None:
        return _two_runs(first.run, second.run)
    # A run beside a Case stands for the same Case of that run.
    mine = first.one or first.run.of(second.case)
    its = second.one or second.run.of(first.case)
    if mine is its:
        raise BenchError(f"both sides are Case {mine.case.case_id} of run {mine.run}", _HOW)
    return _two_cases(mine, its, first.run, second.run)


def against_reference(run: ScoredRun) -> tuple[list[FlipLedger], list[LeftOut]]:
    """The ledger of every accuracy Case of a run against its reference, and those that cannot be paired with it."""
    ledgers, left_out = [], []
    for predicted in run.predicted.values():
        if run.reference is not None and predicted is not run.reference:
            try:
                ledgers.append(compare(run.reference, predicted))
            except BenchError as mistake:
                left_out.append(LeftOut(run.name, predicted.case, mistake.what))
    return ledgers, left_out


def score_columns(
    folder: RunFolder, results: Sequence[CaseResult], is_demo: bool
) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Columns and notes of every accuracy Case that is ok or fell back, by its id. See ``frame.load_frame``."""
    predicted = load(folder, results, is_demo)
    chosen = reference_case(results, predicted)
    reference = predicted[chosen.case_id] if chosen else None
    return {
        result.case.case_id: _scores(predicted.get(result.case.case_id), reference)
        for result in results
        if result.status in MEASURED and result.case.scenario == "accuracy"
    }


def _scores(predicted: Predicted | None, reference: Predicted | None) -> tuple[dict[str, Any], list[str]]:
    if predicted is None:
        return {}, ["its predictions are missing from the run's folder"]
    row: dict[str, Any] = {"n_images": len(predicted.label)}
    notes = [predicted.no_accuracy] if predicted.no_accuracy else []
    if not notes and len(predicted.label):
        hits = predicted.top == predicted.label[:, None]
        row["top1_percent"] = 100.0 * float(hits[:, 0].mean())
        row["top5_percent"] = 100.0 * float(hits.any(axis=1).mean())
    if reference is not None:  # else every Case of the run fell back
        row["reference_case_id"] = reference.case.case_id
    if reference is not None and reference is not predicted:
        try:
            ledger = compare(reference, predicted)
        except BenchError as mistake:
            return row, [*notes, mistake.what]
        row |= {name: getattr(ledger, name) for name in ("agreement_percent", "top5_ordered_agreement_percent")}
    return row, notes


def _side(text: str, latest: Path, loaded: dict[Path, ScoredRun]) -> _Side:
    if Path(text).is_dir():
        return _Side(_opened(Path(text), loaded), None)
    folder, colon, case_id = text.rpartition(":")
    if colon and Path(folder).is_dir():
        run = _opened(Path(folder), loaded)
    elif colon or len(Path(text).parts) != 1:
        raise BenchError(f"there is no folder '{folder or text}'", _HOW)
    elif not latest.is_dir():
        raise BenchError(f"'{text}' is no folder, and there is no {latest} to look for such a Case", _HOW)
    else:
        run, case_id = _opened(latest, loaded), text
    return _Side(run, run.find(case_id))


def _opened(path: Path, loaded: dict[Path, ScoredRun]) -> ScoredRun:
    """The run, read once however it is named."""
    key = path.resolve()
    if key not in loaded:
        loaded[key] = ScoredRun.open(path)
    return loaded[key]


def _with_reference(side: _Side) -> Comparison:
    run = side.run
    if run.reference is None or len(run.predicted) < 2:
        have = f"{len(run.predicted) or 'no'} accuracy Case{'s' * (len(run.predicted) != 1)} with predictions"
        raise BenchError(f"run {run.name} has {have}: there is nothing to compare", _HOW)
    if side.one is run.reference:
        what = f"Case {side.case.case_id} is the reference that Cases of run {run.name} are compared with"
        raise BenchError(what, "Name another Case, or the run alone.")
    if side.one is not None:
        return _two_cases(run.reference, side.one, run, run)
    ledgers, left_out = against_reference(run)
    title = f"Run {run.name} against its reference {run.reference.case.label}"
    return _comparison(title, ledgers, left_out, run)


def _two_cases(base: Predicted, other: Predicted, base_run: ScoredRun, other_run: ScoredRun) -> Comparison:
    names = [f"{side.case.label} ({side.case.case_id})" for side in (base, other)]
    if base.run != other.run:
        names = [f"{name} of {side.run}" for name, side in zip(names, (base, other), strict=True)]
    title = f"{names[1]} against {names[0]}"
    return _comparison(title, [compare(base, other)], [], base_run, other_run)


def _two_runs(base: ScoredRun, other: ScoredRun) -> Comparison:
    """Every accuracy Case that both runs have, with all fields equal, and those that only one has."""
    if base is other:
        raise BenchError(f"both sides are run {base.name}", "Name it once: its Cases are compared with its reference.")
    shared = [case_id for case_id in base.predicted if case_id in other.predicted]
    left_out = [
        LeftOut(one.name, predicted.case, f"in {two.name} it {two.why_not(predicted.case)}")
        for one, two in ((base, other), (other, base))
        for case_id, predicted in one.predicted.items()
        if case_id not in shared
    ]
    if not shared:
        known = "; ".join(f"{left.run}:{left.case.case_id} ({left.case.label})" for left in left_out)
        raise BenchError(
            f"runs {base.name} and {other.name} have no accuracy Case in common",
            f"Name one Case of each, as FOLDER:CASE_ID: {known or 'neither has any'}.",
        )
    ledgers = [compare(base.predicted[case_id], other.predicted[case_id]) for case_id in shared]
    return _comparison(f"Run {other.name} against run {base.name}", ledgers, left_out, base, other)


def _comparison(title: str, ledgers: Sequence[FlipLedger], left_out: Sequence[LeftOut], *runs: ScoredRun) -> Comparison:
    datasets = [run.info.get("dataset") or {} for run in runs]
    notes = []
    prints = [str(dataset.get("fingerprint") or "unknown")[:12] for dataset in datasets]
    if len(set(prints)) > 1:
        notes.append(f"the image sets differ (fingerprints {', '.join(prints)}): images are paired by id")
    if any(result.case.scenario != "accuracy" for run in runs for result in run.results):
        notes.append(TIMED_NOTE)
    is_demo = any(dataset.get("is_demo") for dataset in datasets) or any(
        side.case.weights == "demo" for ledger in ledgers for side in (ledger.base, ledger.other)
    )
    return Comparison(title, tuple(ledgers), tuple(left_out), tuple(notes), is_demo)
