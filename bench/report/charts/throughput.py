"""Images a second against the batch, and latency against the load that is offered to a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair

from bench.analysis.columns import CASES
from bench.report.charts.axes import positive, tooltips
from bench.report.charts.chart import ROWS, SAMPLES, Chart, Row, Source
from bench.report.charts.looks import looks, plural
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
    passes = [row for row in source.of("throughput") if row[PASSES] is not None]
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
            [(row, (row[PASSES], row[f"{PASSES}_low"], row[f"{PASSES}_high"])) for row in passes],
        ),
    )
    return [chart for chart in charts if chart]


def _of_calls(row: Row) -> Rate:
    """The batch over the median; a rate's lower end comes of the upper end of the time."""
    images_ns = row["batch"] * row["instances"] * 1e9
    ends = [row[f"latency_ns_p50_{end}"] for end in ("high", "low")]
    low, high = (images_ns / time if time else None for time in ends)
    return images_ns / row["latency_ns_p50"], low, high


def _chart(name: str, title: str, note: str, rated: Sequence[tuple[Row, Rate]]) -> Chart | None:
    rows = [row for row, _ in rated]
    batches = sorted({row["batch"] for row in rows})
    if len(batches) < 2:
        return None
    drawn = looks(rows, without=("batch",))
    fields = [
        {"batch": row["batch"], "rate": rate, "low": low, "high": high, "file": SAMPLES}
        for row, (rate, low, high) in rated
    ]
    index, (best, (value, low, high)) = max(enumerate(rated), key=lambda each: each[1][1][0])
    half_width = None if low is None or high is None else (high - low) / 2.0
    rates = [rate for _, (rate, _, _) in rated]
    y = positive(min(rates), max(rates), "images/s", wide=WIDE, ticks=6, zero=True)
    few: dict[str, Any] = {"values": batches} if len(batches) <= MOST_TICKS else {}
    x = altair.X(
        "batch:Q",
        title="batch",
        scale=altair.Scale(type="log", base=2, nice=False, padding=8),
        axis=altair.Axis(grid=False, format="d", **few),
    )
    values, at = altair.Chart(ROWS), altair.Y("rate:Q", **y)
    told = tooltips(("batch:Q", "batch"), ("rate:Q", "images/s"), ("low:Q", "from"), ("high:Q", "to"))
    return Chart(
        name,
        title,
        [note, *drawn.notes],
        f"Images a second of {plural(len(set(drawn.names)), 'row')} at {len(batches)} batches from {batches[0]} to "
        f"{batches[-1]}. Most: {number(value, half_width)} by {drawn.names[index]} at batch {best['batch']}.",
        {"rows": drawn.values(rows, fields)},
        [
            values.mark_line(strokeWidth=1.5).encode(x, at, detail="name:N", color=drawn.colour()),
            values.transform_filter("isValid(datum.low) && isValid(datum.high)")
            .mark_rule(strokeWidth=1.5)
            .encode(x, altair.Y("low:Q", **y), y2="high", color=drawn.colour()),
            values.mark_point().encode(x, at, **drawn.of_points(), tooltip=told),
        ],
        height=260,
        legend=drawn.entries,
    )


def load(source: Source) -> list[Chart]:
    """A chart of the rates that server Cases tried, up to the lowest invalid one: there latencies begin to climb."""
    rows = source.of("server")
    loads = {result.case.case_id: result.metrics["load"] for result in source.results if "load" in result.metrics}
    if not rows:
        return []
    drawn, points = looks(rows), []
    for row, look in zip(rows, drawn.values(rows, [{} for _ in rows]), strict=True):
        told = loads[row["case_id"]]
        knee = told["rate_invalid"] or max(test["rate"] for test in told["tests"])
        points += [
            {
                **look,
                "rate": test["rate"],
                "p50": test["latency_ns_p50"] / 1e6,
                "p99": test["latency_ns_p99"] / 1e6,
                "verdict": "VALID" if test["valid"] else "INVALID",
                "limit": told["limit_ns"] / 1e6,
                "file": CASES,
            }
            for test in told["tests"]
            if test["rate"] <= knee
        ]
    times = [point[name] for point in points for name in ("p99", "limit")]
    y = positive(min(times), max(times), "p99 ms", ticks=6, zero=True)
    x = altair.X("rate:Q", title="offered queries/s", scale=altair.Scale(zero=False), axis=altair.Axis(grid=False))
    values, best = altair.Chart(ROWS), max(rows, key=lambda row: row["throughput_images_per_s"])
    most = f"{number(best['throughput_images_per_s'])} by {drawn.names[rows.index(best)]}"
    told_of = [("rate:Q", "queries/s"), ("p50:Q", "p50 ms"), ("p99:Q", "p99 ms"), ("verdict:N", "LoadGen")]
    return [
        Chart(
            "server_load",
            "Latency by offered load",
            ["99th percentile of each test, Poisson arrivals; dashed: the limit", *drawn.notes],
            f"99th percentiles of {plural(len(rows), 'row')} at rising rates. Highest valid rate: {most}.",
            {"rows": points},
            [
                values.mark_line(strokeWidth=1.5).encode(x, altair.Y("p99:Q", **y), color=drawn.colour()),
                values.mark_line(strokeDash=[4, 3]).encode(x, altair.Y("limit:Q", **y), color=drawn.colour()),
                values.mark_point().encode(x, altair.Y("p99:Q", **y), **drawn.of_points(), tooltip=tooltips(*told_of)),
            ],
            height=260,
            legend=drawn.entries,
        )
    ]
