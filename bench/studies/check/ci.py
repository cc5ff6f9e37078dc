"""A check for CI: Markdown for the step summary of GitHub Actions, annotations, and JUnit XML."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bench.record.files import atomic_file, disk_errors, encodable
from bench.report.document import Column, Head, table_of
from bench.report.markdown import escaped, table_lines
from bench.report.text import annotate, annotation
from bench.studies.check.report import COLUMNS, Judged, Report
from scarlet.errors import visible

if TYPE_CHECKING:
    from junitparser import TestCase

# GitHub shows no more annotations of one kind and step than this.
MOST_ANNOTATIONS = 10

LEVELS = {"fail": "error", "unresolved": "warning"}


def write(report: Report, junit_file: Path | None, summary_file: Path | None, stream: IO[str]) -> None:
    """Writes the files that are requested, and what GitHub Actions takes where it is what runs this.

    Raises:
        BenchError: a file cannot be written.
    """
    if junit_file is not None:
        write_junit(report, junit_file)
    step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
    paths = (summary_file, Path(step_summary) if step_summary else None)
    for path in dict.fromkeys(filter(None, paths)):
        append_summary(report, path)
    annotate(stream, annotation_lines(report))


def append_summary(report: Report, path: Path) -> None:
    """Appends the summary to a file, which need not exist.

    Raises:
        BenchError: it cannot be written.
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as stream:
            stream.write(visible(summary(report)))


def summary(report: Report) -> str:
    """The check as Markdown: the outcome, what is at fault, a table of rows."""
    found = [f"- **{escaped(each.stage or 'stage unknown')}**: {escaped(each.text)}" for each in report.findings]
    found += [f"- {escaped(note)}" for note in report.notes]
    why = Column[Judged](Head("Why"), lambda row: row.reason)
    table = table_lines(table_of("", [*COLUMNS, why], report.rows))
    parts = ([f"## scarlet-bench check: {escaped(report.headline)}"], found, table)
    return "".join("\n".join(part) + "\n\n" for part in parts if part)


def annotation_lines(report: Report) -> list[str]:
    """Workflow commands that make GitHub show each row that did not pass beside the change."""
    commands: list[str] = []
    for verdict, level in LEVELS.items():
        rows = [row for row in report.rows if row.verdict.value == verdict]
        shown = rows if len(rows) <= MOST_ANNOTATIONS else rows[: MOST_ANNOTATIONS - 1]
        for row in shown:
            stage = f" ({row.stage})" if row.stage else ""
            commands.append(annotation(level, f"{row.case.label}: {verdict}{stage}", row.reason))
        if len(shown) < len(rows):
            more = len(rows) - len(shown)
            commands.append(annotation(level, f"{more} more rows: {verdict}", "see the step's summary"))
    return commands


# XML 1.0 has no way to write these (https://www.w3.org/TR/xml/#charsets).
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(report: Report, path: Path) -> None:
    """Writes one test case a row.

    A row that fails by its figures is a failure, a row that did not end well or is missing an error, one that is not
    resolved or not in the baseline is skipped: always with the reason.

    Raises:
        BenchError: the file cannot be written.
    """
    from junitparser import JUnitXml, TestSuite

    suite = TestSuite("scarlet-bench check")
    suite.add_property("baseline", _text(report.baseline))
    suite.add_property("run", _text(report.current))
    for finding in report.findings:
        suite.add_property("finding", _text(f"{finding.stage or 'stage unknown'}: {finding.text}"))
    for row in report.rows:
        suite.add_testcase(_case(row))
    xml = JUnitXml("scarlet-bench")
    xml.add_testsuite(suite)
    buffer = io.BytesIO()
    xml.write(buffer, pretty=True)
    with atomic_file(path) as stream:
        stream.write(buffer.getvalue())


def _case(row: Judged) -> TestCase:
    from junitparser import Error, Failure, Skipped, TestCase

    case = TestCase(
        _text(f"{row.case.label} [{row.case.case_id}]"), classname=_text(f"{row.case.model}.{row.case.scenario}")
    )
    kind = row.stage or row.case.scenario
    if row.verdict.value == "fail":
        made = Failure if row.status == "ok" else Error
        case.result = [made(_text(row.reason), kind)]
    elif row.verdict.value in ("unresolved", "new"):
        case.result = [Skipped(_text(row.reason), row.verdict.value)]
    else:
        case.system_out = _text(row.reason)
    return case


def _text(text: str) -> str:
    return NOT_XML.sub("\ufffd", encodable(text))
