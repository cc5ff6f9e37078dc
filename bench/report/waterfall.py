"""The accuracy waterfall as a table, and as a figure for ``report.md``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.accuracy.waterfall import Step
from bench.analysis.table import DEMO_NOTE
from bench.report.flips import p_text, points, short_names
from bench.report.tables import Table
from bench.report.text import percent

if TYPE_CHECKING:
    from bench.analysis.stats.paired import Paired

TITLE = "Where accuracy was lost"
FIGURE = Path("figures") / "accuracy-waterfall.svg"


def table(steps: Sequence[Step]) -> Table | None:
    """A row a step, indented by its depth; None where there is no step to show."""
    if not any(step.ledger for step in steps):
        return None
    rows = []
    for step, name in zip(steps, short_names([step.case for step in steps]), strict=True):
        rows.append((name, step.change, *_cells(step)))
    return Table(
        title=TITLE,
        header=("Case", "Step", "Top-1 %", "Step, points", "p", "Flips", "From the start, points"),
        rows=tuple(rows),
        numeric=(False, False, True, True, True, True, True),
        notes=(
            "each step is against the Case it differs from in that one thing, on the same images, with the 95 % "
            "interval of the paired difference",
        ),
    )


def _cells(step: Step) -> tuple[str, ...]:
    ledger, total = step.ledger, step.total
    if ledger is None or total is None:
        return ("",) * 5
    flips = str(ledger.n_flips)
    if ledger.top1 is None or total.top1 is None:
        return "", "", "", flips, ""
    n = ledger.n_images
    return (
        percent(ledger.top1.other_percent, n),
        _with_interval(ledger.top1, n),
        p_text(ledger.top1.p_value),
        flips,
        _with_interval(total.top1, total.n_images),
    )


def _with_interval(pair: Paired, n: int) -> str:
    return (
        f"{points(pair.difference_points, n)} ({points(pair.low_points, n)} to {points(pair.high_points, n)})"
    )


def write_figure(run: Path, steps: Sequence[Step], is_demo: bool) -> Path | None:
    """Writes the chart as SVG into the run's folder; gives its path, or None where there is nothing to draw.

    Raises:
        BenchError: the disk is full or not writable.
    """
    from bench.report.charts import files
    from bench.report.charts.accuracy import waterfall

    path = run / FIGURE
    drawn = waterfall(steps, [DEMO_NOTE] if is_demo else [])
    for chart in drawn:
        files.write_figure(chart, path)
    return path if drawn else None
