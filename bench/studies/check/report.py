"""What a check found, as plain data, as a table and for CI: Markdown for the step summary of GitHub Actions, its
annotations, and JUnit XML."""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from bench.record.case import Case, Status
from bench.record.files import atomic_file, disk_errors, encodable
from bench.report.document import Cell, Column, Document, Head, notes, table_of
from bench.report.markdown import document_lines
from bench.report.text import annotate, annotation
from bench.studies.check.rules import Decision, Verdict, overall
from scarlet.errors import visible

LEVELS = {Verdict.FAIL: "error", Verdict.UNRESOLVED: "warning"}

# XML 1.0 has no way to write these (https://www.w3.org/TR/xml/#charsets).
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class Finding:
    """A sentence with its proof, the rows that it explains, and the stage: data, labels, weights, decode, resize, crop,
    normalise, export, order or backend, empty where it does not tell.
    """

    stage: str
    text: str
    case_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """A row's verdict.

    Attributes:
        stage: as of ``Finding``.
        status: of the row in the run; ``missing`` where the run has no such row.
        decision: margin, bound and class, where predictions were compared.
        fp32: the same against the run's own row in FP32; None where there was none.
    """

    case: Case
    verdict: Verdict
    reason: str
    stage: str = ""
    status: str = Status.OK.value
    decision: Decision | None = None
    fp32: Decision | None = None
    baseline_ratio: float | None = None
    ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; differences in percentage points."""
        found: dict[str, Any] = {"case_id": self.case.case_id, "row": self.case.label, "verdict": self.verdict.value}
        found |= {name: getattr(self, name) for name in ("reason", "stage", "status")} | _compared(self.decision)
        if self.fp32:
            found["fp32"] = {"verdict": self.fp32.verdict.value, **_compared(self.fp32)}
        if self.ratio is not None or self.baseline_ratio is not None:
            found |= {"ratio": self.ratio, "baseline_ratio": self.baseline_ratio}
        return found


def _compared(decision: Decision | None) -> dict[str, Any]:
    compared = decision and decision.comparison
    if not decision or not compared:
        return {}
    counts = ("changed", "wins", "losses", "ties", "agreement_percent")
    found: dict[str, Any] = {
        "n_images": compared.n,
        **{name: getattr(compared, name) for name in counts},
        "baseline_top1_percent": 100.0 * compared.baseline_right / compared.n,
        "top1_percent": 100.0 * compared.right / compared.n,
    }
    if compared.moved is not None:
        move = compared.largest_move
        found |= {"leads_moved": compared.moved, "lead_limit": compared.lead_limit}
        found["largest_lead_move"] = move if math.isfinite(move) else None
    if decision.bound:
        ends = decision.bound._asdict() | {"margin": decision.margin or 0.0}
        found |= {"class": decision.tolerance, **{f"{name}_points": 100.0 * end for name, end in ends.items()}}
    return found


@dataclass(frozen=True)
class Report:
    """The outcome of a check of a run, which has no name where nothing was run: rows of the baseline, then new ones."""

    baseline: str
    current: str
    n_images: int
    rows: tuple[Judged, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Over all rows."""
        return overall([row.verdict for row in self.rows])

    @property
    def headline(self) -> str:
        """The outcome in a line."""
        counts = {verdict: sum(row.verdict is verdict for row in self.rows) for verdict in Verdict}
        told = ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items() if count)
        return f"{self.verdict.value}: {told} against {self.baseline}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "verdict": self.verdict.value,
            **{name: getattr(self, name) for name in ("baseline", "current", "n_images")},
            "rows": [row.to_dict() for row in self.rows],
            "findings": [{**asdict(each), "case_ids": list(each.case_ids)} for each in self.findings],
            "notes": list(self.notes),
        }


def document(report: Report, run: str | None = None) -> Document:
    """A row for each of the report's, what is at fault, and the outcome; ``run`` is the folder that was made for it."""
    findings = [f"at fault: {item.stage or 'stage unknown'}: {item.text}" for item in report.findings]
    lines = [*findings, *report.notes, report.headline, *([f"run: {run}"] if run else [])]
    reasons = [f"{row.case.label}: {row.reason}" for row in report.rows]
    table = table_of("", COLUMNS, report.rows, reasons)
    return Document(f"scarlet-bench check: {report.headline}", [table, *notes(lines)], {**report.to_dict(), "run": run})


def figures(row: Judged) -> list[str]:
    """Top-1 before and now, difference with its bounds, and predictions changed; empty where there is none."""
    if row.decision is None or (compared := row.decision.comparison) is None or (bound := row.decision.bound) is None:
        ratio = "" if row.ratio is None or row.baseline_ratio is None else f"{row.baseline_ratio:.3g} → {row.ratio:.3g}"
        return ["", f"ratio {ratio}" if ratio else "", ""]
    before, now = (100.0 * right / compared.n for right in (compared.baseline_right, compared.right))
    return [
        f"{before:.4g} → {now:.4g}",
        f"{100 * bound.difference:+.2g} ({100 * bound.low:+.2g} to {100 * bound.high:+.2g})",
        f"{compared.changed:,} of {compared.n:,}",
    ]


COLUMNS: tuple[Column[Judged], ...] = (
    Column(Head("Row"), lambda row: row.case.label),
    Column(Head("Verdict"), lambda row: Cell(row.verdict.value, mark=row.verdict.value)),
    Column(Head("Stage"), lambda row: row.stage),
    Column(Head("Top-1 %", True), lambda row: figures(row)[0]),
    Column(Head("Difference, points", True), lambda row: figures(row)[1]),
    Column(Head("Changed", True), lambda row: figures(row)[2]),
)


def write(report: Report, junit_file: Path | None, summary_file: Path | None, stream: IO[str]) -> None:
    """Writes the files that are requested, and what GitHub Actions takes where it is what runs this.

    Raises:
        BenchError: a file cannot be written.
    """
    if junit_file is not None:
        write_junit(report, junit_file)
    step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
    for path in dict.fromkeys(filter(None, (summary_file, Path(step_summary) if step_summary else None))):
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as appended:
                appended.write(visible(summary(report)))
    annotate(stream, workflow_commands(report.rows))


def summary(report: Report) -> str:
    """The document as Markdown, below another heading."""
    return "#" + "\n".join(document_lines(document(report))) + "\n\n"


def workflow_commands(judged: Sequence[Judged]) -> list[str]:
    """Workflow commands that make GitHub show each row that did not pass beside the change: it shows the first ten of
    a kind, and the step's summary has them all.
    """
    return [
        annotation(level, f"{row.case.label}: {verdict.value}{f' ({row.stage})' if row.stage else ''}", row.reason)
        for verdict, level in LEVELS.items()
        for row in judged
        if row.verdict is verdict
    ]


def write_junit(report: Report, path: Path) -> None:
    """Writes one test case a row.

    A row that fails by its figures is a failure, a row that did not end well or is missing an error, one that is not
    resolved or not in the baseline is skipped: always with the reason.

    Raises:
        BenchError: the file cannot be written.
    """
    from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

    def text(words: str) -> str:
        return NOT_XML.sub("\ufffd", encodable(words))

    suite = TestSuite("scarlet-bench check")
    findings = [("finding", f"{each.stage or 'stage unknown'}: {each.text}") for each in report.findings]
    for name, value in (("baseline", report.baseline), ("run", report.current), *findings):
        suite.add_property(name, text(value))
    for row in report.rows:
        name, of = f"{row.case.label} [{row.case.case_id}]", f"{row.case.model}.{row.case.scenario}"
        case = TestCase(text(name), classname=text(of))
        if row.verdict is Verdict.PASS:
            case.system_out = text(row.reason)
        elif row.verdict is Verdict.FAIL:
            kind = Failure if row.status == Status.OK.value else Error
            case.result = [kind(text(row.reason), row.stage or row.case.scenario)]
        else:
            case.result = [Skipped(text(row.reason), row.verdict.value)]
        suite.add_testcase(case)
    xml = JUnitXml("scarlet-bench")
    xml.add_testsuite(suite)
    buffer = io.BytesIO()
    xml.write(buffer, pretty=True)
    with atomic_file(path) as stream:
        stream.write(buffer.getvalue())
