"""A check as JUnit XML, which CI systems show test by test."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench.record.files import atomic_file, encodable

if TYPE_CHECKING:
    from junitparser import TestCase

    from bench.studies.check.report import Judged, Report

# XML 1.0 has no way to write these (https://www.w3.org/TR/xml/#charsets).
NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(report: Report, path: Path) -> None:
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
        _text(f"{row.name} [{row.case.case_id}]"), classname=_text(f"{row.case.model}.{row.case.scenario}")
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
