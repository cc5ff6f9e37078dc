"""`against`: this tree's latency against another revision's."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import (
    GOOD,
    INTERRUPTED,
    NOT_OK,
    UNRESOLVED,
    Json,
    console_for,
    out_paths,
    show,
)

EXIT_CODES = {"pass": GOOD, "fail": NOT_OK, "unresolved": UNRESOLVED}


def against(
    context: typer.Context,
    ref: Annotated[str, typer.Argument(help="The other revision: a commit, branch or tag, such as HEAD~1.")],
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    pipeline: options.Pipeline = "",
    backends: options.Backends = "onnxruntime",
    devices: options.Devices = "cpu",
    precisions: options.Precisions = "fp32",
    batches: options.Batches = "1",
    threads: options.Threads = "",
    images: options.Images = "",
    budget: options.Budget = 60.0,
    timeout: options.Timeout = 1800.0,
    seed: options.Seed = 0,
    option: options.Option = None,
    tolerance: Annotated[
        float | None,
        typer.Option(help="Per cent that this tree may be slower. Default: 3, or what the machine resolves."),
    ] = None,
    blocks: Annotated[
        int | None, typer.Option(help="Fresh pairs of workers for each Case: even, at least 4. Default: 6.")
    ] = None,
    out: options.RunFolder = None,
    as_json: Json = False,
) -> None:
    """Measure this tree, as it is, against another revision of it: is it slower?

    Exit code 0: no Case is slower by more than the tolerance; 1: one is; 3: the rounds do not settle it.
    """
    from bench.report import write_all
    from bench.studies.against import drive
    from bench.studies.against.verdict import BLOCKS

    share = None if tolerance is None else tolerance / 100.0
    rules = drive.Rules(share, BLOCKS if blocks is None else blocks)
    spec = options.spec_of(context, scenarios="latency")
    console = console_for(as_json)
    folder, file = out_paths(out)
    ended = drive.run(ref, spec, folder, console, rules)
    written = write_all(ended.run)
    show(drive.document(ended), file, as_json, [f"report: {written['markdown']}"])
    raise typer.Exit(INTERRUPTED if ended.interrupted else EXIT_CODES[ended.outcome.value])
