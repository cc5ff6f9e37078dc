"""`check`: has accuracy become worse than a baseline's?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands import options
from bench.commands.show import Json, Out, Strict, console_for, exit_code, show
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.studies.check.report import Report


def check(
    context: typer.Context,
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
    against_model: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="Two models, old and new, in place of a baseline: ONNX files, weights of --model, or names of models. "
            "Accuracy is compared image by image, latency in turns. The options below are of this only."
        ),
    ] = None,
    backends: options.Backends = "onnxruntime",
    devices: options.Devices = "cpu",
    precisions: options.Precisions = "fp32",
    batches: options.Batches = "1",
    threads: options.Threads = "",
    pipeline: options.Pipeline = "",
    scenarios: options.Scenarios = "accuracy,latency",
    images: options.Images = "",
    budget: options.Budget = 120.0,
    lives: options.Lives = None,
    option: options.Option = None,
    tolerance: options.Tolerance = None,
    strict: Strict = False,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML here.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a Markdown summary to this file.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare a run with a baseline, or two models, image by image: exit code 0 pass or unresolved, 1 fail.

    With --strict unresolved is 3.
    """
    from bench.studies.check import ci
    from bench.studies.check.drive import check as compare
    from bench.studies.check.report import document

    console = console_for(as_json)
    if against_model is None:
        if extra := options.given(context, explicit=True).keys() - {"model", "data", "checkpoint"}:
            option_name = next(name for name in context.params if options.FIELDS.get(name, name) in extra)
            raise BenchError(f"--{option_name} is of --against-model", "A check repeats the run of its baseline.")
        report, run = compare(baseline, model, current, config, data, checkpoint, sequential, latency, console)
    else:
        report, run = _models(context, against_model, config, tolerance, console)
    show(document(report, str(run) if run else None), out, as_json)
    ci.write(report, junit, summary, console.file)
    raise typer.Exit(exit_code(report.verdict.value, strict))


def _models(
    context: typer.Context, models: tuple[str, str], config: Path | None, tolerance: float | None, console: Console
) -> tuple[Report, Path]:
    """Measures two models in one run, and compares them."""
    from bench.report.forms import write_all
    from bench.studies.against import models as pair
    from bench.studies.against.verdict import REVISION, THIS, figures
    from bench.studies.check.drive import compare_pair
    from bench.studies.check.report import Judged
    from bench.studies.check.rules import Verdict

    if unused := [name for name in ("baseline", "current", "sequential", "latency") if context.params[name]]:
        raise BenchError(f"--{unused[0]} is of a check against a baseline", "Leave it out, or --against-model.")
    ended = pair.run(models, options.spec_of(context), console, None if tolerance is None else tolerance / 100.0)
    if ended.interrupted:
        raise KeyboardInterrupt
    timed = [
        Judged(case, Verdict(each.outcome.value), figures(each, ended.tolerance))
        for case, each in zip(ended.cases, ended.found, strict=True)
    ]
    write_all(ended.run)
    return compare_pair(ended.run, REVISION, (pair.OLD, THIS), config, timed), ended.run
