"""`bisect`: the first layer where two computations of a model part."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.commands.options import Checkpoint, Data, Model, spec_of
from bench.commands.show import GOOD, NOT_OK, Json, console_for
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from bench.studies.bisect import Sides
    from export.compare.bisect import Bisection, Difference, Step, Tolerance
    from export.compare.pairing import Layer
    from export.compare.weights import WeightDifference


_ELSEWHERE = 5  # differing weights of other layers that are listed


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
    for line in _verdict(found, weights, elsewhere, tolerance):
        say(line)
    rows = error_table(sides.compared)[:table] if table > 0 else []
    if rows:
        _print_table(rows, console)
    if as_json:
        typer.echo(json.dumps(_as_dict(sides, found, weights, elsewhere, tolerance, rows)))
    raise typer.Exit(GOOD if found.first is None else NOT_OK)


def _printer(console: Console) -> Callable[[str], None]:
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def _step_text(step: Step) -> str:
    looked = f"  {len(step.layers)} looked at {step.why}, {step.layers[0]} to {step.layers[-1]}: "
    if step.first_beyond is None:
        return looked + "all agree"
    return looked + f"{step.agree} agree, {step.first_beyond} is the first that does not"


def _verdict(
    found: Bisection,
    weights: Sequence[WeightDifference],
    elsewhere: Sequence[WeightDifference],
    tolerance: Tolerance,
) -> list[str]:
    """What was found, a line each."""
    effort = f"{found.looked_at} of {found.layers} layers were compared, at most {found.at_once} at a time"
    lines = [f"one by one: {found.scanned}"] if found.scanned else []
    if found.first is None or found.difference is None:
        lines += [f"nothing diverges beyond {tolerance.rtol:g} of a layer's spread; {effort}"]
        return lines + _elsewhere_text(elsewhere)
    layer = found.first
    lines += [
        f"first diverging layer: {layer.name} ({layer.kind})",
        f"  ONNX node: {layer.node or layer.other} ({layer.op})",
        f"  {_difference_text(found.difference)}; accepted are {tolerance.rtol:g} of the spread",
    ]
    lines += [f"  {difference.text()}" for difference in weights]
    if not weights:
        lines.append("  no weights to compare there")
    return [*lines, *_elsewhere_text(elsewhere), effort]


def _elsewhere_text(elsewhere: Sequence[WeightDifference]) -> list[str]:
    lines = [f"besides: {difference.text()}" for difference in elsewhere[:_ELSEWHERE]]
    more = len(elsewhere) - len(lines)
    return lines + ([f"{more} more tensors of weights differ"] if more else [])


def _difference_text(difference: Difference) -> str:
    if difference.shapes is not None:
        mine, theirs = (" x ".join(map(str, shape)) for shape in difference.shapes)
        return f"shapes differ: {mine} against {theirs}"
    text = f"largest difference {difference.max_abs:.3g}, {difference.relative:.3g} of"
    text += f" the spread {difference.spread:.3g}"
    return text if difference.worst_channel is None else f"{text}, in channel {difference.worst_channel}"


def _print_table(rows: Sequence[tuple[Layer, Difference]], console: Console) -> None:
    from rich.table import Table

    table = Table("layer", "kind", title="signal to noise, the lowest first", title_justify="left")
    for heading in ("SQNR, dB", "largest difference", "of the spread", "channel"):
        table.add_column(heading, justify="right")
    for layer, difference in rows:
        channel = "" if difference.worst_channel is None else str(difference.worst_channel)
        figures = (
            f"{difference.sqnr_db:.1f}",
            f"{difference.max_abs:.3g}",
            f"{difference.relative:.3g}",
            channel,
        )
        table.add_row(layer.name, layer.kind, *figures)
    console.print(table)


def _as_dict(
    sides: Sides,
    found: Bisection,
    weights: Sequence[WeightDifference],
    elsewhere: Sequence[WeightDifference],
    tolerance: Tolerance,
    rows: Sequence[tuple[Layer, Difference]],
) -> dict[str, Any]:
    """The same for machines; numbers that JSON does not know (infinite, NaN) as null."""

    def layer_dict(layer: Layer, difference: Difference | None) -> dict[str, Any]:
        figures = asdict(difference) if difference is not None else {}
        finite = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in figures.items()
        }
        names = {name: getattr(layer, name) for name in ("name", "kind", "node", "op")}
        return {**names, "reference": layer.reference, "other": layer.other, **finite}

    def weight_dict(weight: WeightDifference) -> dict[str, Any]:
        largest = weight.max_abs_diff if math.isfinite(weight.max_abs_diff) else None
        return {**asdict(weight), "max_abs_diff": largest}

    return {
        "compared": sides.text,
        "told_by": sides.paired.told_by,
        "images": sum(map(len, sides.batches)),
        "tolerance": asdict(tolerance),
        "layers": found.layers,
        "looked_at": found.looked_at,
        "at_once": found.at_once,
        "scanned": found.scanned,
        "steps": [asdict(step) for step in found.steps],
        "first": layer_dict(found.first, found.difference) if found.first is not None else None,
        "weights": [weight_dict(weight) for weight in weights],
        "weights_elsewhere": [weight_dict(weight) for weight in elsewhere],
        "table": [layer_dict(layer, difference) for layer, difference in rows],
    }
