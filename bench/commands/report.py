"""`report`: a run's reports again, from its raw files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.shared import Json, console_for, show_run


def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")] = Path("results/latest"),
    as_json: Json = False,
) -> None:
    """Remake a run's reports from its raw files."""
    show_run(run, console_for(as_json), as_json)
