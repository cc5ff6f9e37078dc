"""`models`: what can be named."""

from __future__ import annotations

import dataclasses
import json

import typer

from bench.commands.show import Json


def models(as_json: Json = False) -> None:
    """List the models that can be named."""
    from scarlet import zoo

    specs = [zoo.resolve(name) for name in zoo.names()]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(spec) for spec in specs]))
        return
    for spec in specs:
        typer.echo(spec.name)
    typer.echo("timm/<name>     any timm classifier (needs the extra timm)")
    typer.echo("onnx:<file>     any ONNX classifier with one N x 3 x H x W float input")
