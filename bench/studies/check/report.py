"""What a check found: a verdict for each row, findings, and the whole as plain data for reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bench.record.case import Case, Status
from bench.studies.check.diagnosis import Finding
from bench.studies.check.rules import Comparison, Decision, Verdict


@dataclass(frozen=True)
class Judged:
    """A row's verdict.

    Attributes:
        case: the Case, of the baseline where it is there.
        verdict: of the row.
        reason: a sentence.
        stage: of ``diagnosis.STAGES`` where it is known, else empty.
        status: of the row in the run; ``missing`` where the run has no such row.
        decision: margin, bound and class, where predictions were compared.
        comparison: of the predictions.
        baseline_ratio: of a timed row.
        ratio: likewise, in the run.
    """

    case: Case
    verdict: Verdict
    reason: str
    stage: str = ""
    status: str = Status.OK.value
    decision: Decision | None = None
    comparison: Comparison | None = None
    baseline_ratio: float | None = None
    ratio: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        return self.case.label

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; differences in percentage points."""
        found: dict[str, Any] = {
            "case_id": self.case.case_id,
            "row": self.name,
            "verdict": self.verdict.value,
            "reason": self.reason,
            "stage": self.stage,
            "status": self.status,
        }
        if self.comparison:
            compared = self.comparison
            found |= {
                "n_images": compared.n,
                "changed": compared.changed,
                "wins": compared.wins,
                "losses": compared.losses,
                "agreement_percent": compared.agreement_percent,
                "baseline_top1_percent": 100.0 * compared.baseline_right / compared.n,
                "top1_percent": 100.0 * compared.right / compared.n,
            }
        if self.decision and self.decision.bound:
            bound = self.decision.bound
            found |= {
                "class": self.decision.tolerance,
                "difference_points": 100.0 * bound.difference,
                "low_points": 100.0 * bound.low,
                "high_points": 100.0 * bound.high,
                "margin_points": 100.0 * (self.decision.margin or 0.0),
            }
        if self.ratio is not None or self.baseline_ratio is not None:
            found |= {"ratio": self.ratio, "baseline_ratio": self.baseline_ratio}
        return found


@dataclass(frozen=True)
class Report:
    """The outcome of a check.

    Attributes:
        baseline: name of the baseline.
        current: name of the run; empty where nothing was run.
        n_images: of the baseline.
        rows: every row of the baseline, then new ones.
        findings: what is at fault, where it is proven.
        notes: what else has to be known.
    """

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
        words = {
            Verdict.PASS: "pass",
            Verdict.FAIL: "fail",
            Verdict.UNRESOLVED: "unresolved",
            Verdict.NEW: "new",
        }
        counts = {verdict: sum(row.verdict is verdict for row in self.rows) for verdict in words}
        told = ", ".join(f"{count} {words[verdict]}" for verdict, count in counts.items() if count)
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
                {"stage": item.stage, "text": item.text, "case_ids": list(item.case_ids)}
                for item in self.findings
            ],
            "notes": list(self.notes),
        }
