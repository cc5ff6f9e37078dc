"""`tune`: a short search for the fastest way from files to top-5."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import GOOD, NOT_OK, Json, console_for, out_paths, show


@options.preprocessing
def tune(
    context: typer.Context,
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    backend: options.Backend = "openvino",
    pipeline: options.Pipeline = "turbo",
    precision: options.Precision = "fp32",
    batches: Annotated[str, typer.Option(help="Batch sizes to try, comma-separated.")] = "8,32",
    budget: Annotated[float, typer.Option(help="Seconds for all passes after warm-up.")] = 60.0,
    timeout: options.Timeout = 600.0,
    seed: options.Seed = 0,
    option: options.Option = None,
    out: options.RunFolder = None,
    as_json: Json = False,
) -> None:
    """Find the fastest split of the cores between decoding and inference, and the options that choose it."""
    from bench.studies.tune import drive
    from bench.studies.tune.document import document

    console = console_for(as_json)
    folder, file = out_paths(out)
    spec = options.spec_of(context, scenarios="throughput")
    found = drive.run(spec, folder, console)
    show(document(found), file, as_json)
    raise typer.Exit(GOOD if found.best else NOT_OK)
