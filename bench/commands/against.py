"""`against`: this tree's latency against another revision's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.options import (
    Backends,
    Batches,
    Budget,
    Checkpoint,
    Data,
    Devices,
    Images,
    Model,
    Option,
    Pipeline,
    Precisions,
    Seed,
    Threads,
    Timeout,
    spec_of,
)
from bench.commands.show import GOOD, INTERRUPTED, NOT_OK, UNRESOLVED, Json, console_for
from scarlet.errors import BenchError

EXIT_CODES = {"pass": GOOD, "fail": NOT_OK, "unresolved": UNRESOLVED}


def against(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help="The other revision: a commit, branch or tag, such as HEAD~1.")],
    model: Model = "scarlet_c",
    checkpoint: Checkpoint = None,
    data: Data = None,
    pipeline: Pipeline = "",
    backends: Backends = "onnxruntime",
    devices: Devices = "cpu",
    precisions: Precisions = "fp32",
    batches: Batches = "1",
    threads: Threads = "",
    images: Images = "",
    budget: Budget = 60.0,
    timeout: Timeout = 1800.0,
    seed: Seed = 0,
    option: Option = None,
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
    spec = spec_of(context, scenarios="latency")
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
