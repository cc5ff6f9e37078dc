"""`history`: all runs of a folder, as ratios to their baselines, and where they changed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import Json, Out, show


def history(
    folder: Annotated[Path, typer.Argument(help="Where the runs are.")] = Path("results"),
    html: Annotated[Path | None, typer.Option("--html", help="Write one page with the course of every row.")] = None,
    benchmark: Annotated[
        Path | None, typer.Option("--benchmark", help="Write JSON for github-action-benchmark (customSmallerIsBetter).")
    ] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Follow every Case through all runs of a folder, and mark where its level changed."""
    from bench.report.data import write_json
    from bench.studies.history import benchmark_action, document, load_history, series, write_page

    runs = load_history(folder)
    found, title = series(runs), f"History of {runs['run'].nunique()} runs"
    if html is not None:
        write_page(found, folder, title, html)
    if benchmark is not None:
        write_json(benchmark_action(found), benchmark)
    show(document(runs, found, title), out, as_json, [f"written: {path}" for path in (html, benchmark) if path])
