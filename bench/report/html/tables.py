"""Tables of the HTML report: each cell knows how it sorts, and which Case and file it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.analysis.columns import CASES, REGISTRY, source_of
from bench.report.document import Cell, Head, Table
from bench.report.tables import tables

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


@dataclass(frozen=True)
class PageHead:
    """A column's header; ``detail`` says what stands below each of its values, in small.

    ``same`` is the value of all rows, where it tells no row from another: a phone shows it above the table.
    """

    text: str
    numeric: bool
    detail: str = ""
    same: str = ""


@dataclass(frozen=True)
class PageCell:
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
    cells: tuple[PageCell, ...]


@dataclass(frozen=True)
class PageTable:
    """A table, ready for the template. ``key`` is part of the ids of its elements."""

    key: str
    title: str
    header: tuple[PageHead, ...]
    rows: tuple[PageRow, ...]
    notes: tuple[str, ...]


def case_tables(frame: pd.DataFrame, info: Mapping[str, Any]) -> list[PageTable]:
    """The tables that all reports show, each Case in exactly one: Accuracy, Latency, Throughput, Not ok.

    Args:
        frame: as returned by ``bench.analysis.table.load_frame``.
        info: the content of ``run.json``.
    """
    return [_case_table(table) for table in tables(frame, info)]


def plain_table(key: str, table: Table, whose: Sequence[tuple[str, str]]) -> PageTable:
    """A table that is not of one Case a row.

    Args:
        key: part of the ids of its elements.
        table: what to show.
        whose: of each row the Case that it is about, and the words for where its numbers come from.
    """
    rows = [
        PageRow(
            case_id,
            "",
            "",
            tuple(_cell(cell, head, title) for cell, head in zip(cells, table.columns, strict=True)),
        )
        for cells, (case_id, title) in zip(table.cells, whose, strict=True)
    ]
    header = tuple(PageHead(head.text, head.numeric) for head in table.columns)
    return PageTable(key, table.title, header, tuple(rows), table.notes)


def trace(case_id: str, file: str) -> str:
    """The words for where a number comes from."""
    return f"Case {case_id}, from {file}"


def _case_table(table: Table) -> PageTable:
    # Of each column that is shown the index of what stands below it, its interval, or None.
    heads = table.columns
    below = {
        index: index + 1 if index + 1 < len(heads) and heads[index + 1].below else None
        for index, head in enumerate(heads)
        if not head.below
    }
    header = tuple(
        PageHead(
            heads[index].text,
            heads[index].numeric,
            "" if detail is None else heads[detail].text,
            _same(table, index),
        )
        for index, detail in below.items()
    )
    rows = []
    for row, cells in zip(table.records, table.cells, strict=True):
        shown = (
            _cell(cells[index], heads[index], _trace(row, heads[index]), str(cells[detail]) if detail else "")
            for index, detail in below.items()
        )
        rows.append(PageRow(row["case_id"], row["scenario"], row["status"], tuple(shown)))
    return PageTable(table.title.lower().replace(" ", "-"), table.title, header, tuple(rows), table.notes)


def _same(table: Table, index: int) -> str:
    """The text of all rows, where the column says what was requested or counted: a phone may leave that out."""
    name, texts = table.columns[index].name, {str(cells[index]) for cells in table.cells}
    tells_rows = index == 0 or name in ("status", "reason")
    counts = REGISTRY[name].source == CASES or name in ("n_images", "n_samples")
    return texts.pop() if counts and not tells_rows and len(table.cells) > 1 and len(texts) == 1 else ""


def _trace(row: Row, head: Head) -> str:
    title = trace(row["case_id"], source_of(head.name, row["scenario"]))
    baseline = row["baseline_case_id"]
    if head.name == "verdict" and baseline and baseline != row["case_id"]:
        title += f", against Case {baseline} round by round"
    return title


def _cell(cell: Cell, head: Head, title: str, below: str = "") -> PageCell:
    value = "" if cell.value is None else f"{cell.value:.9g}"
    by_value = head.numeric or cell.value is not None
    return PageCell(cell.text, below or cell.detail, cell.mark, value if by_value else cell.text, title)
