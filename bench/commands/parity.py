"""`parity`: a pipeline against the reference, stage by stage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.show import GOOD, NOT_OK, Json, console_for

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report.tables import Table


def parity(
    data: Annotated[str | None, typer.Option(help="ImageNet validation folder. Default: a demo set.")] = None,
    pipeline: Annotated[
        str,
        typer.Option(
            help="Comma-separated. Default: turbo,dali and, beside a GPU, dali_gpu,dali_gpu_engine."
        ),
    ] = "",
    images: Annotated[str, typer.Option(help="How many images, evenly over the classes, or all.")] = "200",
    model: Annotated[
        str, typer.Option(help="Whose preprocessing, and whose predictions: as of run.")
    ] = "scarlet_c",
    checkpoint: Annotated[str | None, typer.Option(help="Weights file, 'demo' or 'random'.")] = None,
    as_json: Json = False,
) -> None:
    """Compare the pixels of a pipeline with the reference's, and count the predictions that each stage changes.

    Exit code 0 where all is within tolerance, 1 where it is not.
    """
    import pipelines
    from bench.run import pixel_gate
    from bench.run.spec import RunSpec
    from bench.studies.parity import stage_table

    console = console_for(as_json)
    named = pipeline or ",".join(pipelines.fast_names())
    found = pixel_gate.compare(data, named, RunSpec(images=images).n_images, model, checkpoint, console)
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
