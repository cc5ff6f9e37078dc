"""How the times of single calls are distributed: empirical distribution functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import altair
import numpy as np
from numpy.typing import NDArray

from bench.report.charts.axes import positive, tooltips
from bench.report.charts.chart import ROWS, SAMPLES, Chart, Row, Source
from bench.report.charts.looks import listed, looks
from bench.report.text import whole, written

# From this ratio on a rare slow call would press all curves together on a linear axis.
WIDE = 3.0

# Steps that a curve may have: at this width no eye sees more. All curves of a run share the second number, so that
# a page of 200 Cases stays small.
MOST_STEPS, MOST_STEPS_TOGETHER, LEAST_STEPS = 200, 8000, 12

NAMED_IN_ALT = 4


def thinned(ordered: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """An empirical distribution function at no more than so many of its steps.

    Every sample counts: of each step that is kept the share is exact. The smallest, the largest and the middle samples
    (two, where their number is even) are always kept. Of the others two thirds lie at equal shares, and one third ever
    closer towards the slowest calls, which are few and matter most.

    Args:
        ordered: all samples, sorted, ``(n,)``, n at least 1.
        most: at least 5.

    Returns:
        sample values and the shares of samples that are no larger, each ``(k,)`` with k at most ``most``.
    """
    n = len(ordered)
    if n <= most:
        ranks = np.arange(1, n + 1)
    else:
        n_tail = (most - 2) // 3
        even = np.linspace(1, n, most - 2 - n_tail)
        tail = n + 1 - np.geomspace(1, max(1, n // 4), n_tail)
        ranks = np.unique(np.round(np.concatenate([even, tail, [(n + 1) // 2, n // 2 + 1]])).astype(np.int64))
    return ordered[ranks - 1], ranks / n


def distributions(source: Source) -> list[Chart]:
    """A chart for each batch, the smallest first."""
    rows = source.of("latency")
    times = _times(source, rows)
    rows = [row for row in rows if row["case_id"] in times]
    most = max(LEAST_STEPS, min(MOST_STEPS, MOST_STEPS_TOGETHER // max(1, len(rows))))
    batches = sorted({row["batch"] for row in rows})
    # The smallest batch keeps its name whatever else is measured.
    names = ["latency_ecdf", *(f"latency_ecdf_batch_{batch}" for batch in batches[1:])]
    return [
        _chart(name, [row for row in rows if row["batch"] == batch], times, most)
        for name, batch in zip(names, batches, strict=False)
    ]


def _times(source: Source, rows: Sequence[Row]) -> dict[str, NDArray[np.int64]]:
    """The sorted times of each row's stage, warm-up left out; rows without any are left out."""
    stages = {row["case_id"]: row["stage"] for row in rows}
    times = {}
    for case_id, part in source.samples.groupby("case_id", observed=True, sort=False):
        stage = stages.get(str(case_id))
        if stage is not None:
            timed = part[~part["warmup"] & ((part["stage"] == stage) if stage else True)]
            if len(timed):
                times[str(case_id)] = np.sort(timed["latency_ns"].to_numpy())
    return times


def _chart(name: str, rows: Sequence[Row], times: Mapping[str, NDArray[np.int64]], most: int) -> Chart:
    batch = rows[0]["batch"]
    drawn = looks(rows)
    curves = [(len(times[row["case_id"]]), *thinned(times[row["case_id"]], most)) for row in rows]
    fields = [
        {"n": n, "file": SAMPLES, "ms": (ns / 1e6).tolist(), "percent": (100.0 * shares).tolist()}
        for n, ns, shares in curves
    ]
    ends_ms = [ns[place] / 1e6 for _, ns, _ in curves for place in (0, -1)]
    stages = sorted({row["stage"] for row in rows} - {""})
    told = tooltips(("percent:Q", "share of calls, %"), ("ms:Q", "no longer than, ms"), ("n:Q", "samples", ","))
    layer = (
        altair.Chart(ROWS)
        .transform_flatten(["ms", "percent"])
        .mark_line(interpolate="step-after", strokeWidth=1 if drawn.by_backend else 1.75, point="transparent")
        .encode(
            altair.X("ms:Q", **positive(min(ends_ms), max(ends_ms), "latency of a call, ms", wide=WIDE)),
            altair.Y(
                "percent:Q",
                title="share of calls, %",
                scale=altair.Scale(domain=[0, 100]),
                axis=altair.Axis(values=[0, 25, 50, 75, 90, 100]),
            ),
            order="percent:Q",  # otherwise equal times are joined in any order
            detail="case_id:N",
            tooltip=told,
            **drawn.of_lines(),
        )
    )
    return Chart(
        name,
        f"Distribution of single calls at batch {batch}",
        [f"share of calls that took no longer; timed: {', '.join(stages) or 'unknown'}", *drawn.notes],
        f"Cumulative distributions of {whole(sum(n for n, _, _ in curves))} calls at batch {batch}, {len(rows)} in "
        f"number{_medians(rows, drawn.names)}.",
        {"rows": drawn.values(rows, fields)},
        [layer],
        height=260,
        legend=drawn.entries,
    )


def _medians(rows: Sequence[Row], names: Sequence[str]) -> str:
    medians = []
    for row, name in sorted(zip(rows, names, strict=True), key=lambda pair: pair[0]["latency_ns_p50"] or 0):
        median, tail = written("latency_ns_p50", row), written("latency_ns_p99", row)
        if median:
            medians.append(f"{name} {median} ms" + (f" (99 % within {tail} ms)" if tail else ""))
    return f". Medians: {listed(medians, NAMED_IN_ALT)}" if medians else ""
