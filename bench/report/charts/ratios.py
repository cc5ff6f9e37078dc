"""The ratio of each row's time to its baseline's, with its interval and the band that counts as the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.report.charts import bars
from bench.report.charts.chart import Chart, Row, Source
from bench.report.charts.scales import PLAIN, known, logarithmic, short
from bench.report.charts.series import SAMPLES, backend_name, clean, looks
from bench.report.charts.theme import BLUE, GREEN, GREY, POINT_AT, VERMILLION, specification
from bench.report.text import number

# Verdict, colour, shape: also without colours the shape points to where the row lies.
WAYS = (
    ("faster", BLUE, "triangle-left"),
    ("same", GREEN, "circle"),
    ("slower", VERMILLION, "triangle-right"),
    ("unresolved", GREY, "cross"),
)


def draw(source: Source) -> list[Chart]:
    """A chart for each timed scenario: they time other stages."""
    return [chart for scenario in ("latency", "throughput") if (chart := _chart(source, scenario))]


def _chart(source: Source, scenario: str) -> Chart | None:
    timed = source.of(scenario)
    rows = [row for row in timed if row["ratio"] and row["verdict"]]
    if not rows:
        return None
    own = looks(rows)
    values = [
        known(
            case_id=row["case_id"],
            baseline_case_id=row["baseline_case_id"],
            place=place,
            name=own.names[place],
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
    baseline = _baseline(timed, rows)
    title = f"Time relative to {baseline}: {scenario}"
    band = 1.0 / (1.0 + source.materiality), 1.0 + source.materiality
    together = f", {len(rows)} together" if len(rows) > 1 else ""
    notes = [
        f"median ratio over rounds, 95 % intervals{together}; left is faster",
        f"grey band: up to {100 * source.materiality:.3g} % counts as the same",
    ]
    if not bars.is_named(len(rows)):
        notes.append(POINT_AT)
    alt = _alt(rows, own.names, baseline)
    present = [row["verdict"] for row in rows]
    layers = _layers(values, band, present, baseline)
    legend = [word for word, _, _ in WAYS if word in present]
    spec = specification(title, alt, notes, values, layers, bars.height_of(len(rows)), legend, len(rows))
    return Chart(f"{scenario}_ratio", title, alt, spec, tuple(row["case_id"] for row in rows))


def _baseline(timed: Sequence[Row], rows: Sequence[Row]) -> str:
    ids = {row["baseline_case_id"] for row in rows}
    named = {
        f"{backend_name(row)} {clean(row['precision']).upper()}" for row in timed if row["case_id"] in ids
    }
    return named.pop() if len(named) == 1 else "the baseline"


def _layers(
    values: Sequence[dict[str, Any]], band: tuple[float, float], present: Sequence[str], baseline: str
) -> list[dict[str, Any]]:
    n = len(values)
    ends = [value[name] for value in values for name in ("ratio", "low", "high") if name in value]
    axis = logarithmic(min(*ends, band[0]), max(*ends, band[1]), f"time over that of {baseline}")
    axis["axis"]["grid"] = False
    at = {"type": "quantitative", **axis}
    ratio = {"field": "ratio", **at}
    y, kinds = bars.place(n), bars.kinds("verdict", WAYS, present)
    told = [
        {"field": "name", "title": "row"},
        {"field": "verdict", "title": "verdict"},
        {"field": "ratio", "type": "quantitative", "title": "time over baseline's", "format": PLAIN},
        {"field": "low", "type": "quantitative", "title": "from", "format": PLAIN},
        {"field": "high", "type": "quantitative", "title": "to", "format": PLAIN},
        {"field": "rounds", "type": "quantitative", "title": "rounds"},
        {"field": "case_id", "title": "case_id"},
        {"field": "baseline_case_id", "title": "case_id (baseline)"},
        {"field": "file", "title": "samples file"},
    ]
    return [
        *bars.band(n, at, short(band[0]), 1, short(band[1])),
        *bars.tracks(n),
        {
            "transform": [{"filter": "isValid(datum.low) && isValid(datum.high)"}],
            "mark": {"type": "rule", "strokeWidth": 2, **bars.down(n)},
            "encoding": {
                "x": {**ratio, "field": "low"},
                "x2": {"field": "high"},
                "y": y,
                "color": kinds["color"],
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": bars.marker(n), "opacity": 1, **bars.down(n)},
            "encoding": {"x": ratio, "y": y, **kinds, "tooltip": told},
        },
        *bars.letters(n),
    ]


def _figure(row: Row) -> str:
    low, high = row["ratio_low"], row["ratio_high"]
    if low is None or high is None:
        return number(row["ratio"])
    half_width = (high - low) / 2.0
    return f"{number(row['ratio'], half_width)} ({number(low, half_width)} to {number(high, half_width)})"


def _alt(rows: Sequence[Row], names: Sequence[str], baseline: str) -> str:
    counts = [(sum(row["verdict"] == word for row in rows), word) for word, _, _ in WAYS]
    told = ", ".join(f"{count} {word}" for count, word in counts if count)
    fastest = min(range(len(rows)), key=lambda place: rows[place]["ratio"])
    return (
        f"Time over that of {baseline} for {len(rows)} row{'s' * (len(rows) != 1)}: {told}. "
        f"Lowest ratio: {names[fastest]}, {_figure(rows[fastest])}."
    )
