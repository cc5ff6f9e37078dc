"""`quantize`: a search for an INT8 recipe that keeps the accuracy and gains speed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import GOOD, INTERRUPTED, NOT_OK, Json, console_for, out_paths, show
from scarlet.errors import BenchError


@options.preprocessing
def quantize(
    context: typer.Context,
    search: Annotated[
        bool, typer.Option("--search", help="Look for a recipe. (One recipe: export --precision int8.)")
    ] = False,
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    calibration: options.Calibration = None,
    backend: options.Backend = "onnxruntime",
    margin: Annotated[
        float, typer.Option(min=0.001, max=99.0, help="By how much top-1 may fall, in per cent of FP32's top-1.")
    ] = 1.0,
    images: Annotated[int, typer.Option(min=1, help="How many images to compare recipes on.")] = 512,
    confirm: Annotated[
        int | None, typer.Option(min=1, help="How many other images to confirm on. Default: as many as run scores.")
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds for the search and the rounds of latency.")] = 900.0,
    batch: options.Batch = 1,
    threads: options.OneThreads = None,
    pipeline: options.Pipeline = "",
    timeout: options.Timeout = 1800.0,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the recipe. Default: <model>-<backend>.yaml.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Search an INT8 recipe that keeps top-1 within a margin, and say whether it is faster."""
    if not search:
        raise BenchError(
            "quantize does nothing by itself",
            "Add --search; to make a graph by one recipe, use: export --precision int8.",
        )
    from bench.studies.quantize import drive, outcome
    from bench.studies.quantize.document import document

    console = console_for(as_json)
    spec = options.spec_of(context, scenarios="latency", images="" if confirm is None else str(confirm))
    asked = outcome.Asked(spec, margin, images)
    recipe, file = out_paths(out)
    target = outcome.recipe_target(asked, recipe)
    ended = drive.search(asked, console)
    show(document(ended), file, as_json, outcome.write_chosen(ended, target))
    raise typer.Exit(INTERRUPTED if ended.interrupted else GOOD if ended.within else NOT_OK)
