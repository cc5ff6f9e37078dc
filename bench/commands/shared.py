"""What commands have in common: exit codes, where to print, how a run is shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

GOOD, NOT_OK, USER_ERROR, UNRESOLVED, INTERRUPTED = 0, 1, 2, 3, 130

LOG_WIDTH = 160

# For commands that hand their options on to another.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]


def console_for(as_json: bool) -> Console:
    """Where people read: standard output, or standard error when that is taken by JSON."""
    from rich.console import Console

    console = Console(stderr=as_json)
    # A pipe or a log has no width; rich would break lines and tables at 80 columns.
    return console if console.is_terminal else Console(stderr=as_json, width=LOG_WIDTH)


def show_run(run: Path, console: Console, as_json: bool) -> None:
    """Writes the reports of a run and prints its table."""
    from bench.report import write_all
    from bench.report.frame import load_frame
    from bench.report.terminal import print_tables
    from bench.results import RunFolder

    folder = RunFolder.open(run.resolve())
    written = write_all(folder.path)
    frame = load_frame(folder.path)
    if as_json:
        records = json.loads(frame.to_json(orient="records"))
        typer.echo(json.dumps({"run": str(folder.path), "cases": records}))
        return
    print_tables(frame, folder.read_run_info(), console)
    console.print(f"report: {written['markdown']}", markup=False, highlight=False, soft_wrap=True)
