"""`history`: all runs of a folder, as ratios to their baselines, and where they changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import Json, Out, show


def history(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path("results"),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Follow every Case through all runs of a folder, and mark where its level changed."""
    from bench.studies.history import document, load_history, series

    runs = load_history(folder)
    show(document(runs, series(runs), f"History of {runs['run'].nunique()} runs"), out, as_json)
