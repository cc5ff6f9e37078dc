"""`bisect`: the first layer where two computations of a model part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import Checkpoint, Data, Model, spec_of
from bench.commands.show import GOOD, NOT_OK, Json, Out, console_for, show
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from export.compare.bisect import Step


def bisect(
    context: typer.Context,
    model: Model = "scarlet_c",
    checkpoint: Checkpoint = None,
    onnx: Annotated[
        Path | None, typer.Option(help="A graph of the model. Default: the export that runs use.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Compare the graph with this one instead of PyTorch with the graph.")
    ] = None,
    data: Data = None,
    images: Annotated[int, typer.Option(help="How many.")] = 8,
    rtol: Annotated[
        float | None, typer.Option(help="Accepted difference as a share of a layer's spread. Default: 1e-3.")
    ] = None,
    every_layer: Annotated[
        bool,
        typer.Option("--every-layer", help="Compare each layer in order: finds whatever the output hides."),
    ] = False,
    table: Annotated[
        int, typer.Option(help="Also list this many layers, the lowest signal-to-noise ratio first.")
    ] = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Find the first layer where a graph leaves PyTorch, or another graph."""
    from bench.studies import bisect as bisection
    from export.compare.bisect import RTOL, Tolerance, error_table
    from export.compare.bisect import bisect as search

    if rtol is not None and not rtol >= 0:
        raise BenchError(f"--rtol {rtol:g} is not a number of 0 or more", "Write for example --rtol 0.01.")
    console = console_for(as_json)
    sides = bisection.sides(spec_of(context), onnx, against, console)
    tolerance = Tolerance(RTOL if rtol is None else rtol)
    say = _printer(console)
    layers = sides.paired.layers
    say(
        f"{sides.text}, {images} images; {len(layers)} values exist on both sides (told by {sides.paired.told_by})"
    )
    found = search(
        sides.compared,
        tolerance,
        list(sides.suspects),
        every_layer,
        on_step=lambda step: say(_step_text(step)),
    )
    weights = sides.weights_of(found.first) if found.first is not None else ()
    elsewhere = [
        difference
        for place, differences in sides.suspects.items()
        if layers[place] != found.first
        for difference in differences
    ]
    rows = error_table(sides.compared)[:table] if table > 0 else []
    outcome = bisection.Outcome(sides, found, weights, elsewhere, tolerance, rows)
    show(bisection.document(outcome), out, as_json)
    raise typer.Exit(GOOD if found.first is None else NOT_OK)


def _printer(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _step_text(step: Step) -> str:
    looked = f"  {len(step.layers)} looked at {step.why}, {step.layers[0]} to {step.layers[-1]}: "
    if step.first_beyond is None:
        return looked + "all agree"
    return looked + f"{step.agree} agree, {step.first_beyond} is the first that does not"
