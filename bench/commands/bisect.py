"""`bisect`: the first layer where two computations of a model part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import GOOD, NOT_OK, Json, Out, console_for, show


@options.preprocessing
def bisect(
    context: typer.Context,
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    onnx: Annotated[Path | None, typer.Option(help="A graph of the model. Default: the export that runs use.")] = None,
    against: Annotated[
        Path | None, typer.Option(help="Compare the graph with this one instead of PyTorch with the graph.")
    ] = None,
    data: options.Data = None,
    images: Annotated[int, typer.Option(help="How many.")] = 8,
    rtol: Annotated[
        float | None, typer.Option(help="Accepted difference as a share of a layer's spread. Default: 1e-3.")
    ] = None,
    every_layer: Annotated[
        bool, typer.Option("--every-layer", help="Compare each layer in order: finds whatever the output hides.")
    ] = False,
    table: Annotated[int, typer.Option(help="Also list this many layers, the lowest signal-to-noise ratio first.")] = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Find the first layer where a graph leaves PyTorch, or another graph."""
    from bench.studies import bisect as study

    console = console_for(as_json)
    sides = study.sides(options.spec_of(context), onnx, against, console)
    outcome = study.bisect(sides, rtol, every_layer, table, console)
    show(study.document(outcome), out, as_json)
    raise typer.Exit(GOOD if outcome.found.first is None else NOT_OK)
