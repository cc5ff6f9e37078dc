"""The ratio of each row's time to its baseline's, with its interval and the band that counts as the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import altair

from bench.analysis.time import verdict
from bench.report.charts.axes import known, logarithmic, short, tooltips
from bench.report.charts.bars import Bars, height_of, is_named, kinds
from bench.report.charts.chart import POINT_AT, SAMPLES, Chart, Row, Source
from bench.report.charts.looks import backend_name, clean, counted, looks, plural
from bench.report.charts.theme import BLUE, GREEN, GREY, VERMILLION, Theme
from bench.report.text import number

# Verdict, colour, shape: also without colours the shape points to where the row lies.
WAYS = (
    ("faster", BLUE, "triangle-left"),
    ("same", GREEN, "circle"),
    ("slower", VERMILLION, "triangle-right"),
    ("unresolved", GREY, "cross"),
)


def ratios(source: Source) -> list[Chart]:
    """A chart for each timed scenario: they time other stages."""
    return [chart for scenario in ("latency", "throughput") if (chart := _chart(source, scenario))]


def _chart(source: Source, scenario: str) -> Chart | None:
    timed = source.of(scenario)
    rows = [row for row in timed if row["ratio"] and row["verdict"]]
    if not rows:
        return None
    names = looks(rows).names
    baseline = _baseline(timed, rows)
    verdicts = [row["verdict"] for row in rows]
    words = [word for word, _, _ in WAYS]
    fastest = min(range(len(rows)), key=lambda index: rows[index]["ratio"])
    values = [
        known(
            case_id=row["case_id"],
            baseline_case_id=row["baseline_case_id"],
            place=place,
            name=names[place],
            figure=_figure(row),
            verdict=row["verdict"],
            ratio=row["ratio"],
            low=row["ratio_low"],
            high=row["ratio_high"],
            rounds=row["n_rounds"],
            file=SAMPLES,
        )
        for place, row in enumerate(rows)
    ]
    n_lives = min(row["n_lives"] for row in rows)
    over = "ratio over lives" if n_lives > 1 else "median ratio over rounds within one life"
    material = verdict.asked(source.materiality, n_lives)
    together = f", {len(rows)} together" if len(rows) > 1 else ""
    return Chart(
        f"{scenario}_ratio",
        f"Time relative to {baseline}: {scenario}",
        [
            f"{over}, 95 % intervals{together}; left is faster",
            f"grey band: up to {100 * material:.3g} % counts as the same",
            *([] if is_named(len(rows)) else [POINT_AT]),
        ],
        f"Time over that of {baseline} for {plural(len(rows), 'row')}: {counted(verdicts, words)}. "
        f"Lowest ratio: {names[fastest]}, {_figure(rows[fastest])}.",
        {"rows": values},
        partial(_layers, values=values, materiality=material, baseline=baseline),
        height=height_of(len(rows)),
        legend=[word for word in words if word in verdicts],
        is_list=True,
    )


def _baseline(timed: Sequence[Row], rows: Sequence[Row]) -> str:
    ids = {row["baseline_case_id"] for row in rows}
    names = {f"{backend_name(row)} {clean(row['precision']).upper()}" for row in timed if row["case_id"] in ids}
    return names.pop() if len(names) == 1 else "the baseline"


def _layers(theme: Theme, values: Sequence[Row], materiality: float, baseline: str) -> list[altair.Chart]:
    low, high = 1.0 / (1.0 + materiality), 1.0 + materiality
    ends = [value[name] for value in values for name in ("ratio", "low", "high") if name in value]
    title = f"time over that of {baseline}"
    bars = Bars(theme, len(values), logarithmic(min(*ends, low), max(*ends, high), title, grid=False))
    colour, shape = kinds("verdict", WAYS, [value["verdict"] for value in values])
    told = tooltips(
        ("verdict:N", "verdict"),
        ("ratio:Q", "time over baseline's"),
        ("low:Q", "from"),
        ("high:Q", "to"),
        ("rounds:Q", "rounds"),
        ("baseline_case_id:N", "case_id (baseline)"),
    )
    return [
        *bars.band(short(low), 1.0, short(high)),
        *bars.tracks(),
        bars.spans("low", "high", color=colour),
        bars.points("ratio", color=colour, shape=shape, tooltip=told),
        *bars.texts(),
    ]


def _figure(row: Row) -> str:
    low, high = row["ratio_low"], row["ratio_high"]
    if low is None or high is None:
        return number(row["ratio"])
    half_width = (high - low) / 2.0
    return f"{number(row['ratio'], half_width)} ({number(low, half_width)} to {number(high, half_width)})"
