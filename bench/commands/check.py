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


Baseline = Annotated[
    Path | None,
    typer.Option(help="Made by `baseline`. Default: results/baselines/<model>.json, on demo images <model>-demo.json."),
]
Current = Annotated[Path | None, typer.Option(help="A run's folder. Default: run now what the baseline ran.")]
Sequential = Annotated[
    bool, typer.Option("--sequential", help="Score images in growing blocks, and stop when decided.")
]
Latency = Annotated[bool, typer.Option("--latency", help="Check ratios of times too, where the baseline holds some.")]
AgainstModel = Annotated[
    tuple[str, str] | None,
    typer.Option(
        help="Two models, old and new, in place of a baseline: ONNX files, weights of --model, or names of models. "
        "Accuracy is compared image by image, latency in turns. The options below are of this only."
    ),
]


def check(
    context: typer.Context,
    baseline: Baseline = None,
    model: Annotated[str, typer.Option(help="Whose baseline, where none is named.")] = "scarlet_c",
    current: Current = None,
    config: Annotated[Path | None, typer.Option(help="YAML with other tolerances.")] = None,
    data: Annotated[str | None, typer.Option(help="Where the baseline's images are now.")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Where the baseline's weights are now.")] = None,
    sequential: Sequential = False,
    latency: Latency = False,
    against_model: AgainstModel = None,
    backends: options.Backends = "onnxruntime",
    devices: options.Devices = "cpu",
    precisions: options.Precisions = "fp32",
    batches: options.Batches = "1",
    threads: options.Threads = "",
    pipeline: options.Pipeline = "",
    scenarios: options.Scenarios = "accuracy,latency",
    images: options.Images = "",
    classes: options.Classes = None,
    labels: options.Labels = None,
    first_label: options.FirstLabel = None,
    restrict_classes: options.RestrictClasses = False,
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
    from bench.studies.check import report

    console = console_for(as_json)
    found, run = _compared(context, console)
    show(report.document(found, str(run) if run else None), out, as_json)
    report.write(found, junit, summary, console.file)
    raise typer.Exit(exit_code(found.verdict.value, strict))


def _compared(context: typer.Context, console: Console) -> tuple[Report, Path | None]:
    """The outcome, and the run's folder where one was begun."""
    params = context.params
    if params["against_model"] is None:
        if extra := options.given(context, explicit=True).keys() - {"model", "data", "checkpoint"}:
            name = next(name for name in params if options.FIELDS.get(name, name) in extra)
            raise BenchError(f"--{name} is of --against-model", "A check repeats the run of its baseline.")
        from bench.studies.check import drive

        return drive.check(drive.Request(**{name: params[name] for name in drive.Request.__annotations__}), console)
    from bench.report.forms import write_all
    from bench.studies.check import pairs

    if unused := [name for name in ("baseline", "current", "sequential", "latency") if params[name]]:
        raise BenchError(f"--{unused[0]} is of a check against a baseline", "Leave it out, or --against-model.")
    tolerance = None if params["tolerance"] is None else params["tolerance"] / 100.0
    ended = pairs.compare_models(params["against_model"], options.spec_of(context), console, tolerance)
    if ended.interrupted:
        raise KeyboardInterrupt
    write_all(ended.run)
    return pairs.report(ended, params["config"]), ended.run
