"""`check`: has accuracy become worse than a baseline's?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import Json, Out, Strict, console_for, exit_code, show


def check(
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="A file that `scarlet-bench baseline` wrote. Default: results/baselines/<model>.json, on demo "
            "images <model>-demo.json."
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="Whose baseline, where none is named.")] = "scarlet_c",
    current: Annotated[
        Path | None, typer.Option(help="A run's folder. Default: run now what the baseline ran.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML with other tolerances.")] = None,
    data: Annotated[str | None, typer.Option(help="Where the baseline's images are now.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Where the baseline's weights are now.")] = None,
    sequential: Annotated[
        bool, typer.Option("--sequential", help="Score images in growing blocks, and stop when decided.")
    ] = False,
    latency: Annotated[
        bool, typer.Option("--latency", help="Check ratios of times too, where the baseline holds some.")
    ] = False,
    strict: Strict = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a Markdown summary to this file.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare a run with a baseline, image by image: exit code 0 pass or unresolved, 1 fail.

    With --strict unresolved is 3.
    """
    from bench.studies.check import ci
    from bench.studies.check.drive import Asked
    from bench.studies.check.drive import check as compare
    from bench.studies.check.report import document

    console = console_for(as_json)
    asked = Asked(baseline, model, current, config, data, checkpoint, sequential, latency)
    report, run = compare(asked, console)
    show(document(report, str(run) if run else None), out, as_json)
    ci.write(report, junit, summary, console.file)
    raise typer.Exit(exit_code(report.verdict.value, strict))
