"""`models`: what can be named."""

from __future__ import annotations

from dataclasses import asdict

from bench.commands.show import Json, Out, show


def models(out: Out = None, as_json: Json = False) -> None:
    """List the models that can be named."""
    from bench.report.document import Document, notes
    from scarlet import zoo

    specs = [zoo.resolve(name) for name in zoo.names()]
    published = {row.model: asdict(row) for row in zoo.rows()}
    data = [{**asdict(spec), "published": published.get(spec.name)} for spec in specs]
    names = [
        *(spec.name for spec in specs),
        "timm/<name>     any timm classifier (needs the extra timm)",
        "onnx:<file>     any ONNX classifier with one N x 3 x H x W float input",
    ]
    show(Document("Models", notes(names), data), out, as_json)
