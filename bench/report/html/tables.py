"""Tables of the HTML report: each cell knows how it sorts, and which Case and file it comes from.

They are dictionaries, as the template takes them: a table has a key (part of the ids of its elements), a header, rows
and notes. What a header says in ``same`` is the value of all rows, where it tells none from another: a phone shows it
above the table; ``detail`` says what stands below each of its values, in small. Of a cell, ``mark`` is a verdict or a
status, for a symbol, and ``sort`` is empty where the value is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bench.analysis.columns import CASES, REGISTRY, source_of
from bench.report.document import Cell, Head, Table
from bench.report.tables import tables

Row = Mapping[str, Any]
View = dict[str, Any]


def case_tables(frame: pd.DataFrame, info: Mapping[str, Any]) -> list[View]:
    """The tables that all reports show, each Case in exactly one: Accuracy, Latency, Throughput, Not ok."""
    return [_case_table(table) for table in tables(frame, info)]


def plain_table(key: str, table: Table, whose: Sequence[tuple[str, str]]) -> View:
    """A table that is not of one Case a row.

    Args:
        whose: of each row the Case that it is about, and the words for where its numbers come from.
    """
    rows = [
        _row(case_id, "", "", [_cell(cell, head, title) for cell, head in zip(cells, table.columns, strict=True)])
        for cells, (case_id, title) in zip(table.cells, whose, strict=True)
    ]
    return _view(key, table, [_head(head) for head in table.columns], rows)


def _case_table(table: Table) -> View:
    # Of each column that is shown the index of what stands below it, its interval, or None.
    heads = table.columns
    below = {
        index: index + 1 if index + 1 < len(heads) and heads[index + 1].below else None
        for index, head in enumerate(heads)
        if not head.below
    }
    header = [
        _head(heads[index], "" if detail is None else heads[detail].text, _same(table, index))
        for index, detail in below.items()
    ]
    rows = []
    for row, cells in zip(table.records, table.cells, strict=True):
        shown = [
            _cell(cells[index], heads[index], _trace(row, heads[index]), str(cells[detail]) if detail else "")
            for index, detail in below.items()
        ]
        rows.append(_row(row["case_id"], row["scenario"], row["status"], shown))
    return _view(table.title.lower().replace(" ", "-"), table, header, rows)


def _view(key: str, table: Table, header: list[View], rows: list[View]) -> View:
    return {"key": key, "title": table.title, "header": header, "rows": rows, "notes": table.notes}


def _head(head: Head, detail: str = "", same: str = "") -> View:
    return {"text": head.text, "numeric": head.numeric, "detail": detail, "same": same}


def _row(case_id: str, scenario: str, status: str, cells: list[View]) -> View:
    return {"case_id": case_id, "scenario": scenario, "status": status, "cells": cells}


def _cell(cell: Cell, head: Head, title: str, below: str = "") -> View:
    value = "" if cell.value is None else f"{cell.value:.9g}"
    by_value = head.numeric or cell.value is not None
    shown = {"text": cell.text, "detail": below or cell.detail, "mark": cell.mark, "title": title}
    return {**shown, "sort": value if by_value else cell.text}


def _same(table: Table, index: int) -> str:
    """The text of all rows, where the column says what was requested or counted: a phone may leave that out."""
    name, texts = table.columns[index].name, {str(cells[index]) for cells in table.cells}
    tells_rows = index == 0 or name in ("status", "reason")
    counts = REGISTRY[name].source == CASES or name in ("n_images", "n_samples")
    return texts.pop() if counts and not tells_rows and len(table.cells) > 1 and len(texts) == 1 else ""


def _trace(row: Row, head: Head) -> str:
    """The words for where a number comes from."""
    title = f"Case {row['case_id']}, from {source_of(head.name, row['scenario'])}"
    baseline = row["baseline_case_id"]
    if head.name == "verdict" and baseline and baseline != row["case_id"]:
        title += f", against Case {baseline} round by round"
    return title
