"""`against`: this tree's latency against another revision's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import GOOD, INTERRUPTED, NOT_OK, UNRESOLVED, Json, console_for
from scarlet.errors import BenchError

EXIT_CODES = {"pass": GOOD, "fail": NOT_OK, "unresolved": UNRESOLVED}


def against(
    ref: Annotated[str, typer.Argument(help="The other revision: a commit, branch or tag, such as HEAD~1.")],
    model: Annotated[
        str, typer.Option(help="scarlet_a, scarlet_b, scarlet_c, timm/<name> or onnx:<file>.")
    ] = "scarlet_c",
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Weights file, 'demo' or 'random'. Default: demo weights where they exist."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="ImageNet validation folder. Default: a demo set.")] = None,
    pipeline: Annotated[
        str, typer.Option(help="turbo, dali, dali_gpu or reference. Default: turbo, or dali_gpu for cuda.")
    ] = "",
    backends: Annotated[str, typer.Option(help="Comma-separated.")] = "onnxruntime",
    devices: Annotated[str, typer.Option(help="Comma-separated: cpu, cuda.")] = "cpu",
    precisions: Annotated[str, typer.Option(help="Comma-separated.")] = "fp32",
    batches: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = "1",
    threads: Annotated[
        str, typer.Option(help="Threads of a backend, comma-separated. Default: all cores.")
    ] = "",
    images: Annotated[str, typer.Option(help="How many images to take the input from, or all.")] = "",
    budget: Annotated[float, typer.Option(help="Seconds for all timed rounds together.")] = 60.0,
    timeout: Annotated[float, typer.Option(help="Seconds that one worker may take.")] = 1800.0,
    seed: Annotated[int, typer.Option(help="Of the order of turns.")] = 0,
    option: Annotated[
        list[str] | None, typer.Option(help="backend.name=value, for both revisions; may be repeated.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Per cent that this tree may be slower. Default: 3, or what the machine resolves."),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="Fresh pairs of workers for each Case: even, at least 4. Default: 6.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for this run. Default: a new one in results/runs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure this tree, as it is, against another revision of it: is it slower?

    Exit code 0: no Case is slower by more than the tolerance; 1: one is; 3: the rounds do not settle it.
    """
    import json
    import math

    from bench.report import write_all
    from bench.run.spec import RunSpec
    from bench.studies.against import drive
    from bench.studies.against.verdict import BLOCKS, LEAST_BLOCKS, text

    if tolerance is not None and not (math.isfinite(tolerance) and tolerance > 0):
        raise BenchError(
            f"--tolerance {tolerance:g} is not a number above 0", "Give per cent, for example --tolerance 5."
        )
    n_blocks = BLOCKS if blocks is None else blocks
    if n_blocks < LEAST_BLOCKS or n_blocks % 2:
        raise BenchError(
            f"--blocks {n_blocks} is not an even number of at least {LEAST_BLOCKS}",
            f"Give for example --blocks {BLOCKS}.",
        )
    spec = RunSpec(
        model=model,
        checkpoint=checkpoint,
        data=data,
        pipeline=pipeline,
        backends=backends,
        devices=devices,
        precisions=precisions,
        batches=batches,
        threads=threads,
        scenarios="latency",
        images=images,
        budget_seconds=budget,
        timeout_seconds=timeout,
        seed=seed,
        options=option or (),
    )
    console = console_for(as_json)
    share = None if tolerance is None else tolerance / 100.0
    ended = drive.run(ref, spec, out, console, share, n_blocks)
    written = write_all(ended.run)
    if as_json:
        typer.echo(json.dumps(ended.to_dict()))
    title = f"{ended.revisions[0]} against {ended.revisions[1]}"
    for line in (title, *ended.notes, text(ended.found, ended.tolerance), f"report: {written['markdown']}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(INTERRUPTED if ended.interrupted else EXIT_CODES[ended.outcome.value])
