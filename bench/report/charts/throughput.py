"""Images a second against the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.report.charts.chart import Chart, Row, Source
from bench.report.charts.scales import PLAIN, known, positive
from bench.report.charts.series import SAMPLES, Looks, looks
from bench.report.charts.theme import BY_BACKEND, POINT_AT, specification
from bench.report.text import number

HEIGHT = 260

# From this ratio on a linear axis would hide the slow rows: a processor beside a GPU.
WIDE = 20.0

# With more batches than these the axis chooses its own ticks.
MOST_TICKS = 12


def draw(source: Source) -> list[Chart]:
    """A chart of the whole pipeline, and one of the network alone: those that have at least two batches."""
    passes = [(row, _of_passes(row)) for row in source.of("throughput")]
    calls = [(row, _of_calls(row)) for row in source.of("latency")]
    drawn = (
        _chart(
            "compute_batch",
            "Images a second by batch: network alone",
            "images of a call over its median time, with the 95 % interval of that",
            calls,
        ),
        _chart(
            "throughput_batch",
            "Images a second by batch: from file to class",
            "all images over all time of the passes, with the 95 % interval",
            passes,
        ),
    )
    return [chart for chart in drawn if chart]


Rate = tuple[float, float | None, float | None]


def _of_passes(row: Row) -> Rate | None:
    value = row["throughput_images_per_s"]
    if value is None:
        return None
    return value, row["throughput_images_per_s_low"], row["throughput_images_per_s_high"]


def _of_calls(row: Row) -> Rate | None:
    """The batch over the median; a rate's lower end comes of the upper end of the time."""
    times = [row[name] for name in ("latency_ns_p50", "latency_ns_p50_high", "latency_ns_p50_low")]
    if not times[0]:
        return None
    images_ns = row["batch"] * row["instances"] * 1e9
    value, low, high = (images_ns / time if time else None for time in times)
    assert value is not None
    return value, low, high


def _chart(name: str, title: str, note: str, rated: Sequence[tuple[Row, Rate | None]]) -> Chart | None:
    rows = [row for row, rate in rated if rate is not None]
    rates = [rate for _, rate in rated if rate is not None]
    batches = sorted({row["batch"] for row in rows})
    if len(batches) < 2:
        return None
    own = looks(rows, without=("batch",))
    values = [
        known(
            case_id=row["case_id"],
            name=own.names[place],
            legend=own.legend[place],
            batch=row["batch"],
            rate=rates[place][0],
            low=rates[place][1],
            high=rates[place][2],
            file=SAMPLES,
        )
        for place, row in enumerate(rows)
    ]
    notes = [note] + ([BY_BACKEND, POINT_AT] if own.by_backend else [])
    alt = _alt(rows, rates, own, batches)
    layers = _layers(own, values, batches)
    spec = specification(title, alt, notes, values, layers, HEIGHT, own.entries)
    return Chart(name, title, alt, spec, tuple(row["case_id"] for row in rows))


def _layers(own: Looks, values: Sequence[dict[str, Any]], batches: Sequence[int]) -> list[dict[str, Any]]:
    low, high = min(value["rate"] for value in values), max(value["rate"] for value in values)
    wide = low > 0 and high / low >= WIDE
    axis = (
        positive(low, high, "images/s", wide=WIDE)
        if wide
        else {"title": "images/s", "axis": {"tickCount": 6}}
    )
    rate = {"field": "rate", "type": "quantitative", **axis}
    batch: dict[str, Any] = {
        "field": "batch",
        "type": "quantitative",
        "title": "batch",
        "scale": {"type": "log", "base": 2, "nice": False, "padding": 8},
        "axis": {"grid": False, "format": "d"},
    }
    if len(batches) <= MOST_TICKS:
        batch["axis"]["values"] = list(batches)
    told = [
        {"field": "name", "title": "row"},
        {"field": "batch", "type": "quantitative", "title": "batch"},
        {"field": "rate", "type": "quantitative", "title": "images/s", "format": PLAIN},
        {"field": "low", "type": "quantitative", "title": "from", "format": PLAIN},
        {"field": "high", "type": "quantitative", "title": "to", "format": PLAIN},
        {"field": "case_id", "title": "case_id"},
        {"field": "file", "title": "samples file"},
    ]
    seen = {"color": own.colour()} | ({} if own.by_backend else {"shape": own.shapes()})
    return [
        {
            "mark": {"type": "line", "strokeWidth": 1.5},
            "encoding": {
                "x": batch,
                "y": rate,
                "detail": {"field": "name"},
                "color": own.colour(),
            },
        },
        {
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "mark": {"type": "rule", "strokeWidth": 1.5},
            "encoding": {
                "x": batch,
                "y": {**rate, "field": "low"},
                "y2": {"field": "high"},
                "color": own.colour(),
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {"x": batch, "y": rate, "tooltip": told, **seen},
        },
    ]


def _alt(rows: Sequence[Row], rates: Sequence[Rate], own: Looks, batches: Sequence[int]) -> str:
    best = max(range(len(rows)), key=lambda place: rates[place][0])
    value, low, high = rates[best]
    half_width = None if low is None or high is None else (high - low) / 2.0
    lines = len(set(own.names))
    return (
        f"Images a second of {lines} row{'s' * (lines != 1)} at {len(batches)} batches from {batches[0]} to "
        f"{batches[-1]}. Most: {number(value, half_width)} by {own.names[best]} at batch {rows[best]['batch']}."
    )
