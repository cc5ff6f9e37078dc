"""The accuracy waterfall as a table, and as a chart for ``figures/``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.accuracy.waterfall import Step
from bench.analysis.stats.paired import Paired
from bench.analysis.table import DEMO_NOTE
from bench.record.files import write_text
from bench.report.flips import p_text, points, short_names
from bench.report.tables import Table
from bench.report.text import percent

if TYPE_CHECKING:
    import altair

TITLE = "Where accuracy was lost"
FIGURE = Path("figures") / "accuracy-waterfall"

# Okabe and Ito's palette, which colour-blind readers can tell apart: loss, gain, not resolved.
COLOURS = {"lost": "#D55E00", "gained": "#0072B2", "not resolved": "#999999"}


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


def chart(steps: Sequence[Step], is_demo: bool) -> altair.LayerChart | altair.FacetChart | None:
    """Bars from one step's top-1 to the next, with the interval of each step's difference; None without accuracy."""
    import altair

    named = zip(steps, short_names([step.case for step in steps]), strict=True)
    bars = []
    for place, (step, name) in enumerate(named):
        pair = step.ledger.top1 if step.ledger else None
        if pair is not None:
            resolved = pair.low_points > 0 or pair.high_points < 0
            bars.append(
                {
                    "place": place,
                    "step": f"{step.change}: {name}",
                    "from": pair.base_percent,
                    "to": pair.other_percent,
                    "low": pair.base_percent + pair.low_points,
                    "high": pair.base_percent + pair.high_points,
                    "effect": ("gained" if pair.difference_points > 0 else "lost")
                    if resolved
                    else "not resolved",
                }
            )
    if not bars:
        return None
    data = altair.Data(values=bars)  # type: ignore[no-untyped-call]
    base = altair.Chart(data).encode(
        y=altair.Y("step:N", sort=altair.SortField("place"), title=None, axis=altair.Axis(labelLimit=420))
    )
    scale = altair.Scale(zero=False)
    colour = altair.Color(
        "effect:N",
        title=None,
        scale=altair.Scale(domain=list(COLOURS), range=list(COLOURS.values())),
        legend=altair.Legend(orient="bottom"),
    )
    bar = base.mark_bar(height=12).encode(
        x=altair.X("from:Q", scale=scale, title="top-1, %"), x2="to:Q", color=colour
    )
    interval = base.mark_rule(strokeWidth=1.5).encode(x=altair.X("low:Q", scale=scale), x2="high:Q")
    tick = base.mark_tick(thickness=3, size=16).encode(x=altair.X("to:Q", scale=scale), color=colour)
    title = altair.TitleParams(
        TITLE,
        subtitle=["bar: from the step before; line: 95 % interval of the paired difference"]
        + ([DEMO_NOTE] if is_demo else []),
        anchor="start",
    )
    return altair.layer(bar, interval, tick).properties(width=460, title=title)


def write_figure(run: Path, steps: Sequence[Step], is_demo: bool) -> Path | None:
    """Writes the chart as SVG into the run's folder; gives its path, or None where there is nothing to draw.

    Raises:
        BenchError: the disk is full or not writable.
    """
    drawn = chart(steps, is_demo)
    if drawn is None:
        return None
    import vl_convert

    path = run / FIGURE.with_suffix(".svg")
    path.parent.mkdir(exist_ok=True)
    write_text(path, vl_convert.vegalite_to_svg(drawn.to_dict()))
    return path
