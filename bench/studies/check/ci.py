"""A check for GitHub Actions: Markdown for the step summary, and annotations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.record.files import disk_errors, encodable
from bench.report.markdown import escaped

if TYPE_CHECKING:
    from bench.studies.check.report import Judged, Report

# GitHub shows no more annotations of one kind and step than this.
MOST_ANNOTATIONS = 10

MARKS = {"pass": "pass", "fail": "**fail**", "unresolved": "*unresolved*", "new": "new"}
LEVELS = {"fail": "error", "unresolved": "warning"}


def append_summary(report: Report, path: Path) -> None:
    """Appends the summary to a file, which need not exist.

    Raises:
        BenchError: it cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(encodable(summary(report)))


def summary(report: Report) -> str:
    """The check as Markdown: the outcome, what is at fault, a table of rows."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Report) -> Iterator[str]:
    yield f"## scarlet-bench check: {escaped(report.headline)}"
    yield ""
    for finding in report.findings:
        yield f"- **{escaped(finding.stage or 'stage unknown')}**: {escaped(finding.text)}"
    for note in report.notes:
        yield f"- {escaped(note)}"
    if report.findings or report.notes:
        yield ""
    yield "| Row | Verdict | Stage | Top-1 % | Difference, points | Changed | Why |"
    yield "| --- | --- | --- | ---: | ---: | ---: | --- |"
    for row in report.rows:
        cells = [row.name, *figures(row), row.reason]
        name, *numbers, reason = (escaped(cell) for cell in cells)
        yield f"| {name} | {MARKS[row.verdict.value]} | {escaped(row.stage)} | {' | '.join(numbers)} | {reason} |"
    yield ""


def figures(row: Judged) -> list[str]:
    """Top-1 before and now, difference with its bounds, and predictions changed; empty where there is none."""
    compared, decision = row.comparison, row.decision
    if compared is None or decision is None or decision.bound is None:
        ratio = (
            ""
            if row.ratio is None or row.baseline_ratio is None
            else f"{row.baseline_ratio:.3g} → {row.ratio:.3g}"
        )
        return ["", f"ratio {ratio}" if ratio else "", ""]
    bound = decision.bound
    before, now = (100.0 * right / compared.n for right in (compared.baseline_right, compared.right))
    return [
        f"{before:.4g} → {now:.4g}",
        f"{100 * bound.difference:+.2g} ({100 * bound.low:+.2g} to {100 * bound.high:+.2g})",
        f"{compared.changed:,} of {compared.n:,}",
    ]


def annotation_lines(report: Report) -> list[str]:
    """Workflow commands that make GitHub show each row that did not pass beside the change.

    Escaped as GitHub's toolkit does it: %, CR and LF in the text, and : and , in properties
    (https://docs.github.com/actions/reference/workflow-commands-for-github-actions).
    """
    commands: list[str] = []
    for verdict, level in LEVELS.items():
        rows = [row for row in report.rows if row.verdict.value == verdict]
        shown = rows if len(rows) <= MOST_ANNOTATIONS else rows[: MOST_ANNOTATIONS - 1]
        for row in shown:
            stage = f" ({row.stage})" if row.stage else ""
            commands.append(_command(level, f"{row.name}: {verdict}{stage}", row.reason))
        if len(shown) < len(rows):
            more = len(rows) - len(shown)
            commands.append(_command(level, f"{more} more rows: {verdict}", "see the step's summary"))
    return commands


def _command(level: str, title: str, text: str) -> str:
    return encodable(f"::{level} title={_property(title)}::{_data(text)}")


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
