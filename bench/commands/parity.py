"""`parity`: a pipeline against the reference, stage by stage."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import GOOD, NOT_OK, Json, Out, console_for, show


@options.preprocessing
def parity(
    context: typer.Context,
    data: options.Data = None,
    pipeline: Annotated[
        str, typer.Option(help="Comma-separated. Default: turbo,dali and, beside a GPU, dali_gpu,dali_gpu_engine.")
    ] = "",
    images: options.Images = "200",
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare the pixels of a pipeline with the reference's, and count the predictions that each stage changes.

    Exit code 0 where all is within tolerance, 1 where it is not.
    """
    import pipelines
    from bench.studies.parity import compare, document

    spec = options.spec_of(context, pipeline=pipeline or pipelines.fast_names())
    found = compare(spec, console_for(as_json))
    show(document(found), out, as_json)
    within = all(answer["status"] == "ok" for answer in found["pipelines"].values())
    raise typer.Exit(GOOD if within else NOT_OK)
