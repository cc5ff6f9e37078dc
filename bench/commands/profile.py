"""`profile`: where the time of one call goes, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands import options
from bench.commands.show import Json, console_for, out_paths, show
from scarlet.errors import BenchError


@options.preprocessing
def profile(
    context: typer.Context,
    model: options.Model = "scarlet_c",
    checkpoint: options.Checkpoint = None,
    data: options.Data = None,
    backend: options.Backend = "onnxruntime",
    device: options.Device = "cpu",
    precision: options.Precision = "fp32",
    batch: options.Batch = 1,
    threads: options.OneThreads = None,
    repeats: Annotated[int, typer.Option(help="Calls with profiling; as many are timed without it.")] = 50,
    top: Annotated[int, typer.Option(help="Print so many rows, the slowest first; 0: all, in order.")] = 20,
    option: options.Option = None,
    calibration: options.Calibration = None,
    timeout: options.Timeout = 1800.0,
    out: Annotated[Path | None, typer.Option(help="Folder for profile.json (every sample) and profile.csv.")] = None,
    as_json: Json = False,
) -> None:
    """Time every layer inside of one backend, joined to the model's layer names."""
    from bench.studies.profile import drive

    if top < 0:
        raise BenchError(f"--top {top} is not a number of 0 or more", "Write for example --top 20.")
    folder, file = out_paths(out)
    if folder is not None and folder.exists() and not folder.is_dir():
        raise BenchError(f"--out {folder} is a file", "Name a folder.")
    console = console_for(as_json)
    spec = options.spec_of(context, pipeline="reference", scenarios="latency")
    found = drive.run(spec, repeats, console)
    if folder is not None:
        drive.write(found, folder)
    show(drive.document(found, top), file, as_json, [f"stored: {folder}"] if folder else ())
