"""`profile`: where the time of one call goes, layer by layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.options import (
    Backend,
    Batch,
    Calibration,
    Checkpoint,
    Data,
    Model,
    OneThreads,
    Option,
    Precision,
    Timeout,
    spec_of,
)
from bench.commands.show import Json, console_for
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.studies.profile.drive import Profile


def profile(
    context: typer.Context,
    model: Model = "scarlet_c",
    checkpoint: Checkpoint = None,
    data: Data = None,
    backend: Backend = "onnxruntime",
    precision: Precision = "fp32",
    batch: Batch = 1,
    threads: OneThreads = None,
    repeats: Annotated[int, typer.Option(help="Calls with profiling; as many are timed without it.")] = 50,
    by: Annotated[str, typer.Option(help="layer, or block to add up the layers of each.")] = "layer",
    top: Annotated[int, typer.Option(help="Print so many rows, the slowest first; 0: all, in order.")] = 20,
    option: Option = None,
    calibration: Calibration = None,
    timeout: Timeout = 1800.0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for profile.json (every sample) and profile.csv.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Time every layer inside of one backend, joined to the model's layer names."""
    from bench.studies.profile import drive

    if top < 0:
        raise BenchError(f"--top {top} is not a number of 0 or more", "Write for example --top 20.")
    if out is not None and out.exists() and not out.is_dir():
        raise BenchError(f"--out {out} is a file", "Name a folder.")
    console = console_for(as_json)
    spec = spec_of(context, pipeline="reference", scenarios="latency")
    found = drive.run(spec, repeats, by, console)
    if out is not None:
        drive.write(found, out)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), allow_nan=False))
        return
    show(found, top, console)
    if out is not None:
        console.print(f"stored: {out}", markup=False, highlight=False, soft_wrap=True)


def show(found: Profile, top: int, console: Console) -> None:
    """Prints the slowest rows, or all of them in the model's order, and what their sum is worth."""
    from rich.table import Table
    from rich.text import Text

    from bench.studies.profile.document import HEADER, cells, sentences

    case = found.case
    title = f"{case.model}, {case.backend} {case.precision}, batch {case.batch}, {case.threads} threads"
    options = ", ".join(f"{name}={value}" for name, value in case.options)
    console.print(Text(f"{title}{', ' + options if options else ''}, by {found.by}", style="table.title"))
    rows = sorted(found.rows, key=lambda row: -row.median_ns)[:top] if top else list(found.rows)
    # Known only with a measured peak: an empty column would take space for nothing.
    header = HEADER if found.ridge is not None else HEADER[:-1]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(found.by, overflow="fold")
    for name in header:
        table.add_column(name, justify="left" if name == "side" else "right", overflow="fold")
    table.add_column("runs as", overflow="fold")
    for row in rows:
        # Of a block the operators are too many to name.
        runs_as = (
            _runs_as(row.ops, row.nodes) if found.by == "layer" or not row.joined else f"{row.nodes} nodes"
        )
        table.add_row(*map(Text, (row.name, *cells(row)[: len(header)], runs_as)))
    console.print(table)
    if len(rows) < len(found.rows):
        hidden = len(found.rows) - len(rows)
        share = sum(row.share_percent for row in found.rows) - sum(row.share_percent for row in rows)
        console.print(f"{hidden} more rows: {share:.1f} % (--top 0 for all)", highlight=False)
    for line in sentences(found.totals, found.ridge, found.recording.resolution_ns):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _runs_as(ops: tuple[str, ...], nodes: int) -> str:
    text = ", ".join(ops[:2]) + (" ..." if len(ops) > 2 else "")
    return f"{nodes} x {text}" if nodes > 1 else text
