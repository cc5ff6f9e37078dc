"""Images a second against the batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import altair

from bench.report.charts.axes import known, logarithmic, tooltips
from bench.report.charts.chart import BY_BACKEND, POINT_AT, ROWS, SAMPLES, Chart, Row, Source
from bench.report.charts.looks import Looks, looks, plural
from bench.report.charts.theme import Theme
from bench.report.text import number

# From this ratio on a linear axis would hide the slow rows: a processor beside a GPU.
WIDE = 20.0

# With more batches than these the axis chooses its own ticks.
MOST_TICKS = 12

PASSES = "throughput_images_per_s"

# Images a second, and the ends of its interval.
Rate = tuple[float, float | None, float | None]


def throughput(source: Source) -> list[Chart]:
    """A chart of the network alone, and one of the whole pipeline: those that have at least two batches."""
    charts = (
        _chart(
            "compute_batch",
            "Images a second by batch: network alone",
            "images of a call over its median time, with the 95 % interval of that",
            [(row, _of_calls(row)) for row in source.of("latency") if row["latency_ns_p50"]],
        ),
        _chart(
            "throughput_batch",
            "Images a second by batch: from file to class",
            "all images over all time of the passes, with the 95 % interval",
            [(row, _of_passes(row)) for row in source.of("throughput") if row[PASSES] is not None],
        ),
    )
    return [chart for chart in charts if chart]


def _of_passes(row: Row) -> Rate:
    return row[PASSES], row[f"{PASSES}_low"], row[f"{PASSES}_high"]


def _of_calls(row: Row) -> Rate:
    """The batch over the median; a rate's lower end comes of the upper end of the time."""
    images_ns = row["batch"] * row["instances"] * 1e9
    ends = [row[f"latency_ns_p50_{end}"] for end in ("high", "low")]
    low, high = (images_ns / time if time else None for time in ends)
    return images_ns / row["latency_ns_p50"], low, high


def _chart(name: str, title: str, note: str, rated: Sequence[tuple[Row, Rate]]) -> Chart | None:
    rows, rates = [row for row, _ in rated], [rate for _, rate in rated]
    batches = sorted({row["batch"] for row in rows})
    if len(batches) < 2:
        return None
    drawn = looks(rows, without=("batch",))
    values = [
        known(
            case_id=row["case_id"],
            name=drawn.names[index],
            legend=drawn.legend[index],
            batch=row["batch"],
            rate=rates[index][0],
            low=rates[index][1],
            high=rates[index][2],
            file=SAMPLES,
        )
        for index, row in enumerate(rows)
    ]
    best = max(range(len(rows)), key=lambda index: rates[index][0])
    value, low, high = rates[best]
    half_width = None if low is None or high is None else (high - low) / 2.0
    return Chart(
        name,
        title,
        [note, *([BY_BACKEND, POINT_AT] if drawn.by_backend else [])],
        f"Images a second of {plural(len(set(drawn.names)), 'row')} at {len(batches)} batches from {batches[0]} to "
        f"{batches[-1]}. Most: {number(value, half_width)} by {drawn.names[best]} at batch {rows[best]['batch']}.",
        {"rows": values},
        partial(_layers, drawn=drawn, rates=[rate for rate, _, _ in rates], batches=batches),
        height=260,
        legend=drawn.entries,
    )


def _layers(theme: Theme, drawn: Looks, rates: Sequence[float], batches: Sequence[int]) -> list[altair.Chart]:
    low, high = min(rates), max(rates)
    y: dict[str, Any] = {"title": "images/s", "axis": altair.Axis(tickCount=6)}
    if low > 0 and high / low >= WIDE:
        y = logarithmic(low, high, "images/s")
    few: dict[str, Any] = {"values": list(batches)} if len(batches) <= MOST_TICKS else {}
    batch = altair.X(
        "batch:Q",
        title="batch",
        scale=altair.Scale(type="log", base=2, nice=False, padding=8),
        axis=altair.Axis(grid=False, format="d", **few),
    )
    rows = altair.Chart(ROWS)
    line: dict[str, Any] = {"strokeWidth": theme.px(1.5)}
    rate = altair.Y("rate:Q", **y)
    told = tooltips(("batch:Q", "batch"), ("rate:Q", "images/s"), ("low:Q", "from"), ("high:Q", "to"))
    return [
        rows.mark_line(**line).encode(batch, rate, detail="name:N", color=drawn.colour()),
        rows.transform_filter("isValid(datum.low) && isValid(datum.high)")
        .mark_rule(**line)
        .encode(batch, altair.Y("low:Q", **y), y2="high", color=drawn.colour()),
        rows.mark_point(**theme.point()).encode(batch, rate, **drawn.of_points(), tooltip=told),
    ]
