"""`verify`: is a run's folder still as it was written?"""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import GOOD, NOT_OK, Json, Out, show


def verify(
    run: Annotated[Path, typer.Argument(help="A run's folder.")] = Path("results/latest"),
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Read all of a run's folder and tell what was damaged, lost or changed since it was written.

    Exit code 0 where all is as it was written, 1 where something is not.
    """
    from bench.record.run_folder import AS_WRITTEN, BEFORE_DIGESTS, NOT_ENDED, RunFolder
    from bench.report.document import Column, Document, Head, notes, table_of

    checked = RunFolder.open(run.resolve()).verify()
    columns = [Column(Head(name, folds=True), itemgetter(index)) for index, name in enumerate(("What", "State"))]
    table = table_of("", columns, checked)
    bad = [what for what, state in checked if state not in (AS_WRITTEN, BEFORE_DIGESTS, NOT_ENDED)]
    old = [what for what, state in checked if state == BEFORE_DIGESTS]
    said = f"{len(bad)} of {len(checked)} are not as they were written." if bad else "All is as it was written."
    if old:
        said = f"{said if len(old) < len(checked) else ''} Nothing tells of what was written before digests.".strip()
    show(Document(f"Record of {run.resolve().name}", [table, *notes([said])]), out, as_json)
    raise typer.Exit(NOT_OK if bad else GOOD)
