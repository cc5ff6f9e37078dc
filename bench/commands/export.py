"""`export`: a model as an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.shared import Json, console_for


def export(
    model: Annotated[str, typer.Option(help="scarlet_a, scarlet_b, scarlet_c or timm/<name>.")] = "scarlet_c",
    checkpoint: Annotated[str | None, typer.Option(help="Weights file, 'demo' or 'random'.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Images to check the graph on. Default: the demo set.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the graph. Default: <model>.onnx")] = None,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX and check it against PyTorch."""
    from bench import session

    console = console_for(as_json)
    files, target = session.export(model, checkpoint, data, out, console)
    if as_json:
        typer.echo(json.dumps({"out": str(target), **files}))
        return
    parity = files["parity"]
    console.print(
        f"{target}: {files['model']}, {files['weights']} weights; largest difference of a logit from PyTorch "
        f"{parity['max_abs_diff']:.2g}, the logits' spread {parity['logits_spread']:.3g}",
        highlight=False,
        soft_wrap=True,
    )
