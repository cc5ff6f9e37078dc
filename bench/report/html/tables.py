"""Tables of the HTML report: each cell knows how it sorts, and which Case and file it comes from."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.document import Table
from bench.report.sentences import records
from bench.report.tables import tables

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

INTERVAL = "95 % interval"
NOT_OK = "Not ok"
CASES, SAMPLES, PREDICTIONS = "cases.jsonl", "samples.parquet", "predictions.parquet"

# Columns that tell what was asked, or that a worker counted; every other is derived from samples or predictions.
_FROM_CASES = frozenset(
    (
        *(
            "Scenario",
            "Backend",
            "Device",
            "Precision",
            "Options",
            "Weights",
            "Pipeline",
            "Threads",
            "Instances",
        ),
        *("Batch", "Stage", "Status", "Reason", "Unreadable", "Peak MiB"),
    )
)
# Columns that a phone may leave out where they tell no row from another.
_SAME = _FROM_CASES - {"Status", "Reason"} | {"Images", "Samples"}
_IN_BRACKETS = re.compile(r"(.+?) \((.+)\)")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+")


@dataclass(frozen=True)
class Head:
    """A column's header; ``detail`` says what stands below each of its values, in small.

    ``same`` is the value of all rows, where it tells no row from another: a phone shows it above the table.
    """

    text: str
    numeric: bool
    detail: str = ""
    same: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what stands below it in small, a mark for its meaning, how it sorts, where it comes from.

    ``mark`` is a verdict or a status, the template's key for a symbol. ``sort`` is empty where the value is unknown.
    """

    text: str
    detail: str = ""
    mark: str = ""
    sort: str = ""
    title: str = ""


@dataclass(frozen=True)
class PageRow:
    """A row: its Case, what it is filtered by, and its cells."""

    case_id: str
    scenario: str
    status: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class PageTable:
    """A table, ready for the template. ``key`` is part of the ids of its elements."""

    key: str
    title: str
    header: tuple[Head, ...]
    rows: tuple[PageRow, ...]
    notes: tuple[str, ...]


def case_tables(frame: pd.DataFrame, info: Mapping[str, Any]) -> list[PageTable]:
    """The tables that all reports show, each Case in exactly one: Accuracy, Latency, Throughput, Not ok.

    Args:
        frame: as of ``bench.analysis.table.load_frame``.
        info: the content of ``run.json``.
    """
    rows = records(frame)
    return [
        _case_table(table, [row for row in rows if _stands_in(row, table.title)])
        for table in tables(frame, info)
    ]


def plain_table(key: str, table: Table, whose: Sequence[tuple[str, str]]) -> PageTable:
    """A table that is not of one Case a row.

    Args:
        key: part of the ids of its elements.
        table: what to show.
        whose: of each row the Case that it is about, and the words for where its numbers come from.
    """
    header = tuple(Head(text, numeric) for text, numeric in zip(table.header, table.numeric, strict=True))
    rows = []
    for cells, (case_id, title) in zip(table.rows, whose, strict=True):
        made = tuple(_cell(text, head.numeric, title) for text, head in zip(cells, header, strict=True))
        rows.append(PageRow(case_id, "", "", made))
    return PageTable(key, table.title, header, tuple(rows), table.notes)


def trace(case_id: str, file: str) -> str:
    """The words for where a number comes from."""
    return f"Case {case_id}, from {file}"


def _stands_in(row: Row, title: str) -> bool:
    if row["status"] != "ok":
        return title == NOT_OK
    return str(row["scenario"]) == title.lower()


def _case_table(table: Table, rows: Sequence[Row]) -> PageTable:
    # An interval stands below its value, which is the column before it.
    below = {place for place, text in enumerate(table.header) if text == INTERVAL and place}
    kept = [place for place in range(len(table.header)) if place not in below]
    header = tuple(
        Head(
            table.header[place],
            table.numeric[place],
            INTERVAL if place + 1 in below else "",
            _same(table, place),
        )
        for place in kept
    )
    made = []
    for row, texts in zip(rows, table.rows, strict=True):
        cells = tuple(
            _case_cell(row, head, texts[place], texts[place + 1] if head.detail else "")
            for place, head in zip(kept, header, strict=True)
        )
        made.append(PageRow(row["case_id"], row["scenario"], row["status"], cells))
    return PageTable(table.title.lower().replace(" ", "-"), table.title, header, tuple(made), table.notes)


def _same(table: Table, place: int) -> str:
    texts = {cells[place] for cells in table.rows}
    wanted = place and table.header[place] in _SAME
    return texts.pop() if wanted and len(table.rows) > 1 and len(texts) == 1 else ""


def _case_cell(row: Row, head: Head, text: str, below: str) -> Cell:
    title = trace(row["case_id"], _file(row, head.text))
    if head.text.startswith("vs "):
        return _versus(row, text, title)
    cell = _cell(text, head.numeric, title)
    mark = row["status"] if head.text == "Status" else ""
    # The reference agrees with itself.
    sort = "100" if head.numeric and text == "reference" else cell.sort
    return Cell(text, below, mark, sort, title)


def _versus(row: Row, text: str, title: str) -> Cell:
    """The verdict in words, its interval below; sorted by the ratio, the fastest first."""
    parts = _IN_BRACKETS.fullmatch(text)
    words, below = parts.groups() if parts else (text, "")
    if row["baseline_case_id"] and row["baseline_case_id"] != row["case_id"]:
        title += f", against Case {row['baseline_case_id']} round by round"
    ratio = 1.0 if text == "baseline" else row["ratio"]
    return Cell(words, below, row["verdict"] or "", "" if ratio is None else f"{ratio:.9g}", title)


def _cell(text: str, numeric: bool, title: str) -> Cell:
    if not numeric:
        return Cell(text, sort=text, title=title)
    parts = _IN_BRACKETS.fullmatch(text)
    words, below = parts.groups() if parts else (text, "")
    # "98.6 to 98.2", "85 %" and "<0.0001" sort by their first number.
    number = _NUMBER.search(text)
    return Cell(words, below, "", number.group().replace(",", "") if number else "", title)


def _file(row: Row, header: str) -> str:
    if header in _FROM_CASES:
        return CASES
    return PREDICTIONS if row["scenario"] == "accuracy" else SAMPLES
