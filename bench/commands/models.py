"""`models`: what can be named."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer

from bench.commands.show import Json


def models(as_json: Json = False) -> None:
    """List the models that can be named."""
    from scarlet import zoo

    specs = [zoo.resolve(name) for name in zoo.names()]
    if as_json:
        published = {row.model: asdict(row) for row in zoo.rows()}
        typer.echo(json.dumps([{**asdict(spec), "published": published.get(spec.name)} for spec in specs]))
        return
    for spec in specs:
        typer.echo(spec.name)
    typer.echo("timm/<name>     any timm classifier (needs the extra timm)")
    typer.echo("onnx:<file>     any ONNX classifier with one N x 3 x H x W float input")
