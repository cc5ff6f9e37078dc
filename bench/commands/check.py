"""`check`: has accuracy become worse than a baseline's?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.show import GOOD, NOT_OK, UNRESOLVED, Json, Out, console_for, show
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.studies.check.report import Report

EXIT_CODES = {"pass": GOOD, "fail": NOT_OK, "unresolved": UNRESOLVED}


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
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a Markdown summary to this file.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare a run with a baseline, image by image: exit code 0 pass, 1 fail, 3 unresolved."""
    import numpy as np

    from bench.record.run_folder import RunFolder
    from bench.run.model_files import PreparationFailed
    from bench.studies.check import baseline as files
    from bench.studies.check.drive import Scored, score
    from bench.studies.check.report import document
    from bench.studies.check.rows import Order, judge, unprepared
    from bench.studies.check.snapshot import of_run
    from bench.studies.check.tolerances import load
    from scarlet import zoo

    console = console_for(as_json)
    tolerances = load(config)
    known = files.read(baseline or files.default_path(zoo.resolve(model).name, files.is_demo(data)))
    timed = (latency or tolerances.latency.enabled) and bool(known.timed)
    scored = None
    if current is None:
        spec = files.spec_of(known, data, checkpoint, timed)
        try:
            scored = score(known, spec, tolerances, sequential, console)
        except BenchError as mistake:
            # What the change under test broke is its failure; a wrong path or name is the caller's mistake.
            if not (mistake.stage or isinstance(mistake, PreparationFailed)):
                raise
            reason = mistake.what if mistake.stage else f"{mistake.what}. {mistake.do}"
            report = unprepared(known, reason, mistake.stage)
    else:
        order = np.random.default_rng(tolerances.sequential.seed).permutation(known.n_images)
        run = RunFolder.open(current.resolve())
        scored = Scored(of_run(run, with_timed=timed), Order(order) if sequential else None, run.path)
    if scored is not None:
        report = judge(known, scored.current, tolerances, latency=timed, order=scored.order)
    show(document(report, str(scored.run) if scored and scored.run else None), out, as_json)
    _write(report, junit, summary, console)
    raise typer.Exit(EXIT_CODES[report.verdict.value])


def _write(report: Report, junit: Path | None, summary: Path | None, console: Console) -> None:
    """The files asked for, and what GitHub Actions takes where it is what runs this."""
    from bench.studies.check import ci
    from bench.studies.check.junit import write

    if junit is not None:
        write(report, junit)
    step_summary = os.environ.get("GITHUB_STEP_SUMMARY")
    for path in dict.fromkeys(p for p in (summary, Path(step_summary) if step_summary else None) if p):
        ci.append_summary(report, path)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for command in ci.annotation_lines(report):
            console.file.write(f"{command}\n")
