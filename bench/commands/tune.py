"""`tune`: a short search for the fastest way from files to top-5."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import (
    Backend,
    Checkpoint,
    Data,
    Model,
    Option,
    Pipeline,
    Precision,
    Seed,
    Timeout,
    spec_of,
)
from bench.commands.show import GOOD, NOT_OK, Json, console_for

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report.tables import Table
    from bench.studies.tune.drive import Tuned


def tune(
    context: typer.Context,
    model: Model = "scarlet_c",
    checkpoint: Checkpoint = None,
    data: Data = None,
    backend: Backend = "openvino",
    pipeline: Pipeline = "turbo",
    precision: Precision = "fp32",
    batches: Annotated[str, typer.Option(help="Batch sizes to try, comma-separated.")] = "8,32",
    budget: Annotated[float, typer.Option(help="Seconds for all passes after warm-up.")] = 60.0,
    timeout: Timeout = 600.0,
    seed: Seed = 0,
    option: Option = None,
    out: Annotated[
        str | None, typer.Option(help="Folder for this run. Default: a new one in results/runs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the fastest split of the cores between decoding and inference, and the options that choose it."""
    from pathlib import Path

    from bench.studies.tune import drive

    console = console_for(as_json)
    spec = spec_of(context, scenarios="throughput")
    found = drive.run(spec, Path(out) if out else None, console)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), allow_nan=False))
    else:
        show(found, console)
    raise typer.Exit(GOOD if found.best else NOT_OK)


def show(found: Tuned, console: Console) -> None:
    """Prints all candidates and the command that measures the best."""
    from bench.studies.tune import search
    from bench.studies.tune.document import tuning_table

    _draw(tuning_table(found.standings), console)
    for note in found.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    if found.best:
        console.print("the fastest, to measure at length, with what bounds it:", highlight=False)
        console.print(search.command(found.best.case), markup=False, highlight=False, soft_wrap=True)
    console.print(f"stored: {found.run}", markup=False, highlight=False, soft_wrap=True)


def _draw(table: Table, console: Console) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(table.title, style="table.title"))
    drawn = RichTable(box=None, padding=(0, 2, 0, 0))
    for header, numeric in zip(table.header, table.numeric, strict=True):
        drawn.add_column(header, justify="right" if numeric else "left", overflow="fold")
    for cells in table.rows:
        drawn.add_row(*map(Text, cells))
    console.print(drawn)
    for note in table.notes:
        console.print(Text(note, style="dim"))
