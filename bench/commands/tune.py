"""`tune`: a short search for the fastest way from files to top-5."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.show import GOOD, NOT_OK, Json, console_for

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report.tables import Table
    from bench.studies.tune.drive import Tuned


def tune(
    model: Annotated[
        str, typer.Option(help="scarlet_a, scarlet_b, scarlet_c, timm/<name> or onnx:<file>.")
    ] = "scarlet_c",
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Weights file, 'demo' or 'random'. Default: demo weights where they exist."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="ImageNet validation folder. Default: a demo set.")] = None,
    backend: Annotated[str, typer.Option(help="One backend.")] = "openvino",
    pipeline: Annotated[str, typer.Option(help="One of reference, dali, turbo.")] = "turbo",
    precision: Annotated[str, typer.Option(help="One precision.")] = "fp32",
    batches: Annotated[str, typer.Option(help="Batch sizes to try, comma-separated.")] = "8,32",
    budget: Annotated[float, typer.Option(help="Seconds for all passes after warm-up.")] = 60.0,
    timeout: Annotated[float, typer.Option(help="Seconds for each step of a candidate.")] = 600.0,
    seed: Annotated[int, typer.Option(help="Of the order of turns.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option(help="backend.name=value that all candidates keep; may be repeated."),
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder for this run. Default: a new one in results/runs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the fastest split of the cores between decoding and inference, and the options that choose it."""
    from pathlib import Path

    from bench.run.spec import RunSpec
    from bench.studies.tune import drive

    console = console_for(as_json)
    spec = RunSpec(
        model=model,
        checkpoint=checkpoint,
        data=data,
        pipeline=pipeline,
        backends=backend,
        precisions=precision,
        batches=batches,
        scenarios="throughput",
        budget_seconds=budget,
        timeout_seconds=timeout,
        seed=seed,
        options=option or (),
    )
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
