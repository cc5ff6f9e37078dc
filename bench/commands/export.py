"""`export`: a model as a file that a runtime loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import Json, console_for, out_paths, show


@options.preprocessing
def export(
    context: typer.Context,
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    precision: options.Precision = "fp32",
    dialect: Annotated[
        str | None,
        typer.Option(help="Of int8: ort (ONNX Runtime), symmetric (TensorRT) or nncf (OpenVINO). Default: ort."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML file that says how to lower the precision, as a search writes it.")
    ] = None,
    calibration: options.Calibration = None,
    pipeline: options.Pipeline = "",
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write the graph. Default: <model>.onnx, <model>-int8-ort.onnx and so on."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX and check it against PyTorch; or lower its precision too."""
    from bench.studies import export as exporting

    graph, file = out_paths(out)
    spec = options.spec_of(context)
    lower = exporting.lower(precision, dialect, recipe)
    show(exporting.document(exporting.export(spec, graph, console_for(as_json), lower)), file, as_json)
