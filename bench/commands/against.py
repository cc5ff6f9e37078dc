"""`against`: this tree's latency against another revision's."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import INTERRUPTED, Json, Strict, console_for, exit_code, out_paths, show


@options.preprocessing
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
    budget: options.Budget = 120.0,
    timeout: options.Timeout = 1800.0,
    seed: options.Seed = 0,
    option: options.Option = None,
    tolerance: options.Tolerance = None,
    lives: options.Lives = None,
    strict: Strict = False,
    out: options.RunFolder = None,
    as_json: Json = False,
) -> None:
    """Measure this tree, as it is, against another revision of it: is it slower?

    Exit code 0: no Case is slower by more than the tolerance, or the rounds do not settle it; 1: one is.

    With --strict what is not settled is 3.
    """
    from bench.report.forms import write_all
    from bench.report.text import annotate
    from bench.studies.check import revisions
    from bench.studies.check.report import workflow_commands

    spec = options.spec_of(context, scenarios="latency")
    console = console_for(as_json)
    folder, file = out_paths(out)
    ended = revisions.run(ref, spec, folder, console, None if tolerance is None else tolerance / 100.0)
    written = write_all(ended.run)
    show(ended.document(), file, as_json, [f"report: {written['markdown']}"])
    annotate(console.file, workflow_commands(ended.judged))
    raise typer.Exit(INTERRUPTED if ended.interrupted else exit_code(ended.outcome.value, strict))
