"""`baseline`: keep a run as what later runs are checked against."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.commands.show import console_for


def baseline(
    run: Annotated[Path, typer.Option(help="A run's folder.")] = Path("results/latest"),
    out: Annotated[
        Path | None, typer.Option(help="Where to write. Default: results/baselines/<model>.json")
    ] = None,
) -> None:
    """Write a small file with a run's predictions, to be reviewed, committed and checked against."""
    from bench.record.run_folder import RunFolder
    from bench.studies.check import baseline as files
    from bench.studies.check.snapshot import of_run

    console = console_for(False)
    snapshot = of_run(RunFolder.open(run.resolve()), with_timed=True)
    path = out or files.default_path(snapshot.model, bool(snapshot.dataset.get("is_demo")))
    left_out = files.write(snapshot, path)
    kept = [row for row in snapshot.rows if row.top1 is not None]
    for row in kept:
        share = f", top-1 {100 * row.top1_right / max(1, row.n_images):.4g} %" if not row.no_accuracy else ""
        console.print(f"{row.case.label}: {row.n_images:,} images{share}", markup=False)
    for lost in left_out:
        console.print(f"left out: {lost.case.label}: {lost.status.value}, {lost.reason}", markup=False)
    size = path.stat().st_size / 1000
    console.print(f"baseline: {path} ({size:.0f} kB)", markup=False, highlight=False, soft_wrap=True)
