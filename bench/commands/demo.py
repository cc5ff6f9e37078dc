"""`demo`: the demo images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import console_for
from scarlet.errors import BenchError


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("data/demo"),
    images: Annotated[int, typer.Option(help="How many.")] = 512,
) -> None:
    """Make the demo images."""
    from bench.report.terminal import printer
    from bench.run.images import make_demo_set

    if images < 1:
        raise BenchError(f"--images {images} is not a number above 0", "Write for example --images 512.")
    console = console_for(False)
    make_demo_set(out, images, console)
    printer(console)(f"{images} demo images are in {out}")
