"""`compare`: two Cases or two runs, image by image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import Json, Out, console_for, show_document

LATEST = Path("results/latest")


def compare(
    base: Annotated[
        str,
        typer.Argument(
            help="A run's folder, FOLDER:CASE_ID, or the id of a Case of results/latest; ids may be cut short."
        ),
    ] = str(LATEST),
    other: Annotated[
        str | None,
        typer.Argument(help="Likewise. Without it Cases are compared with the reference Case of their run."),
    ] = None,
    flips: Annotated[int, typer.Option(min=0, help="How many flipped images to list for each Case.")] = 10,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare predictions image by image: two Cases, two runs, or a run with its reference."""
    from bench.analysis.accuracy.pairing import compare_named
    from bench.report import document as documents
    from bench.studies import compare as compared

    if out is not None:
        documents.check_target(out)
    made = compare_named(base, other, LATEST)
    document = compared.document(made, flips)
    if out is not None:
        documents.write(document, out)
    if as_json:
        typer.echo(json.dumps(made.to_dict(flips), allow_nan=False))
    else:
        show_document(document, console_for(False))
