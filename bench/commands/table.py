"""`table`: several models beside each other, published and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import GOOD, INTERRUPTED, Json, console_for, out_paths, show


def table(
    context: typer.Context,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="scarlet_a, scarlet_a=ScarletA.pth.tar, timm/<name>, onnx:<file>. Default: the three of SCARLET."
        ),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Make the table from these runs, or folders of runs, and measure nothing; may be repeated."),
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Add the models that are only published.")] = False,
    data: options.Data = None,
    classes: options.Classes = None,
    labels: options.Labels = None,
    first_label: options.FirstLabel = None,
    restrict_classes: options.RestrictClasses = False,
    backends: options.Backends = "",
    devices: options.Devices = "cpu",
    precisions: options.Precisions = "fp32",
    batches: options.Batches = "1",
    pipeline: options.Pipeline = "",
    images: options.Images = "",
    budget: Annotated[float, typer.Option(help="Seconds for the timed rounds of each model.")] = 20.0,
    timeout: options.Timeout = 1800.0,
    option: options.Option = None,
    caption: options.Caption = "",
    label: options.Label = "",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for table.md, table.tex, table.csv and the runs. Default: a new one in results/runs; with "
            "--runs none."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Set models beside each other: cost, published and measured accuracy, latency of each backend."""
    from bench.record.run_folder import new_run_path
    from bench.report.latex.layout import checked_label
    from bench.run.session import RESULTS
    from bench.studies.model_table.document import document, write_all
    from bench.studies.model_table.drive import read_or_measure
    from bench.studies.model_table.rows import published_rows

    if label:
        checked_label(label)  # now, and not when everything is measured
    folder, file = out_paths(out)
    folder = folder or (None if runs else new_run_path(RESULTS, "table"))
    rows, interrupted = read_or_measure(
        models or (), runs or (), options.spec_of(context), folder or Path(), console_for(as_json)
    )
    rows += published_rows(row.model for row in rows) if published else []
    written = write_all(rows, folder, caption, label) if folder else []
    show(document(rows), file, as_json, (f"table: {path}" for path in written))
    raise typer.Exit(INTERRUPTED if interrupted else GOOD)
