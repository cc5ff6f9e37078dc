"""The command line: `scarlet-bench`. Thin: it reads options, calls the library and turns errors into exit codes."""

from __future__ import annotations

import dataclasses
import json
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from models.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.session import Ended

GOOD, NOT_OK, USER_ERROR, INTERRUPTED = 0, 1, 2, 130

LOG_WIDTH = 160

# For commands that hand their options on to `run`.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app = typer.Typer(
    name="scarlet-bench",
    help="Compare the accuracy and latency of an image classifier across inference runtimes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]


@app.command()
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
    pipeline: Annotated[str, typer.Option(help="reference or dali.")] = "dali",
    backends: Annotated[str, typer.Option(help="Comma-separated.")] = "pytorch,onnxruntime",
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
    option: Annotated[
        list[str] | None,
        typer.Option(help="backend.name=value, for example pytorch.form=plain; may be repeated."),
    ] = None,
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
    """Measure a model and report."""
    from bench import session
    from bench.settings import Settings

    console = _console(as_json)
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
        "options": tuple(option or ()),
    }
    if plan_file is not None:
        from bench import planfile

        # The file says what the command line does not.
        explicit = {name: value for name, value in given.items() if _is_explicit(context, name)}
        given = {**given, **planfile.read(plan_file).settings(), **explicit}
    settings = Settings(**given)
    if purpose == "plan":
        session.foretell(settings, console)
        return
    if purpose == "noise":
        session.measure_noise(settings, out, console)
        return
    ended = (
        session.resume(out or session.RESULTS / "latest", console)
        if resume
        else session.run(settings, out, console)
    )
    _show(ended.run, console, as_json)
    raise typer.Exit(exit_code(ended, strict))


def _is_explicit(context: typer.Context, setting: str) -> bool:
    """Whether the command line gave this setting."""
    parameter = {"budget_seconds": "budget", "timeout_seconds": "timeout", "options": "option"}.get(
        setting, setting
    )
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


@app.command(context_settings=PASS_ON)
def plan(context: typer.Context) -> None:
    """Show what `run` with the same options would do, and about how long it would take."""
    app(["run", *context.args, "--purpose", "plan"])


@app.command("noise", context_settings=PASS_ON)
def measure_noise(context: typer.Context) -> None:
    """Measure a Case against itself: what difference can this machine resolve today? Takes the options of `run`."""
    defaults = ["--scenarios", "latency", "--batches", "1", "--backends", "onnxruntime"]
    app(["run", *defaults, *context.args, "--purpose", "noise"])


def exit_code(ended: Ended, strict: bool) -> int:
    """130 when interrupted, 1 when ``strict`` and a Case is not ok, else 0."""
    if ended.interrupted:
        return INTERRUPTED
    return NOT_OK if strict and any(status.value != "ok" for status in ended.statuses) else GOOD


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run's folder.")] = Path("results/latest"),
    as_json: Json = False,
) -> None:
    """Remake a run's reports from its raw files."""
    _show(run, _console(as_json), as_json)


@app.command()
def export(
    model: Annotated[str, typer.Option(help="scarlet_a, scarlet_b, scarlet_c or timm/<name>.")] = "scarlet_c",
    checkpoint: Annotated[str | None, typer.Option(help="Weights file, 'demo' or 'random'.")] = None,
    data: Annotated[
        str | None, typer.Option(help="Images to check the graph on. Default: the demo set.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the graph. Default: <model>.onnx")] = None,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX and check it against PyTorch."""
    from bench import session

    console = _console(as_json)
    files, target = session.export(model, checkpoint, data, out, console)
    if as_json:
        typer.echo(json.dumps({"out": str(target), **files}))
        return
    parity = files["parity"]
    console.print(
        f"{target}: {files['model']}, {files['weights']} weights; largest difference of a logit from PyTorch "
        f"{parity['max_abs_diff']:.2g}, the logits' spread {parity['logits_spread']:.3g}",
        highlight=False,
        soft_wrap=True,
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("data/demo"),
    images: Annotated[int, typer.Option(help="How many.")] = 512,
) -> None:
    """Make the demo images."""
    from bench.images import make_demo_set

    if images < 1:
        raise BenchError(f"--images {images} is not a number above 0", "Write for example --images 512.")
    console = _console(False)
    make_demo_set(out, images, console)
    console.print(f"{images} demo images are in {out}", highlight=False, soft_wrap=True)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Tell what this machine is, what disturbs measurements on it, and what to do."""
    from bench import host

    checks = host.doctor()
    if as_json:
        typer.echo(json.dumps([check.to_dict() for check in checks]))
        return
    console = _console(False)
    for check in checks:
        console.print(
            f"{check.state:>4}  {check.check}: {check.text}", markup=False, highlight=False, soft_wrap=True
        )
        if check.advice:
            console.print(f"      {check.advice}", markup=False, highlight=False, soft_wrap=True)


@app.command()
def models(as_json: Json = False) -> None:
    """List the models that can be named."""
    from models import zoo

    specs = [zoo.resolve(name) for name in zoo.names()]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(spec) for spec in specs]))
        return
    for spec in specs:
        typer.echo(spec.name)
    typer.echo("timm/<name>     any timm classifier (needs the extra timm)")
    typer.echo("onnx:<file>     any ONNX classifier with one N x 3 x H x W float input")


def _console(as_json: bool) -> Console:
    """Where people read: standard output, or standard error when that is taken by JSON."""
    from rich.console import Console

    console = Console(stderr=as_json)
    # A pipe or a log has no width; rich would break lines and tables at 80 columns.
    return console if console.is_terminal else Console(stderr=as_json, width=LOG_WIDTH)


def _show(run: Path, console: Console, as_json: bool) -> None:
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


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Entry point: a `BenchError` becomes two lines and exit code 2; Ctrl-C and SIGTERM become 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
    except BenchError as mistake:
        sys.stderr.write(f"error: {mistake.what}\n       {mistake.do}\n")
        sys.exit(USER_ERROR)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
