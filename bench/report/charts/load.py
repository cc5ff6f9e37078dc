"""Latency against the offered load of LoadGen's server Cases."""

from __future__ import annotations

import altair

from bench.report.charts.axes import positive, tooltips
from bench.report.charts.chart import ROWS, Chart, Source
from bench.report.charts.looks import looks, plural
from bench.report.text import number

CASES = "cases.jsonl"


def load(source: Source) -> list[Chart]:
    """A chart of each rate that was tried, up to the lowest that is invalid: there the latencies begin to climb."""
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
