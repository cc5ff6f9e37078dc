"""`run`, and the two commands that take its options: `plan` and `noise`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from bench.commands import options
from bench.commands.show import Json, console_for, out_paths, show, show_run
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from bench.report.document import Document
    from bench.run.spec import RunSpec

Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out (default: the newest), as it was set up.")
]
Retry = Annotated[
    bool, typer.Option("--retry", help="With --resume: measure again what failed, crashed or took too long.")
]
Baseline = Annotated[
    str,
    typer.Option(help="File to keep its predictions in for later checks, or default: results/baselines/<model>.json."),
]
Cluster = Annotated[
    str, typer.Option(help="Run on a Dask scheduler's workers (docs/cluster.md): tcp://HOST:PORT, tls://..., local:N.")
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="With --cluster: reach another machine's scheduler without TLS.")
]


@options.preprocessing
def run(
    context: typer.Context,
    model: options.Model = "scarlet_c",
    output: options.Output = None,
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    pipeline: options.Pipeline = "",
    backends: options.Backends = "",
    devices: options.Devices = "cpu",
    precisions: options.Precisions = "fp32",
    batches: options.Batches = "1,8",
    threads: options.Threads = "",
    instances: options.Instances = "1",
    scenarios: options.Scenarios = "accuracy,latency,throughput",
    images: options.Images = "",
    restrict_classes: options.RestrictClasses = False,
    real: options.Real = None,
    budget: options.Budget = 160.0,
    latency_limit_ms: options.LatencyLimit = None,
    lives: options.Lives = None,
    rotate_cores: options.RotateCores = False,
    timeout: options.Timeout = 1800.0,
    seed: options.Seed = 0,
    calibration: options.Calibration = None,
    option: options.Option = None,
    builds: options.Builds = 1,
    plan_file: options.PlanFile = None,
    out: options.RunFolder = None,
    resume: Resume = False,
    retry: Retry = False,
    baseline: Baseline = "",
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when any Case is not ok.")] = False,
    cluster: Cluster = "",
    insecure: Insecure = False,
    as_json: Json = False,
    purpose: Annotated[str, typer.Option(hidden=True)] = "run",
) -> None:
    """Measure a model and report.

    Exit code 0 where what could run is ok, 1 where a Case failed or crashed or none is ok.
    """
    from bench.run import session
    from bench.run.cluster import connected

    if retry and not resume:
        raise BenchError("--retry is of --resume", "Add --resume, or leave --retry out.")
    console, spec = console_for(as_json), options.run_spec(context)
    folder, file = out_paths(out)
    if purpose != "run":
        show(_instead(context.params, spec, folder, console), file, as_json)
        return
    at = folder or session.RESULTS / "latest"
    with connected(cluster, insecure) if cluster else nullcontext() as client:
        ended = session.resume(at, console, retry, client) if resume else session.run(spec, folder, console, client)
    show_run(ended.run, console, as_json, file)
    code = ended.exit_code(strict)
    if baseline and not code:
        _keep(ended.run, baseline, console)
    raise typer.Exit(code)


def _instead(given: Mapping[str, Any], spec: RunSpec, folder: Path | None, console: Console) -> Document:
    """What `plan` and `noise` show."""
    from bench.run import session
    from bench.studies import noise

    if given["cluster"]:
        raise BenchError(f"{given['purpose']} is of this machine", "Leave --cluster out.")
    return session.foretell(spec, console) if given["purpose"] == "plan" else noise.run(spec, folder, console)


def _keep(run: Path, baseline: str, console: Console) -> None:
    """Keeps a run's predictions for later checks."""
    from bench.commands.baseline import keep
    from bench.report.terminal import printer

    for line in keep(run, None if baseline == "default" else Path(baseline)).lines:
        printer(console)(line)


def plan(context: typer.Context) -> None:
    """Show what `run` with the same options would do, and about how long it would take."""
    context.find_root().command(["run", *context.args, "--purpose", "plan"])


def measure_noise(context: typer.Context) -> None:
    """Measure a Case against itself: what difference can this machine resolve today? Takes the options of `run`."""
    defaults = ["--scenarios", "latency", "--batches", "1", "--backends", "onnxruntime", "--budget", "60"]
    context.find_root().command(["run", *defaults, *context.args, "--purpose", "noise"])
