"""Reads what the steps left, and judges it against ``targets.yaml``: met, not met, or not run with the reason.

A step that is missing leaves gaps, and no error.
"""

import operator
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench.record.case import Case, Status
from bench.record.run_folder import RUN_INFO, CaseResult, RunFolder
from bench.report.sentences import records
from scarlet.errors import BenchError
from tests.gpu.acceptance.steps import HERE, Record

MET, NOT_MET, NOT_RUN, MEASURED = "met", "not met", "not run", "measured"
BOUNDS: Mapping[str, Callable[[float, float], bool]] = {
    "at_most": operator.le,
    "at_least": operator.ge,
    "below": operator.lt,
}

# Whose decoding alone is compared with that of the GPU's pipelines.
ON_CPU = ("turbo", "dali")


@dataclass(frozen=True)
class Target:
    """What a figure is to reach; see ``targets.yaml``.

    Attributes:
        figure: the function that reads it, in ``READERS``.
        step: whose results it reads.
        name: of the figure, for people.
        target: what it should be, for people.
        rows: fields of the Cases that it is read of, once each.
        base: fields of the Case that they are compared with.
        subject: the field that names a row.
        bound: ``at_most``, ``at_least`` or ``below`` a number; empty for a figure without one.
        otherwise: what to say where the bound is not kept.
    """

    figure: str
    step: str
    name: str
    target: str
    rows: Sequence[Mapping[str, str]] = ()
    base: Mapping[str, str] = field(default_factory=dict)
    subject: str = ""
    bound: Mapping[str, float] = field(default_factory=dict)
    otherwise: str = ""

    def verdict(self, number: float) -> str:
        """Of a figure that was measured."""
        if not self.bound:
            return MEASURED
        return MET if all(BOUNDS[name](number, limit) for name, limit in self.bound.items()) else NOT_MET


class Reading(NamedTuple):
    """What was measured of one row.

    Attributes:
        subject: which row, for people; empty where there is one only.
        number: what the bound is for; None where there is no figure, or one that cannot be held against the bound.
        text: the figure for people; empty where there is none.
        why: why there is no number; with one, what else must be known.
    """

    subject: str = ""
    number: float | None = None
    text: str = ""
    why: str = ""


@dataclass(frozen=True)
class Figure:
    """One thing that the check is to show.

    Attributes:
        name: what it is about.
        target: what it should be.
        value: what was measured, for people; empty where nothing was.
        number: what is held against the bound; None where nothing was measured.
        verdict: ``met``, ``not met``, ``not run``, or ``measured`` where there is no bound.
        why: the reason where it is not met or not run; else empty, or what else must be known.
    """

    name: str
    target: str
    value: str
    number: float | None
    verdict: str
    why: str = ""


def load_targets() -> list[Target]:
    """All targets, in order."""
    entries = yaml.safe_load((HERE / "targets.yaml").read_text(encoding="utf-8"))
    return [Target(**entry) for entry in entries]


def judge(folder: Path, ended: Sequence[Record]) -> tuple[Figure, ...]:
    """Every figure that there is so far, in order.

    Args:
        folder: of the check.
        ended: how its steps ended.
    """
    reasons = {record.name: record.reason for record in ended if record.status != "ok"}
    return tuple(
        judged(target, reading, reasons.get(target.step) or f"step {target.step} left no such figure")
        for target in load_targets()
        for reading in list(READERS[target.figure](folder, target)) or [Reading()]
    )


def judged(target: Target, reading: Reading, missing: str) -> Figure:
    """A reading against its target.

    Args:
        target: what it should be.
        reading: what was measured. Without a number that the bound is for, a text does not meet it.
        missing: why there is nothing, where the reading does not say it.
    """
    name = ": ".join(filter(None, (target.name, reading.subject)))
    if reading.number is not None:
        verdict = target.verdict(reading.number)
        why = target.otherwise if verdict == NOT_MET else reading.why
    else:
        verdict, why = NOT_MET if reading.text else NOT_RUN, reading.why or missing
    return Figure(name, target.target, reading.text, reading.number, verdict, why)


def run_folders(folder: Path) -> dict[str, Path]:
    """The runs of a check, by the names of their steps."""
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{RUN_INFO}"))}


def _run_of(folder: Path, target: Target) -> RunFolder | None:
    path = folder / target.step
    return RunFolder(path) if (path / RUN_INFO).exists() else None


def _not_ok(result: CaseResult) -> str:
    return f"{result.case.label}: {result.status.value}: {result.reason}"


def failed_tests(folder: Path, target: Target) -> Iterator[Reading]:
    """How many tests failed, of a JUnit report; nothing where they left none, or a torn one."""
    try:
        suites = list(ElementTree.parse(folder / "tests.xml").getroot().iter("testsuite"))
    except (FileNotFoundError, ElementTree.ParseError):
        return
    n_tests, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    passed = n_tests - failed - skipped
    if not passed and not failed:
        yield Reading(why=f"none of them ran, {skipped} were skipped")
    else:
        yield Reading("", failed, f"{passed} passed, {failed} failed, {skipped} skipped")


def other_top1_percent(folder: Path, target: Target) -> Iterator[Reading]:
    """Share of images to which a row in FP32 gives another top-1 class than the base, of those that both have."""
    from bench.analysis.accuracy import flips, predictions

    run = _run_of(folder, target)
    results = run.case_results() if run else []
    predicted = predictions.load(run, results, is_demo=True) if run else {}
    for row in target.rows:
        subject = row[target.subject]
        sides = [_find(results, **fields) for fields in (target.base, row)]
        # A row is invalid where its pixels are outside of their tolerance: how many predictions that changes is what
        # is of interest here.
        bad = [side for side in sides if side and side.status not in (Status.OK, Status.INVALID)]
        both = [predicted[side.case.case_id] for side in sides if side and side.case.case_id in predicted]
        if bad or len(both) < 2:
            yield Reading(subject, why=_not_ok(bad[0]) if bad else "")
            continue
        try:
            ledger = flips.compare(*both)
        except BenchError as mistake:
            yield Reading(subject, why=mistake.what)
            continue
        percent = 100.0 * ledger.n_flips / ledger.n_images
        text = f"{ledger.n_flips} of {ledger.n_images} images differ ({percent:.2f} %)"
        yield Reading(subject, percent, text)


def _find(results: Sequence[CaseResult], **fields: str) -> CaseResult | None:
    """The first accuracy row in FP32 whose Case has these values, without options; None where there is none."""
    fields = {"scenario": "accuracy", "precision": "fp32", **fields}

    def fits(case: Case) -> bool:
        return not case.options and all(getattr(case, name) == value for name, value in fields.items())

    return next((result for result in results if fits(result.case)), None)


def decoded_images_per_s(folder: Path, target: Target) -> Iterator[Reading]:
    """Images a second of a pipeline by itself, from files to the network's input, beside those of the CPU's."""
    rows = _passes(folder, target)[::-1]  # so that the first of a pipeline is what stays
    rates = {row["pipeline"]: rate for row in rows if (rate := _decoding(row)) is not None}
    reasons = {row["pipeline"]: _why_no_rate(row) for row in rows}
    on_cpu = sorted((name for name in ON_CPU if name in rates), key=lambda name: -rates[name])
    for name in (row["pipeline"] for row in target.rows):
        if name in rates:
            others = (f"{other} {rates[other]:,.0f} ({rates[name] / rates[other]:.2f} times)" for other in on_cpu)
            why = "" if on_cpu else "there is no pipeline of the CPU to compare with"
            yield Reading(name, rates[name], ", ".join([f"{rates[name]:,.0f} images/s", *others]), why)
        else:
            yield Reading(name, why=reasons.get(name, ""))


def _decoding(row: Mapping[str, Any]) -> float | None:
    """A GPU's decoding ends with the network's input; on the CPU preprocessing follows on the same threads."""
    parts = [row["decode_images_per_s"]]
    if row["pipeline"] in ON_CPU:
        parts.append(row["preprocess_images_per_s"])
    return None if None in parts else 1.0 / sum(1.0 / rate for rate in parts)


def percent_of_slower_side(folder: Path, target: Target) -> Iterator[Reading]:
    """Passes relative to the slower of decoding and computing alone."""
    pipelines = [row["pipeline"] for row in target.rows]
    for row in _passes(folder, target):
        if row["pipeline"] in pipelines:
            subject = f"{row['pipeline']}, {row['backend']}"
            rate, percent = row["throughput_images_per_s"], row["sum_of_parts_percent"]
            if rate is None or percent is None:
                yield Reading(subject, why=_why_no_rate(row))
            else:
                text = f"{rate:,.0f} images/s, {percent:.0f} % of what {row['bound_by']} alone reaches"
                yield Reading(subject, percent, text)


def _passes(folder: Path, target: Target) -> list[dict[str, Any]]:
    from bench.analysis.table import load_frame

    run = _run_of(folder, target)
    return records(load_frame(run.path)) if run else []


def _why_no_rate(row: Mapping[str, Any]) -> str:
    is_ok = row["status"] == Status.OK.value
    return "its parts were not timed" if is_ok else f"{row['status']}: {row['reason']}"


def graph_time_ratio(folder: Path, target: Target) -> Iterator[Reading]:
    """Time with CUDA graphs over time without, paired by round: the upper end of its interval."""
    from bench.analysis.stats.intervals import ratio_interval
    from bench.analysis.time import verdict

    run = _run_of(folder, target)
    results = run.case_results() if run else []
    times = (
        verdict.round_times([result for result in results if result.status is Status.OK], run.samples()) if run else {}
    )
    pairs = [(result, twin) for result in results if (twin := _with_graphs(result, results)) is not None]
    for pair in pairs:
        subject = f"{pair[0].case.backend}, {pair[0].case.precision}"
        bad = [result for result in pair if result.status is not Status.OK]
        if bad:
            yield Reading(subject, why=_not_ok(bad[0]))
            continue
        without, with_ = (times[result.case.case_id] for result in pair)
        common = sorted(without.keys() & with_.keys())
        if not common:
            yield Reading(subject, why="there is no round in which both were measured")
            continue
        ratio = ratio_interval(
            [with_[index] for index in common], [without[index] for index in common], comparisons=len(pairs)
        )
        text = f"{1 / ratio.ratio:.2f} times as fast"
        if ratio.low is None or ratio.high is None:
            yield Reading(subject, None, text, "too few rounds to tell it from noise")
        else:
            yield Reading(subject, ratio.high, f"{text} ({1 / ratio.high:.2f} to {1 / ratio.low:.2f})")


def _with_graphs(result: CaseResult, results: Sequence[CaseResult]) -> CaseResult | None:
    """The row with CUDA graphs to one without them; None for all others."""
    case = result.case
    if case.option("graph") != "no":
        return None
    twin = Case.from_dict({**case.to_dict(), "options": {**dict(case.options), "graph": "yes"}})
    return next((other for other in results if other.case == twin), None)


READERS: Mapping[str, Callable[[Path, Target], Iterator[Reading]]] = {
    reader.__name__: reader
    for reader in (failed_tests, other_top1_percent, decoded_images_per_s, percent_of_slower_side, graph_time_ratio)
}
