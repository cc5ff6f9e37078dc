"""`compare`: two Cases or two runs, image by image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.shared import Json, console_for

if TYPE_CHECKING:
    from rich.console import Console

    from bench.comparison import Comparison
    from bench.report.format import Table

LATEST = Path("results/latest")


def compare(
    base: Annotated[
        str,
        typer.Argument(
            help="A run's folder, FOLDER:CASE_ID, or the id of a Case of results/latest; ids may be cut short."
        ),
    ] = str(LATEST),
    other: Annotated[
        str | None,
        typer.Argument(help="Likewise. Without it Cases are compared with the reference Case of their run."),
    ] = None,
    flips: Annotated[int, typer.Option(min=0, help="How many flipped images to list for each Case.")] = 10,
    as_json: Json = False,
) -> None:
    """Compare predictions image by image: two Cases, two runs, or a run with its reference."""
    from bench.comparison import compare_named

    made = compare_named(base, other, LATEST)
    if as_json:
        typer.echo(json.dumps(made.to_dict(flips), allow_nan=False))
    else:
        show(made, flips, console_for(False))


def show(comparison: Comparison, most_flips: int, console: Console) -> None:
    """Prints the ledgers, of each at most so many flips, what was left out and the notes."""
    from rich.text import Text

    from bench.report import flips
    from bench.report.frame import DEMO_NOTE
    from bench.report.sentences import one_line

    ledgers = comparison.ledgers
    names = flips.short_names([ledger.other.case for ledger in ledgers])
    if ledgers:
        _draw(flips.ledgers_table(comparison.title, names, ledgers, flips.COUNTS), console)
        notes = flips.how_to_read(ledgers)
        _draw(flips.ledgers_table("Both sides", names, ledgers, flips.TOTALS, *notes), console)
    for name, ledger in zip(names, ledgers, strict=True):
        if most_flips and ledger.n_flips:
            shown = min(most_flips, ledger.n_flips)
            title = f"{name}: {shown} of {ledger.n_flips:,} flips, the largest margin of the base first (class, margin)"
            _draw(flips.flips_table(title, ledger, most_flips), console)
    for line in flips.lines(names, ledgers):
        console.print(Text(line))
    for left in comparison.left_out:
        console.print(
            Text(
                one_line(
                    f"not compared: {left.case.label} ({left.case.case_id}) of {left.run}: {left.reason}"
                )
            )
        )
    for note in comparison.notes:
        console.print(Text(one_line(note), style="dim"))
    if comparison.is_demo:
        console.print(Text(DEMO_NOTE, style="bold yellow"))


def _draw(table: Table, console: Console) -> None:
    """As ``bench.report.terminal`` draws; a narrow terminal wraps, and nothing is cut off."""
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
