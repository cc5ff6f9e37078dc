"""Drift over a run: what each round's median was, relative to the run's; which rounds the host disturbed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair
import numpy as np
import pandas as pd

from bench.analysis.time import verdict
from bench.report.charts.axes import FEW, known, tooltips
from bench.report.charts.chart import ROWS, SAMPLES, Chart, Source
from bench.report.charts.looks import looks, names, plural
from bench.report.charts.theme import AXIS, BAND, INK

# Points of a line, and of all lines together.
MOST_POINTS, MOST_POINTS_TOGETHER, LEAST_POINTS = 400, 8000, 12

# A few rounds far out must not flatten all others: the axis ends at so many times what 98 % of the rounds stay within.
REACH = 4.0
LEAST_REACH_PERCENT = 2.0

# More lines than these hide each other: then they are faint, and one line stands for all.
MOST_CLEAR = 6

Line = tuple[list[float], list[float]]


def drift(source: Source) -> list[Chart]:
    """A chart for each timed scenario: its rounds are numbered on their own."""
    return [chart for scenario in ("latency", "throughput") if (chart := _chart(source, scenario))]


def relative(times: Mapping[str, Mapping[int, float]]) -> pd.DataFrame:
    """By how many per cent each round's time differs from the Case's median over rounds: a row each round, in order.

    Args:
        times: of each Case the median time of each round, in any unit, above 0.
    """
    frame = pd.DataFrame(times).sort_index()
    return 100.0 * (frame / frame.median() - 1.0)


def in_blocks(line: pd.Series[float], most: int) -> Line:
    """The known points of a line; of more than ``most`` the medians of blocks of consecutive rounds, at their middles.

    Args:
        most: points, at least 1.
    """
    line = line.dropna()
    block = np.arange(len(line)) // -(-len(line) // most)
    rounds = line.index.to_series().groupby(block).median()
    return rounds.astype(float).tolist(), line.groupby(block).median().tolist()


def reach(lines: Sequence[Line]) -> tuple[float, float, int]:
    """Ends of the axis in per cent, and how many points lie beyond them."""
    every = np.concatenate([percent for _, percent in lines])
    limit = max(LEAST_REACH_PERCENT, REACH * float(np.quantile(np.abs(every), 0.98)))
    low, high = max(float(every.min()), -limit), min(float(every.max()), limit)
    beyond = int(np.count_nonzero(np.abs(every) > limit))
    return min(low, -LEAST_REACH_PERCENT), max(high, LEAST_REACH_PERCENT), beyond


def disturbed(rounds: pd.DataFrame, scenario: str, last: float) -> tuple[list[dict[str, Any]], int]:
    """Runs of disturbed rounds up to the last one drawn: from, to and why; and how many rounds they are."""
    marked = rounds[(rounds["scenario"] == scenario) & rounds["disturbed"].astype(bool)]
    marked = marked[marked["round"] <= last].sort_values("round")
    spans = [
        {
            "from": float(part["round"].min()) - 0.5,
            "to": float(part["round"].max()) + 0.5,
            "reason": ", ".join(dict.fromkeys(",".join(part["reason"].astype(str)).strip(",").split(","))),
        }
        for _, part in marked.groupby((marked["round"].diff() != 1).cumsum())
    ]
    return spans, len(marked)


def _chart(source: Source, scenario: str) -> Chart | None:
    times = _times(source, scenario)
    rows = [row for row in source.of(scenario) if row["case_id"] in times]
    if not rows:
        return None
    most = max(LEAST_POINTS, min(MOST_POINTS, MOST_POINTS_TOGETHER // len(rows)))
    percent = relative(times)
    lines = [in_blocks(percent[str(row["case_id"])], most) for row in rows]
    is_crowded = len(rows) > MOST_CLEAR
    longest = max(len(rounds) for rounds in times.values())
    # What drifts is the machine: batches of a row share its colour.
    drawn, called = looks(rows, without=("batch",)), names(rows)
    low, high, n_beyond = reach(lines)
    spans, n_disturbed = disturbed(source.rounds, scenario, max(max(each) for each in times.values()))
    by_round = f"medians of blocks of up to {-(-longest // most)} rounds" if longest > most else ""
    notes = {
        f"{by_round}, relative to the Case's median": by_round,
        "median of each round, relative to the Case's median over all rounds": not by_round,
        "a line for each batch": called != drawn.names,
        "thick line: median of all Cases in the round": is_crowded,
        f"grey bands: rounds in which the host was disturbed ({n_disturbed})": n_disturbed,
        f"{plural(n_beyond, 'point')} beyond the axis drawn at its edge": n_beyond,
    }
    fields = [
        {"name": name, "file": SAMPLES, "round": line[0], "percent": line[1]}
        for name, line in zip(called, lines, strict=True)
    ]
    # What the machine did to all of them.
    common = in_blocks(percent.median(axis="columns"), MOST_POINTS) if is_crowded else ([], [])
    together = [known(round=round_, percent=value) for round_, value in zip(*common, strict=True)]
    values = {"disturbed": spans, "rows": drawn.values(rows, fields), "together": together}
    farthest = [max(percent, key=abs) for _, percent in lines]
    widest = max(range(len(lines)), key=lambda index: abs(farthest[index]))
    return Chart(
        f"{scenario}_rounds",
        f"Drift over the run: {scenario}",
        [*(note for note, is_due in notes.items() if is_due), *drawn.notes],
        f"Time of each round relative to the Case's median, {plural(len(lines), 'Case')} over up to {longest} rounds, "
        f"{n_disturbed or 'none'} of them disturbed{' by the host' * bool(n_disturbed)}. Farthest from its median was "
        f"{called[widest]} with {farthest[widest]:+.2g} %.",
        {name: part for name, part in values.items() if part},
        [
            *(_bands() if spans else []),
            altair.Chart(ROWS).mark_rule(color=AXIS).encode(y=altair.datum(0)),
            *_lines((low, high), drawn.of_lines(), is_crowded),
        ],
        height=220,
        legend=drawn.entries,
    )


def _times(source: Source, scenario: str) -> dict[str, dict[int, float]]:
    """The median time of each round, of Cases that have several rounds and a clock that moved."""
    ids = {row["case_id"] for row in source.of(scenario)}
    results = [result for result in source.results if result.case.case_id in ids]
    return {
        case_id: rounds
        for case_id, rounds in verdict.round_times(results, source.samples).items()
        if len(rounds) > 1 and min(rounds.values()) > 0
    }


def _bands() -> list[altair.Chart]:
    why = (("reason:N", "the host was disturbed"), ("from:Q", "from round"), ("to:Q", "to round"))
    told = [altair.Tooltip(field, title=title) for field, title in why]
    return [altair.Chart(altair.NamedData("disturbed")).mark_rect(color=BAND).encode(x="from:Q", x2="to", tooltip=told)]


def _lines(domain: tuple[float, float], styles: Mapping[str, Any], is_crowded: bool) -> list[altair.Chart]:
    x = altair.X(
        "round:Q",
        title="round",
        scale=altair.Scale(zero=False, nice=False),
        axis=altair.Axis(tickMinStep=1, format="d", grid=False, tickCount=FEW),
    )
    y = altair.Y(
        "percent:Q",
        title="change of time, %",
        scale=altair.Scale(domain=list(domain), clamp=True),
        axis=altair.Axis(format="+.2~f"),
    )
    told = tooltips(("round:Q", "round"), ("percent:Q", "change of time, %", "+.3~f"))
    faint: dict[str, Any] = {"strokeWidth": 1, "opacity": 0.4} if is_crowded else {"strokeWidth": 1.5}
    lines = altair.Chart(ROWS).transform_flatten(["round", "percent"]).mark_line(point="transparent", **faint)
    common = altair.Chart(altair.NamedData("together")).mark_line(color=INK, strokeWidth=2)
    return [
        lines.encode(x, y, detail="case_id:N", tooltip=told, **styles),
        *([common.encode(x="round:Q", y="percent:Q")] if is_crowded else []),
    ]
