"""`schema`: the JSON Schema of a run's ``table.json``."""

from __future__ import annotations

import json

import typer


def schema() -> None:
    """Print the JSON Schema of a run's table.json."""
    from bench.report.data import schema as made

    typer.echo(json.dumps(made(), indent=2))
