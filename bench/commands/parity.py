"""`parity`: a pipeline against the reference, stage by stage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import Checkpoint, Data, Images, Model, spec_of
from bench.commands.show import GOOD, NOT_OK, Json, console_for

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report.tables import Table


def parity(
    context: typer.Context,
    data: Data = None,
    pipeline: Annotated[
        str,
        typer.Option(
            help="Comma-separated. Default: turbo,dali and, beside a GPU, dali_gpu,dali_gpu_engine."
        ),
    ] = "",
    images: Images = "200",
    model: Model = "scarlet_c",
    checkpoint: Checkpoint = None,
    as_json: Json = False,
) -> None:
    """Compare the pixels of a pipeline with the reference's, and count the predictions that each stage changes.

    Exit code 0 where all is within tolerance, 1 where it is not.
    """
    import pipelines
    from bench.studies.parity import compare, stage_table

    console = console_for(as_json)
    spec = spec_of(context, pipeline=pipeline or pipelines.fast_names())
    found = compare(spec, console)
    if as_json:
        typer.echo(json.dumps(found))
    else:
        for name, answer in found["pipelines"].items():
            _draw(stage_table(name, answer), console)
    within = all(answer["status"] == "ok" for answer in found["pipelines"].values())
    raise typer.Exit(GOOD if within else NOT_OK)


def _draw(table: Table, console: Console) -> None:
    from rich.table import Table as RichTable
    from rich.text import Text

    console.print(Text(table.title, style="table.title"))
    drawn = RichTable(box=None, padding=(0, 2, 0, 0))
    for header, numeric in zip(table.header, table.numeric, strict=True):
        drawn.add_column(header, justify="right" if numeric else "left", no_wrap=True)
    for cells in table.rows:
        drawn.add_row(*map(Text, cells))
    console.print(drawn)
    console.print()
    for note in table.notes:
        console.print(Text(note, style="dim"))
    console.print()
