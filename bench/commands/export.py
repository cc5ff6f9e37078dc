"""`export`: a model as a file that a runtime loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import Json, console_for


def export(
    model: Annotated[
        str,
        typer.Option(
            help="scarlet_a, scarlet_b, scarlet_c, timm/<name>; onnx:<file> with a lower precision."
        ),
    ] = "scarlet_c",
    checkpoint: Annotated[str | None, typer.Option(help="Weights file, 'demo' or 'random'.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Images to check the graph on. Default: the demo set.")
    ] = None,
    precision: Annotated[str, typer.Option(help="fp32, fp16, bf16 or int8.")] = "fp32",
    dialect: Annotated[
        str | None,
        typer.Option(
            help="Of int8: ort (ONNX Runtime), symmetric (TensorRT) or nncf (OpenVINO). Default: ort."
        ),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="YAML file that says how to lower the precision, as a search writes it."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            help="Images that int8 is calibrated on. Default: some of --data; the demo set has its own."
        ),
    ] = None,
    pipeline: Annotated[
        str, typer.Option(help="What reads the calibration images: turbo, dali or reference.")
    ] = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Where to write the graph. Default: <model>.onnx, <model>-int8-ort.onnx and so on."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX and check it against PyTorch; or lower its precision too."""
    from bench.studies import export as exporting

    console = console_for(as_json)
    in_lower = exporting.lower(precision, dialect, recipe, calibration, pipeline)
    written = exporting.export(model, checkpoint, data, out, console, in_lower)
    if as_json:
        typer.echo(json.dumps(exporting.to_json(written)))
        return
    console.print(exporting.describe(written), markup=False, highlight=False, soft_wrap=True)
