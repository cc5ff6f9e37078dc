"""`reproduce`: are a model's published figures met here?"""

from __future__ import annotations

import typer

from bench.commands import options
from bench.commands.show import GOOD, NOT_OK, Json, console_for, out_paths, show


def reproduce(
    context: typer.Context,
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    images: options.Images = "all",
    pipeline: options.Pipeline = "reference",
    backends: options.Backends = "pytorch",
    timeout: options.Timeout = 7200.0,
    out: options.RunFolder = None,
    as_json: Json = False,
) -> None:
    """Measure a model's published top-1, parameters and multiply-adds on ImageNet's validation set, and judge each.

    Exit code 1 where one is not reproduced; what is not resolved is no fault.
    """
    from bench.record.case import Status
    from bench.run import session
    from bench.studies.model_table.reproduced import NOT_REPRODUCED, document, figures
    from bench.studies.model_table.rows import failed_row, row_of_run

    folder, file = out_paths(out)
    spec = options.spec_of(context, scenarios="accuracy")
    figures(failed_row(spec.network.name, Status.FAILED, "not measured"))  # now, and not when all is measured
    row = row_of_run(session.run(spec, folder, console_for(as_json)).run)
    found = figures(row)
    show(document(row, found), file, as_json)
    raise typer.Exit(NOT_OK if any(one.verdict == NOT_REPRODUCED for one in found) else GOOD)
