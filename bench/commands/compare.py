"""`compare`: two Cases or two runs, image by image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import Json, Out, show

LATEST = Path("results/latest")


def compare(
    base: Annotated[
        str,
        typer.Argument(
            help="A run's folder, FOLDER:CASE_ID, or the id of a Case of results/latest; ids may be cut short."
        ),
    ] = str(LATEST),
    other: Annotated[
        str | None, typer.Argument(help="Likewise. Without it Cases are compared with the reference Case of their run.")
    ] = None,
    flips: Annotated[int, typer.Option(min=0, help="How many flipped images to list for each Case.")] = 10,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare predictions image by image: two Cases, two runs, or a run with its reference."""
    from bench.analysis.accuracy.pairing import compare_named
    from bench.studies import compare as study

    compared = compare_named(base, other, LATEST)
    # A file holds every flip, the screen the largest.
    show(study.document(compared, flips), out, as_json, data=compared.to_dict(flips))
