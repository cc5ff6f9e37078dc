"""`history`: all runs of a folder, as ratios to their baselines, and where they changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import Json, Out, console_for, show_document


def history(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path("results"),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Follow every Case through all runs of a folder, and mark where its level changed."""
    from bench.report import document
    from bench.studies import trends
    from bench.studies.history import load_history, series

    if out is not None:
        document.check_target(out)
    table = load_history(folder)
    made = trends.document(table, series(table), f"History of {table['run'].nunique()} runs")
    if out is not None:
        document.write(made, out)
    if as_json:
        typer.echo(json.dumps(made.data, allow_nan=False))
    else:
        show_document(made, console_for(False))
