"""`run`, and the two commands that take its options: `plan` and `noise`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bench.commands.show import Json, console_for, show_run


def run(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="scarlet_a, scarlet_b, scarlet_c, timm/<name> or onnx:<file>.")
    ] = "scarlet_c",
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Weights file, 'demo' or 'random'. Default: demo weights where they exist."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="ImageNet validation folder. Default: a demo set.")] = None,
    pipeline: Annotated[
        str,
        typer.Option(
            help="Comma-separated: turbo, dali, dali_gpu, dali_gpu_engine, reference; latency uses the first. Default: "
            "turbo, or dali_gpu for cuda."
        ),
    ] = "",
    backends: Annotated[
        str,
        typer.Option(
            help="Comma-separated. Default: pytorch,onnxruntime and, where it is installed, openvino."
        ),
    ] = "",
    devices: Annotated[str, typer.Option(help="Comma-separated: cpu, cuda.")] = "cpu",
    precisions: Annotated[str, typer.Option(help="Comma-separated.")] = "fp32",
    batches: Annotated[
        str, typer.Option(help="Batch sizes for latency and throughput, comma-separated.")
    ] = "1,8",
    threads: Annotated[
        str, typer.Option(help="Threads of a backend, comma-separated. Default: all cores.")
    ] = "",
    instances: Annotated[
        str, typer.Option(help="Copies of a backend that work side by side, comma-separated.")
    ] = "1",
    scenarios: Annotated[
        str, typer.Option(help="Comma-separated: accuracy, latency, throughput.")
    ] = "accuracy,latency",
    images: Annotated[str, typer.Option(help="How many images to score, or all.")] = "",
    budget: Annotated[float, typer.Option(help="Seconds for all timed rounds together.")] = 60.0,
    timeout: Annotated[float, typer.Option(help="Seconds that one Case may take.")] = 1800.0,
    seed: Annotated[int, typer.Option(help="Of the order of turns.")] = 0,
    calibration: Annotated[
        str | None, typer.Option(help="Folder of images that int8 is calibrated on; none of them is scored.")
    ] = None,
    stop: Annotated[
        str,
        typer.Option(
            help="When timed rounds are enough: precision (of the ratios) or plateau (of the noise)."
        ),
    ] = "precision",
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="backend.name=value, for example pytorch.form=plain; may be repeated, and value may be a list."
        ),
    ] = None,
    builds: Annotated[
        int, typer.Option(help="TensorRT plans to build of each kind, to tell their spread.")
    ] = 1,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="YAML file with any of these settings, and what to exclude.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for this run. Default: a new one in results/runs.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the run in --out (default: the newest), as it was set up."),
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when any Case is not ok.")] = False,
    as_json: Json = False,
    purpose: Annotated[str, typer.Option(hidden=True)] = "run",
) -> None:
    """Measure a model and report.

    Exit code 0 where what could run is ok, 1 where a Case failed or crashed or none is ok.
    """
    from bench.report.differing_builds import options as build_options
    from bench.run import session
    from bench.run.spec import RunSpec, read_plan

    console = console_for(as_json)
    given: dict[str, Any] = {
        "model": model,
        "checkpoint": checkpoint,
        "data": data,
        "pipeline": pipeline,
        "backends": backends,
        "devices": devices,
        "precisions": precisions,
        "batches": batches,
        "threads": threads,
        "instances": instances,
        "scenarios": scenarios,
        "images": images,
        "budget_seconds": budget,
        "timeout_seconds": timeout,
        "seed": seed,
        "stop": stop,
        "calibration": calibration,
        "options": (*(option or ()), *build_options(builds)),
    }
    if plan_file is not None:
        # The file says what the command line does not.
        explicit = {name: value for name, value in given.items() if _is_explicit(context, name)}
        given = {**given, **read_plan(plan_file), **explicit}
    spec = RunSpec(**given)
    if purpose == "plan":
        session.foretell(spec, console)
        return
    if purpose == "noise":
        session.measure_noise(spec, out, console)
        return
    ended = (
        session.resume(out or session.RESULTS / "latest", console)
        if resume
        else session.run(spec, out, console)
    )
    show_run(ended.run, console, as_json)
    raise typer.Exit(ended.exit_code(strict))


def _is_explicit(context: typer.Context, setting: str) -> bool:
    """Whether the command line gave this setting."""
    parameters = {
        "budget_seconds": ("budget",),
        "timeout_seconds": ("timeout",),
        "options": ("option", "builds"),
    }
    sources = [context.get_parameter_source(name) for name in parameters.get(setting, (setting,))]
    return any(source is not None and source.name == "COMMANDLINE" for source in sources)


def plan(context: typer.Context) -> None:
    """Show what `run` with the same options would do, and about how long it would take."""
    context.find_root().command(["run", *context.args, "--purpose", "plan"])


def measure_noise(context: typer.Context) -> None:
    """Measure a Case against itself: what difference can this machine resolve today? Takes the options of `run`."""
    defaults = ["--scenarios", "latency", "--batches", "1", "--backends", "onnxruntime"]
    context.find_root().command(["run", *defaults, *context.args, "--purpose", "noise"])
