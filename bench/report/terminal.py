"""The tables at the end of a run, on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.sentences import summary, watermarks
from bench.report.tables import Table, tables

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import JustifyMethod

LONG_COLUMNS = ("Reason", "Options")
LONG_COLUMN_LEAST = 10


def print_tables(frame: pd.DataFrame, info: Mapping[str, Any], console: Console) -> None:
    """Prints watermarks, the tables and the summary; a Case that is not ok with its status and reason.

    Args:
        frame: as of ``bench.analysis.table.load_frame``.
        info: the content of ``run.json``.
        console: where to.
    """
    for table in tables(frame, info, brief=True):
        # One space between columns: they must fit 80 characters.
        drawn = RichTable(title=table.title, title_justify="left", box=None, padding=(0, 1, 0, 0))
        for header, numeric in zip(table.header, table.numeric, strict=True):
            justify: JustifyMethod = "right" if numeric else "left"
            if header in LONG_COLUMNS:
                # Where the terminal is narrow the long texts are folded, so that numbers stay whole.
                drawn.add_column(header, justify=justify, overflow="fold", min_width=LONG_COLUMN_LEAST)
            else:
                drawn.add_column(header, justify=justify, no_wrap=True)
        for cells in table.rows:
            # Text objects: brackets in names and reasons are no markup.
            drawn.add_row(*(Text(cell) for cell in cells))
        # A terminal narrower than the numbers wraps the lines; nothing is cut off.
        if console.width < (least := _least_width(table)):
            drawn.width = least
        console.print(drawn, crop=False)
        console.print()
        for note in table.notes:
            console.print(Text(note, style="dim"))
        if table.notes:
            console.print()
    for mark in watermarks(frame, info):
        console.print(Text(mark, style="bold yellow"))
    console.print(Text(summary(frame)))


def _least_width(table: Table) -> int:
    """Characters that the table needs with its long columns folded to the least."""
    columns = zip(table.header, *table.rows, strict=True)
    widths = (
        LONG_COLUMN_LEAST if cells[0] in LONG_COLUMNS else max(map(cell_len, cells)) for cells in columns
    )
    return sum(width + 1 for width in widths)
