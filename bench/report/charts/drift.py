"""Drift over a run: what each round's median was, relative to the run's; which rounds the host disturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Chart, Row, Source
from bench.report.charts.scales import FEW, PLAIN, known
from bench.report.charts.series import SAMPLES, Looks, looks, names
from bench.report.charts.theme import AXIS, BAND, BY_BACKEND, INK, POINT_AT, specification

if TYPE_CHECKING:
    import pandas as pd

HEIGHT = 220

# Points of a line, and of all lines together.
MOST_POINTS, MOST_POINTS_TOGETHER, LEAST_POINTS = 400, 8000, 12

# A few rounds far out must not flatten all others: the axis ends at so many times what 98 % of the rounds stay within.
REACH = 4.0
LEAST_REACH_PERCENT = 2.0

# More lines than these hide each other: then they are faint, and one line stands for all.
MOST_CLEAR = 6

Line = tuple[list[float], list[float]]


def draw(source: Source) -> list[Chart]:
    """A chart for each timed scenario: its rounds are numbered on their own."""
    return [chart for scenario in ("latency", "throughput") if (chart := _chart(source, scenario))]


def relative(times: Mapping[int, float]) -> dict[int, float]:
    """By how many per cent each round's time differs from the median over rounds.

    Args:
        times: of each round its median time, in any unit, above 0.
    """
    middle = median(times.values())
    return {round_: 100.0 * (times[round_] / middle - 1.0) for round_ in sorted(times)}


def together(lines: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Of each round the median over Cases: what the machine did to all of them."""
    found: dict[int, list[float]] = {}
    for line in lines:
        for round_, percent in line.items():
            found.setdefault(round_, []).append(percent)
    return {round_: median(found[round_]) for round_ in sorted(found)}


def in_blocks(line: Mapping[int, float], most: int) -> Line:
    """The line; of more than ``most`` rounds the medians of blocks of consecutive rounds, at their middles.

    Args:
        line: of each round a value, in the order of rounds.
        most: points, at least 1.
    """
    rounds, values = list(line), list(line.values())
    size = -(-len(rounds) // most)
    starts = range(0, len(rounds), size)
    middles = [float(median(rounds[start : start + size])) for start in starts]
    return middles, [median(values[start : start + size]) for start in starts]


def reach(lines: Sequence[Line]) -> tuple[float, float, int]:
    """Ends of the axis in per cent, and how many points lie beyond them."""
    import numpy as np

    every = np.concatenate([percent for _, percent in lines])
    limit = max(LEAST_REACH_PERCENT, REACH * float(np.quantile(np.abs(every), 0.98)))
    low, high = max(float(every.min()), -limit), min(float(every.max()), limit)
    beyond = int(np.count_nonzero(np.abs(every) > limit))
    least = LEAST_REACH_PERCENT
    return min(low, -least), max(high, least), beyond


def disturbed(rounds: pd.DataFrame, scenario: str, last: float) -> tuple[list[dict[str, Any]], int]:
    """Runs of disturbed rounds up to the last one drawn: from, to and why; and how many rounds they are."""
    marked = rounds[(rounds["scenario"] == scenario) & rounds["disturbed"].astype(bool)]
    marked = marked[marked["round"] <= last].sort_values("round")
    spans: list[dict[str, Any]] = []
    reasons: list[dict[str, None]] = []
    for round_, reason in zip(marked["round"].tolist(), marked["reason"].astype(str), strict=True):
        words = dict.fromkeys(word for word in reason.split(",") if word)
        if spans and round_ == spans[-1]["to"] + 0.5:
            spans[-1]["to"] = round_ + 0.5
            reasons[-1] |= words
        else:
            spans.append({"from": round_ - 0.5, "to": round_ + 0.5})
            reasons.append(words)
    told = [{**span, "reason": ", ".join(words)} for span, words in zip(spans, reasons, strict=True)]
    return told, len(marked)


def _chart(source: Source, scenario: str) -> Chart | None:
    from bench.analysis.time import verdict

    wanted = {row["case_id"]: row for row in source.of(scenario)}
    if not wanted:
        return None
    results = [result for result in source.results if result.case.case_id in wanted]
    times = {
        case_id: rounds
        for case_id, rounds in verdict.round_times(results, source.samples).items()
        if len(rounds) > 1 and min(rounds.values()) > 0
    }
    if not times:
        return None
    rows = [row for case_id, row in wanted.items() if case_id in times]
    most = max(LEAST_POINTS, min(MOST_POINTS, MOST_POINTS_TOGETHER // len(rows)))
    whole = [relative(times[row["case_id"]]) for row in rows]
    lines = [in_blocks(line, most) for line in whole]
    common = in_blocks(together(whole), MOST_POINTS) if len(rows) > MOST_CLEAR else None
    longest = max(len(rounds) for rounds in times.values())
    # What drifts is the machine: batches of a row share its colour.
    own, called = looks(rows, without=("batch",)), names(rows)
    low, high, beyond = reach(lines)
    spans, n_disturbed = disturbed(source.rounds, scenario, max(max(each) for each in times.values()))

    title = f"Drift over the run: {scenario}"
    notes = ["median of each round, relative to the Case's median over all rounds"]
    if longest > most:
        notes[0] = f"medians of blocks of up to {-(-longest // most)} rounds, relative to the Case's median"
    if called != own.names:
        notes[0] += "; a line for each batch"
    if common:
        notes.append("thick line: median of all Cases in the round")
    if n_disturbed:
        notes.append(f"grey bands: rounds in which the host was disturbed ({n_disturbed})")
    if beyond:
        notes.append(f"{beyond} point{'s' * (beyond != 1)} beyond the axis drawn at its edge")
    notes += [BY_BACKEND, POINT_AT] if own.by_backend else []
    alt = _alt(rows, called, lines, longest, n_disturbed)
    values = [
        known(
            case_id=row["case_id"],
            name=called[place],
            legend=own.legend[place],
            file=SAMPLES,
            round=lines[place][0],
            percent=lines[place][1],
        )
        for place, row in enumerate(rows)
    ]
    layers = [*_bands(spans), _zero(), _lines(own, low, high, faint=common is not None), *_common(common)]
    spec = specification(title, alt, notes, values, layers, HEIGHT, own.entries)
    return Chart(f"{scenario}_rounds", title, alt, spec, tuple(row["case_id"] for row in rows))


def _bands(spans: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if not spans:
        return []
    return [
        {
            "data": {"values": spans},
            "mark": {"type": "rect", "color": BAND},
            "encoding": {
                "x": {"field": "from", "type": "quantitative"},
                "x2": {"field": "to"},
                "tooltip": [
                    {"field": "reason", "title": "the host was disturbed"},
                    {"field": "from", "type": "quantitative", "title": "from round"},
                    {"field": "to", "type": "quantitative", "title": "to round"},
                ],
            },
        }
    ]


def _zero() -> dict[str, Any]:
    return {
        "data": {"values": [{}]},
        "mark": {"type": "rule", "color": AXIS},
        "encoding": {"y": {"datum": 0, "type": "quantitative"}},
    }


def _common(line: Line | None) -> list[dict[str, Any]]:
    if line is None:
        return []
    points = [known(round=round_, percent=percent) for round_, percent in zip(*line, strict=True)]
    fields = {"x": "round", "y": "percent"}
    encoding = {axis: {"field": field, "type": "quantitative"} for axis, field in fields.items()}
    mark = {"type": "line", "color": INK, "strokeWidth": 2, "tooltip": False}
    return [{"data": {"values": points}, "mark": mark, "encoding": encoding}]


def _lines(own: Looks, low: float, high: float, faint: bool) -> dict[str, Any]:
    encoding = {
        "x": {
            "field": "round",
            "type": "quantitative",
            "title": "round",
            "scale": {"zero": False, "nice": False},
            "axis": {"tickMinStep": 1, "format": "d", "grid": False, "tickCount": FEW},
        },
        "y": {
            "field": "percent",
            "type": "quantitative",
            "title": "change of time, %",
            "scale": {"domain": [low, high], "clamp": True},
            "axis": {"format": "+.2~f"},
        },
        "detail": {"field": "case_id"},
        "color": own.colour(lines=True),
        "tooltip": [
            {"field": "name", "title": "row"},
            {"field": "round", "type": "quantitative", "title": "round", "format": PLAIN},
            {"field": "percent", "type": "quantitative", "title": "change of time, %", "format": "+.3~f"},
            {"field": "case_id", "title": "case_id"},
            {"field": "file", "title": "samples file"},
        ],
    }
    if not own.by_backend:
        encoding["strokeDash"] = own.dashes()
    return {
        "transform": [{"flatten": ["round", "percent"]}],
        "mark": {
            "type": "line",
            "strokeWidth": 1 if faint else 1.5,
            "opacity": 0.4 if faint else 1,
            "point": "transparent",
        },
        "encoding": encoding,
    }


def _alt(
    rows: Sequence[Row], called: Sequence[str], lines: Sequence[Line], longest: int, n_disturbed: int
) -> str:
    widest = max(range(len(rows)), key=lambda place: max(map(abs, lines[place][1])))
    percent = lines[widest][1]
    far = max(percent, key=abs)
    of_them = f"{n_disturbed} of them disturbed by the host" if n_disturbed else "none of them disturbed"
    return (
        f"Time of each round relative to the Case's median, {len(rows)} Case{'s' * (len(rows) != 1)} over up to "
        f"{longest} rounds, {of_them}. Farthest from its median was {called[widest]} with {far:+.2g} %."
    )
