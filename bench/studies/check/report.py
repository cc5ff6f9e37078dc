"""What a check found: a verdict for each row, findings, and the whole as plain data for reports."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bench.record.case import Case, Status
from bench.report.document import Cell, Column, Document, Head, notes, table_of
from bench.studies.check.diagnosis import Finding
from bench.studies.check.rules import Comparison, Decision, Verdict


@dataclass(frozen=True)
class Judged:
    """A row's verdict.

    Attributes:
        stage: of ``diagnosis.STAGES`` where it is known, else empty.
        status: of the row in the run; ``missing`` where the run has no such row.
        decision: margin, bound and class, where predictions were compared.
        fp32: decision and comparison against the run's own row in FP32; None where there was none.
    """

    case: Case
    verdict: Verdict
    reason: str
    stage: str = ""
    status: str = Status.OK.value
    decision: Decision | None = None
    comparison: Comparison | None = None
    fp32: tuple[Decision, Comparison] | None = None
    baseline_ratio: float | None = None
    ratio: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; differences in percentage points."""
        found: dict[str, Any] = {
            "case_id": self.case.case_id,
            "row": self.case.label,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "stage": self.stage,
            "status": self.status,
        }
        if self.comparison:
            found |= _compared(self.comparison, self.decision)
        if self.fp32:
            found["fp32"] = {"verdict": self.fp32[0].verdict.value, **_compared(self.fp32[1], self.fp32[0])}
        if self.ratio is not None or self.baseline_ratio is not None:
            found |= {"ratio": self.ratio, "baseline_ratio": self.baseline_ratio}
        return found


def _compared(compared: Comparison, decision: Decision | None) -> dict[str, Any]:
    """Plain JSON types; differences in percentage points."""
    found: dict[str, Any] = {
        "n_images": compared.n,
        "changed": compared.changed,
        "wins": compared.wins,
        "losses": compared.losses,
        "ties": compared.ties,
        "agreement_percent": compared.agreement_percent,
        "baseline_top1_percent": 100.0 * compared.baseline_right / compared.n,
        "top1_percent": 100.0 * compared.right / compared.n,
    }
    if compared.moved is not None:
        move = compared.largest_move
        found |= {"leads_moved": compared.moved, "lead_limit": compared.lead_limit}
        found["largest_lead_move"] = move if math.isfinite(move) else None
    if decision and decision.bound:
        bound = decision.bound
        found |= {
            "class": decision.tolerance,
            "difference_points": 100.0 * bound.difference,
            "low_points": 100.0 * bound.low,
            "high_points": 100.0 * bound.high,
            "margin_points": 100.0 * (decision.margin or 0.0),
        }
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
        """``fail`` where a row fails, else ``unresolved`` where one is, else ``pass``."""
        verdicts = {row.verdict for row in self.rows}
        for verdict in (Verdict.FAIL, Verdict.UNRESOLVED):
            if verdict in verdicts:
                return verdict
        return Verdict.PASS

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
            "baseline": self.baseline,
            "current": self.current,
            "n_images": self.n_images,
            "rows": [row.to_dict() for row in self.rows],
            "findings": [
                {"stage": item.stage, "text": item.text, "case_ids": list(item.case_ids)} for item in self.findings
            ],
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
    compared, decision = row.comparison, row.decision
    if compared is None or decision is None or decision.bound is None:
        ratio = "" if row.ratio is None or row.baseline_ratio is None else f"{row.baseline_ratio:.3g} → {row.ratio:.3g}"
        return ["", f"ratio {ratio}" if ratio else "", ""]
    bound = decision.bound
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
