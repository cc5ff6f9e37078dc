"""How the times of single calls are distributed: empirical distribution functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import altair
import numpy as np
from numpy.typing import NDArray

from bench.report.charts.axes import known, positive, tooltips
from bench.report.charts.chart import BY_BACKEND, POINT_AT, ROWS, SAMPLES, Chart, Row, Source
from bench.report.charts.looks import Looks, listed, looks
from bench.report.charts.theme import Theme
from bench.report.text import whole, written

# From this ratio on a rare slow call would press all curves together on a linear axis.
WIDE = 3.0

# Steps that a curve may have: at this width no eye sees more. All curves of a run share the second number, so that
# a page of 200 Cases stays small.
MOST_STEPS, MOST_STEPS_TOGETHER, LEAST_STEPS = 200, 8000, 12

# Charts, one a batch; what is left out is named.
MOST_CHARTS = 6

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
    batches = sorted({row["batch"] for row in rows})
    drawn, left = batches[:MOST_CHARTS], batches[MOST_CHARTS:]
    n_drawn = sum(row["batch"] in drawn for row in rows)
    most = max(LEAST_STEPS, min(MOST_STEPS, MOST_STEPS_TOGETHER // max(1, n_drawn)))
    charts = []
    for batch in drawn:
        notes = []
        if left and batch == drawn[-1]:
            others = ", ".join(map(str, left[:10])) + (", ..." if len(left) > 10 else "")
            notes = [f"not drawn: the distributions at batch {others}"]
        # The smallest batch keeps its name whatever else is measured.
        name = "latency_ecdf" if batch == drawn[0] else f"latency_ecdf_batch_{batch}"
        charts.append(_chart(name, [row for row in rows if row["batch"] == batch], times, most, notes))
    return charts


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


def _chart(
    name: str, rows: Sequence[Row], times: Mapping[str, NDArray[np.int64]], most: int, notes: list[str]
) -> Chart:
    batch = rows[0]["batch"]
    drawn = looks(rows)
    values = []
    for row, called, legend in zip(rows, drawn.names, drawn.legend, strict=True):
        ns, shares = thinned(times[row["case_id"]], most)
        values.append(
            known(
                case_id=row["case_id"],
                name=called,
                legend=legend,
                n=len(times[row["case_id"]]),
                file=SAMPLES,
                ms=(ns / 1e6).tolist(),
                percent=(100.0 * shares).tolist(),
            )
        )
    low = min(value["ms"][0] for value in values)
    high = max(value["ms"][-1] for value in values)
    stages = sorted({row["stage"] for row in rows} - {""})
    return Chart(
        name,
        f"Distribution of single calls at batch {batch}",
        [
            f"share of calls that took no longer; timed: {', '.join(stages) or 'unknown'}",
            *notes,
            *([BY_BACKEND, POINT_AT] if drawn.by_backend else []),
        ],
        _alt(rows, drawn, sum(len(times[row["case_id"]]) for row in rows)),
        {"rows": values},
        partial(_curves, drawn=drawn, x=positive(low, high, "latency of a call, ms", wide=WIDE)),
        height=260,
        legend=drawn.entries,
    )


def _curves(theme: Theme, drawn: Looks, x: dict[str, Any]) -> list[altair.Chart]:
    axis = altair.Axis(values=[0, 25, 50, 75, 90, 100])
    told = tooltips(("percent:Q", "share of calls, %"), ("ms:Q", "no longer than, ms"), ("n:Q", "samples", ","))
    curves = (
        altair.Chart(ROWS)
        .transform_flatten(["ms", "percent"])
        .mark_line(interpolate="step-after", **theme.line(1 if drawn.by_backend else 1.75))
        .encode(
            altair.X("ms:Q", **x),
            altair.Y("percent:Q", title="share of calls, %", scale=altair.Scale(domain=[0, 100]), axis=axis),
            order="percent:Q",  # otherwise equal times are joined in any order
            detail="case_id:N",
            tooltip=told,
            **drawn.of_lines(),
        )
    )
    return [curves]


def _alt(rows: Sequence[Row], drawn: Looks, n_calls: int) -> str:
    medians = []
    in_order = sorted(zip(rows, drawn.names, strict=True), key=lambda pair: pair[0]["latency_ns_p50"] or 0)
    for row, name in in_order:
        median, tail = written("latency_ns_p50", row), written("latency_ns_p99", row)
        if median:
            medians.append(f"{name} {median} ms" + (f" (99 % within {tail} ms)" if tail else ""))
    what = f"Cumulative distributions of {whole(n_calls)} calls at batch {rows[0]['batch']}, {len(rows)} in number"
    return f"{what}. Medians: {listed(medians, NAMED_IN_ALT)}." if medians else f"{what}."
