"""`baseline`: keep a run as what later runs are checked against."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.show import Json, out_paths, show

if TYPE_CHECKING:
    from bench.report.document import Document


def baseline(
    run: Annotated[Path, typer.Option(help="A run's folder.")] = Path("results/latest"),
    out: Annotated[Path | None, typer.Option(help="Where to write. Default: results/baselines/<model>.json")] = None,
    as_json: Json = False,
) -> None:
    """Write a small file with a run's predictions, to be reviewed, committed and checked against."""
    baseline_file, file = (out, None) if out and out.suffix == ".json" else out_paths(out)
    show(keep(run, baseline_file), file, as_json)


def keep(run: Path, path: Path | None) -> Document:
    """Writes the baseline of a run, to ``results/baselines`` where no file is named; gives what is to be said of it."""
    from bench.record.run_folder import RunFolder
    from bench.report.document import Document, notes
    from bench.studies.check import baseline as files
    from bench.studies.check.snapshot import of_run

    snapshot = of_run(RunFolder.open(run.resolve()), with_timed=True)
    path = path or files.default_path(snapshot.model, bool(snapshot.dataset.get("is_demo")))
    left_out = files.write(snapshot, path)
    lines = []
    for row in snapshot.rows:
        if row.top1 is not None:
            share = f", top-1 {100 * row.top1_right / max(1, row.n_images):.4g} %" if not row.no_accuracy else ""
            lines.append(f"{row.case.label}: {row.n_images:,} images{share}")
    lines += [f"left out: {lost.case.label}: {lost.status.value}, {lost.reason}" for lost in left_out]
    lines.append(f"baseline: {path} ({path.stat().st_size / 1000:.0f} kB)")
    return Document(f"Baseline of {snapshot.model}", notes(lines))
