"""Accuracy against latency, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.report.charts.chart import Chart, Row, Source
from bench.report.charts.scales import PLAIN, known, positive
from bench.report.charts.series import PREDICTIONS, SAMPLES, Looks, looks
from bench.report.charts.theme import AXIS, BY_BACKEND, POINT_AT, specification
from bench.report.sentences import milliseconds
from bench.report.text import percent

HEIGHT = 300

LINEAR = {"scale": {"zero": False}, "axis": {"tickCount": 6}}

# What the accuracy and the latency of one thing have in common. Threads and batches change no prediction.
SAME = ("model", "weights", "backend", "device", "precision", "options")


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Places of the points that no other beats, by rising cost: none costs as little and is worth as much, and is
    better in one of the two.

    Args:
        points: of each its cost (less is better) and its worth (more is better).
    """
    kept: list[int] = []
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        best = points[kept[-1]] if kept else None
        if best is None or points[place][1] > best[1] or points[place] == best:
            kept.append(place)
    return kept


def share_interval(right: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share: Clopper and Pearson, Biometrika 26 (1934).

    Args:
        right: successes, 0 to n.
        n: trials, at least 1.
        confidence: between 0 and 1.
    """
    from scipy.special import betaincinv

    tail = (1.0 - confidence) / 2.0
    low = float(betaincinv(right, n - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, n - right, 1.0 - tail)) if right < n else 1.0
    return low, high


def pairs(source: Source) -> list[tuple[Row, Row]]:
    """Each latency row of the smallest batch, with the accuracy of the same model, backend, device and precision.

    Where there are several accuracies (of other pipelines), that of the row's own pipeline, else the first.
    """
    timed = [row for row in source.of("latency") if row["latency_ns_p50"] is not None]
    scored = [row for row in source.of("accuracy") if row["top1_percent"] is not None and row["n_images"]]
    batch = min((row["batch"] for row in timed), default=0)
    found = []
    for row in timed:
        fitting = [other for other in scored if all(other[name] == row[name] for name in SAME)]
        fitting.sort(key=lambda other: other["pipeline"] != row["pipeline"])
        if row["batch"] == batch and fitting:
            found.append((row, fitting[0]))
    return found


def draw(source: Source) -> list[Chart]:
    """One chart, of the smallest batch: only rows of one batch can be set beside each other."""
    joined = pairs(source)
    if not joined:
        return []
    timed = [row for row, _ in joined]
    own = looks(timed, without=("batch",))
    on_front = front([(row["latency_ns_p50"], scored["top1_percent"]) for row, scored in joined])
    values = []
    for place, (row, scored) in enumerate(joined):
        n = scored["n_images"]
        low, high = share_interval(round(scored["top1_percent"] * n / 100.0), n)
        values.append(
            known(
                case_id=row["case_id"],
                accuracy_case_id=scored["case_id"],
                name=own.names[place],
                legend=own.legend[place],
                ms=row["latency_ns_p50"] / 1e6,
                ms_low=_ms(row["latency_ns_p50_low"]),
                ms_high=_ms(row["latency_ns_p50_high"]),
                top1=scored["top1_percent"],
                top1_low=100.0 * low,
                top1_high=100.0 * high,
                front="yes" if place in on_front else "no",
                files=f"{SAMPLES}, {PREDICTIONS}",
            )
        )
    batch = timed[0]["batch"]
    title = f"Accuracy against latency at batch {batch}"
    best = [
        f"{own.names[place]} ({milliseconds(joined[place][0], 'latency_ns_p50')} ms, "
        f"{percent(joined[place][1]['top1_percent'], joined[place][1]['n_images'])} %)"
        for place in on_front
    ]
    alt = (
        f"Median latency at batch {batch} against top-1 accuracy of {len(values)} "
        f"row{'s' * (len(values) != 1)}. No other row is both faster and more accurate than "
        f"{'these' if len(best) > 1 else 'this'}: {_listed(best)}."
    )
    notes = [
        "stepped line: rows that no other beats in both; bars: 95 % intervals",
        "each accuracy's interval is of it alone; differences on the same images are known better",
        *([BY_BACKEND, POINT_AT] if own.by_backend else []),
        *source.marks,
    ]
    spec = specification(title, alt, notes, values, _layers(own, values, batch), HEIGHT, own.entries)
    ids = (*(row["case_id"] for row in timed), *(scored["case_id"] for _, scored in joined))
    return [Chart("accuracy_latency", title, alt, spec, tuple(dict.fromkeys(ids)))]


def _layers(own: Looks, values: Sequence[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    low = min(value.get("ms_low", value["ms"]) for value in values)
    high = max(value.get("ms_high", value["ms"]) for value in values)
    axis = positive(low, high, f"median latency at batch {batch}, ms", wide=4.0, padding=10)
    ms = {"field": "ms", "type": "quantitative", **axis}
    top1 = {"field": "top1", "type": "quantitative", "title": "top-1, %", **LINEAR}
    tooltip = [
        {"field": "name", "title": "row"},
        {"field": "ms", "title": "median latency, ms", "format": PLAIN},
        {"field": "ms_low", "title": "from", "format": PLAIN},
        {"field": "ms_high", "title": "to", "format": PLAIN},
        {"field": "top1", "title": "top-1, %", "format": ".3f"},
        {"field": "top1_low", "title": "from", "format": ".3f"},
        {"field": "top1_high", "title": "to", "format": ".3f"},
        {"field": "front", "title": "on the front"},
        {"field": "case_id", "title": "case_id (latency)"},
        {"field": "accuracy_case_id", "title": "case_id (accuracy)"},
        {"field": "files", "title": "files"},
    ]
    return [
        {
            "transform": [{"filter": "datum.front === 'yes'"}],
            "mark": {"type": "line", "interpolate": "step-after", "color": AXIS, "strokeWidth": 3},
            "encoding": {"x": ms, "y": top1, "order": {"field": "ms", "type": "quantitative"}},
        },
        {
            "mark": {"type": "rule"},
            "encoding": {
                "x": ms,
                "y": {**top1, "field": "top1_low"},
                "y2": {"field": "top1_high"},
                "color": own.colour(),
            },
        },
        {
            "transform": [{"filter": "isValid(datum.ms_low)"}],
            "mark": {"type": "rule"},
            "encoding": {
                "x": {**ms, "field": "ms_low"},
                "x2": {"field": "ms_high"},
                "y": top1,
                "color": own.colour(),
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 80, "opacity": 1},
            "encoding": {
                "x": ms,
                "y": top1,
                "color": own.colour(),
                "shape": own.shapes(),
                "tooltip": tooltip,
            },
        },
    ]


def _ms(value_ns: float | None) -> float | None:
    return None if value_ns is None else value_ns / 1e6


def _listed(words: Sequence[str], most: int = 5) -> str:
    more = len(words) - most
    return ", ".join(words[:most]) + (f" and {more} more" if more > 0 else "")
