"""`gpu-check`: everything there is to measure and prove on a GPU, in one call of a given length."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.show import GOOD, NOT_OK, Json, console_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from tests.gpu.acceptance.carry_out import Record
    from tests.gpu.acceptance.figures import Figure


def gpu_check(
    out: Annotated[
        Path,
        typer.Option(help="Folder that takes a new folder <gpu>-<date>, or goes on with the one of today."),
    ] = Path("results/published"),
    minutes: Annotated[float, typer.Option(help="How long all of it may take.")] = 7.5,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer images, precisions and batches: does it all work?")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the GPU tests, the full comparison of SCARLET-C and the GPU decoding, and judge the figures.

    Exit code 0 where every figure that was measured meets its target, 1 where one does not or nothing was measured.
    """
    from bench.record.files import disk_errors, one_line
    from bench.worker.channel import own_home
    from scarlet.errors import BenchError
    from tests.gpu.acceptance import carry_out, machine, plans, steps, summary

    if not minutes > 0:
        raise BenchError(
            f"--minutes {minutes:g} is no time", "Give a number above 0, for example --minutes 8."
        )
    console = console_for(as_json)
    found = machine.find()
    folder = (out / machine.folder_name(found, datetime.now(timezone.utc).date())).resolve()
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def after(records: Sequence[Record]) -> None:
        try:
            summary.write(folder, found, records)
        except Exception as error:  # the steps that follow are worth more; at the end it is written again
            say(f"the summary cannot be written yet: {one_line(error)}")

    say(f"{found.name}; results go to {folder}")
    todo = steps.steps(folder, own_home(), quick, plans.absent_backends())
    records = carry_out.carry_out(todo, folder, minutes, say, after)
    figures = summary.write(folder, found, records)
    if as_json:
        typer.echo(json.dumps(json.loads((folder / summary.SUMMARY_JSON).read_text(encoding="utf-8"))))
    else:
        _show(figures, console)
        say(f"summary: {folder / summary.SUMMARY}")
    raise typer.Exit(exit_code(figures))


def exit_code(figures: Sequence[Figure]) -> int:
    """1 where a figure falls short of its target, or where none could be measured; else 0."""
    verdicts = {figure.verdict for figure in figures}
    return NOT_OK if "not met" in verdicts or verdicts <= {"not run"} else GOOD


def _show(figures: Sequence[Figure], console: Console) -> None:
    for figure in figures:
        why = f" ({figure.why})" if figure.why else ""
        line = f"{figure.verdict:>8}  {figure.name}: {figure.value or 'no figure'}{why}"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(gpu_check)

if __name__ == "__main__":
    from bench.cli import main

    main(app)
