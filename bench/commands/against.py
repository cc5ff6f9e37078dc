"""`against`: this tree's latency against another revision's."""

from __future__ import annotations

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
    RunFolder,
    Seed,
    Threads,
    Timeout,
    spec_of,
)
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
    out: RunFolder = None,
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
    spec = spec_of(context, scenarios="latency")
    console = console_for(as_json)
    folder, file = out_paths(out)
    ended = drive.run(ref, spec, folder, console, rules)
    written = write_all(ended.run)
    show(drive.document(ended), file, as_json, [f"report: {written['markdown']}"])
    raise typer.Exit(INTERRUPTED if ended.interrupted else EXIT_CODES[ended.outcome.value])
