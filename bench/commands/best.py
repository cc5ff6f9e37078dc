"""`best`: what to deploy for an accuracy that can be afforded."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import GOOD, NOT_OK, Json, console_for, out_paths, show


@options.preprocessing
def best(
    context: typer.Context,
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    backends: options.Backends = "",
    pipeline: options.Pipeline = "turbo",
    precisions: options.Precisions = "fp32,bf16,int8",
    batches: Annotated[str, typer.Option(help="Batch sizes to try, comma-separated.")] = "8,32",
    accuracy_loss: Annotated[float, typer.Option(min=0.0, help="Of top-1, in per cent of FP32's.")] = 1.0,
    latency_limit_ms: Annotated[
        float | None, typer.Option(min=0.0, help="Of a call, all copies at work: its p99, or its median at most.")
    ] = None,
    images: options.Images = "",
    calibration: options.Calibration = None,
    budget: Annotated[float, typer.Option(help="Seconds for the race, with the starts of its processes.")] = 300.0,
    timeout: options.Timeout = 600.0,
    seed: options.Seed = 0,
    option: options.Option = None,
    out: options.RunFolder = None,
    as_json: Json = False,
) -> None:
    """Find the fastest runtime, precision, batch and split of the cores that keeps the accuracy, and what to deploy."""
    from bench.studies.best import drive
    from bench.studies.best.document import document

    console = console_for(as_json)
    folder, file = out_paths(out)
    spec = options.spec_of(context, scenarios="accuracy,throughput")
    found = drive.run(spec, accuracy_loss, folder, console)
    show(document(found), file, as_json)
    raise typer.Exit(GOOD if found.best else NOT_OK)
