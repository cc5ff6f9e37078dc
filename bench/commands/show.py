"""What commands have in common: exit codes, where to print, how a run is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report.document import Document
    from bench.report.tables import Table

GOOD, NOT_OK, USER_ERROR, UNRESOLVED, INTERRUPTED = 0, 1, 2, 3, 130

LOG_WIDTH = 160

# For commands that hand their options on to another.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Write it to a file as well, in the form of its suffix: .md, .html, .tex, .csv, .parquet, .json.",
    ),
]


def console_for(as_json: bool) -> Console:
    """Where people read: standard output, or standard error when that is taken by JSON."""
    from rich.console import Console

    console = Console(stderr=as_json)
    # A pipe or a log has no width; rich would break lines and tables at 80 columns.
    return console if console.is_terminal else Console(stderr=as_json, width=LOG_WIDTH)


def show_run(run: Path, console: Console, as_json: bool) -> None:
    """Writes the reports of a run and prints its table."""
    from bench.analysis.table import load_frame
    from bench.record.raw_tables import kept_reads
    from bench.record.run_folder import RunFolder
    from bench.report import write_all
    from bench.report.terminal import print_tables

    folder = RunFolder.open(run.resolve())
    with kept_reads():
        written = write_all(folder.path)
        frame = load_frame(folder.path)
    if as_json:
        records = json.loads(frame.to_json(orient="records"))
        typer.echo(json.dumps({"run": str(folder.path), "cases": records}))
        return
    print_tables(frame, folder.read_run_info(), console)
    console.print(f"report: {written['html']}", markup=False, highlight=False, soft_wrap=True)


def show_document(document: Document, console: Console) -> None:
    """Prints a document's tables, lines and marks."""
    from rich.text import Text

    for table in document.tables:
        draw(table, console)
    for line in document.lines:
        console.print(Text(line))
    for mark in document.marks:
        console.print(Text(mark, style="bold yellow"))


def draw(table: Table, console: Console) -> None:
    """Prints a table with its notes; a narrow terminal wraps, and nothing is cut off."""
    from rich.cells import cell_len
    from rich.table import Table as RichTable
    from rich.text import Text

    # Not as the table's title, which would be folded to the width of the table.
    console.print(Text(table.title, style="table.title"))
    drawn = RichTable(box=None, padding=(0, 1, 0, 0))
    for header, numeric in zip(table.header, table.numeric, strict=True):
        drawn.add_column(header, justify="right" if numeric else "left", no_wrap=True)
    for cells in table.rows:
        drawn.add_row(*map(Text, cells))
    columns = zip(table.header, *table.rows, strict=True)
    if console.width < (least := sum(1 + max(map(cell_len, cells)) for cells in columns)):
        drawn.width = least
    console.print(drawn, crop=False)
    console.print()
    for note in table.notes:
        console.print(Text(note, style="dim"))
    if table.notes:
        console.print()
