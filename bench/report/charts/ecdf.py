"""How the times of single calls are distributed: empirical distribution functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Chart, Row, Source
from bench.report.charts.scales import PLAIN, known, positive
from bench.report.charts.series import SAMPLES, Looks, looks
from bench.report.charts.theme import BY_BACKEND, POINT_AT, specification
from bench.report.sentences import milliseconds
from bench.report.text import whole

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEIGHT = 260

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
    import numpy as np

    n = len(ordered)
    if n <= most:
        ranks = np.arange(1, n + 1)
    else:
        n_tail = (most - 2) // 3
        even = np.linspace(1, n, most - 2 - n_tail)
        tail = n + 1 - np.geomspace(1, max(1, n // 4), n_tail)
        ranks = np.unique(np.round(np.concatenate([even, tail, [(n + 1) // 2, n // 2 + 1]])).astype(np.int64))
    return ordered[ranks - 1], ranks / n


def draw(source: Source) -> list[Chart]:
    """A chart for each batch, the smallest first."""
    rows = source.of("latency")
    curves = _samples(source, rows)
    drawn = [row for row in rows if row["case_id"] in curves]
    batches = sorted({row["batch"] for row in drawn})
    kept, left = batches[:MOST_CHARTS], batches[MOST_CHARTS:]
    n_drawn = sum(row["batch"] in kept for row in drawn)
    most = max(LEAST_STEPS, min(MOST_STEPS, MOST_STEPS_TOGETHER // max(1, n_drawn)))
    charts = []
    for batch in kept:
        notes = []
        if left and batch == kept[-1]:
            others = ", ".join(map(str, left[:10])) + (", ..." if len(left) > 10 else "")
            notes = [f"not drawn: the distributions at batch {others}"]
        # The smallest batch keeps its name whatever else is measured.
        name = "latency_ecdf" if batch == kept[0] else f"latency_ecdf_batch_{batch}"
        charts.append(_chart(name, [row for row in drawn if row["batch"] == batch], curves, most, notes))
    return charts


def _samples(source: Source, rows: Sequence[Row]) -> dict[str, NDArray[np.int64]]:
    """The sorted times of each row's stage, warm-up left out; rows without any are left out."""
    import numpy as np

    stages = {row["case_id"]: row["stage"] for row in rows}
    found = {}
    for case_id, part in source.samples.groupby("case_id", observed=True, sort=False):
        stage = stages.get(str(case_id))
        if stage is not None:
            timed = part[~part["warmup"] & ((part["stage"] == stage) if stage else True)]
            if len(timed):
                found[str(case_id)] = np.sort(timed["latency_ns"].to_numpy())
    return found


def _chart(
    name: str, rows: Sequence[Row], curves: dict[str, NDArray[np.int64]], most: int, notes: list[str]
) -> Chart:
    batch = rows[0]["batch"]
    own = looks(rows)
    values = []
    for row, called, legend in zip(rows, own.names, own.legend, strict=True):
        ordered = curves[row["case_id"]]
        ns, shares = thinned(ordered, most)
        values.append(
            known(
                case_id=row["case_id"],
                name=called,
                legend=legend,
                n=len(ordered),
                file=SAMPLES,
                ms=(ns / 1e6).tolist(),
                percent=(100.0 * shares).tolist(),
            )
        )
    low = min(value["ms"][0] for value in values)
    high = max(value["ms"][-1] for value in values)
    title = f"Distribution of single calls at batch {batch}"
    stages = sorted({row["stage"] for row in rows} - {""})
    notes = [f"share of calls that took no longer; timed: {', '.join(stages) or 'unknown'}", *notes]
    notes += [BY_BACKEND, POINT_AT] if own.by_backend else []
    alt = _alt(rows, own, curves, batch)
    layers = [_layer(own, positive(low, high, "latency of a call, ms", wide=WIDE))]
    spec = specification(title, alt, notes, values, layers, HEIGHT, own.entries)
    return Chart(name, title, alt, spec, tuple(row["case_id"] for row in rows))


def _layer(own: Looks, axis: dict[str, Any]) -> dict[str, Any]:
    percent = {"field": "percent", "type": "quantitative", "title": "share of calls, %"}
    encoding = {
        "x": {"field": "ms", "type": "quantitative", **axis},
        "y": {**percent, "scale": {"domain": [0, 100]}, "axis": {"values": [0, 25, 50, 75, 90, 100]}},
        # Otherwise equal times are joined in any order.
        "order": {"field": "percent", "type": "quantitative"},
        "detail": {"field": "case_id"},
        "color": own.colour(lines=True),
        "tooltip": [
            {"field": "name", "title": "row"},
            {"field": "percent", "type": "quantitative", "title": "share of calls, %", "format": PLAIN},
            {"field": "ms", "type": "quantitative", "title": "no longer than, ms", "format": PLAIN},
            {"field": "n", "type": "quantitative", "title": "samples", "format": ","},
            {"field": "case_id", "title": "case_id"},
            {"field": "file", "title": "samples file"},
        ],
    }
    if not own.by_backend:
        encoding["strokeDash"] = own.dashes()
    return {
        "transform": [{"flatten": ["ms", "percent"]}],
        "mark": {
            "type": "line",
            "interpolate": "step-after",
            "strokeWidth": 1 if own.by_backend else 1.75,
            "point": "transparent",
        },
        "encoding": encoding,
    }


def _alt(rows: Sequence[Row], own: Looks, curves: dict[str, NDArray[np.int64]], batch: int) -> str:
    calls = sum(len(curves[row["case_id"]]) for row in rows)
    medians = []
    for row, name in sorted(
        zip(rows, own.names, strict=True), key=lambda pair: pair[0]["latency_ns_p50"] or 0
    ):
        median, tail = milliseconds(row, "latency_ns_p50"), milliseconds(row, "latency_ns_p99")
        if median:
            medians.append(f"{name} {median} ms" + (f" (99 % within {tail} ms)" if tail else ""))
    more = len(medians) - NAMED_IN_ALT
    listed = ", ".join(medians[:NAMED_IN_ALT]) + (f" and {more} more" if more > 0 else "")
    what = f"Cumulative distributions of {whole(calls)} calls at batch {batch}, {len(rows)} in number"
    return f"{what}. Medians: {listed}." if listed else f"{what}."
