"""Histories for people: a row for each Case, its course in one line, and where its level changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.analysis.stats.changepoints import LEVEL, MIN_SEGMENT, ChangePoint
from bench.analysis.table import DEMO_NOTE
from bench.analysis.time.verdict import LEAST_MATERIALITY
from bench.report.document import Document
from bench.report.flips import p_text
from bench.report.sentences import one_line
from bench.report.tables import Table
from bench.report.text import number, percent
from bench.studies.history import Point, Series

if TYPE_CHECKING:
    import pandas as pd

BARS = "▁▂▃▄▅▆▇█"
# The runs that a sparkline shows: the newest.
MOST_BARS = 24
# Under so many runs no order of them is rarer than the test's level.
FEWEST_RUNS = 10


def document(history: pd.DataFrame, found: Sequence[Series], title: str) -> Document:
    """Tables of ratios by machine, and of top-1 by set of images; for machines every run of every series."""
    tables = []
    for host in dict.fromkeys(each.host for each in found if each.kind == "ratio"):
        tables.append(_ratios([each for each in found if each.kind == "ratio" and each.host == host]))
    scored = [each for each in found if each.kind == "top1_percent"]
    if scored:
        tables.append(_scores(scored, history))
    lines = [] if found else ["no Case was measured in two runs or more"]
    demo = history["weights"].eq("demo").any()
    return Document(
        title=title,
        tables=tables,
        lines=lines,
        marks=[DEMO_NOTE] if demo else [],
        data={"runs": sorted(set(history["run"])), "series": [each.to_dict() for each in found]},
        frames={"history": history},
    )


def sparkline(values: Sequence[float]) -> str:
    """The course of the newest values in a line of bars, the least and the largest of them as ends of the scale."""
    shown = list(values)[-MOST_BARS:]
    low, high = min(shown), max(shown)
    # What differs by less than this is drawn level, or noise would look like mountains.
    if high - low <= LEAST_MATERIALITY * abs(high):
        return BARS[3] * len(shown)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in shown)


def _ratios(group: Sequence[Series]) -> Table:
    labels = {each.case.case_id: each.case.label for each in group}
    rows = tuple(
        (
            one_line(each.case.label),
            one_line(labels.get(each.baseline_case_id, each.baseline_case_id)),
            str(len(each.points)),
            sparkline([point.value for point in each.points]),
            _ratio(each.points[0]),
            _ratio(each.points[-1]),
            "; ".join(_change(each, change) for change in each.changes) or _none(each),
        )
        for each in group
    )
    return Table(
        title=one_line(
            f"Time per image over the baseline's, run by run: {group[0].host_name} ({group[0].host})"
        ),
        header=("Case", "Baseline", "Runs", "Course", "First", "Newest", "Changes of level"),
        rows=rows,
        numeric=(False, False, True, False, True, True, False),
        notes=(
            f"change: {MIN_SEGMENT} runs or more whose median differs by more than {LEAST_MATERIALITY:.0%} "
            f"from that of the others, permutation test p < {LEVEL:g}; this takes {FEWEST_RUNS} runs",
        ),
    )


def _ratio(point: Point) -> str:
    if point.low is None or point.high is None:
        return number(point.value)
    half_width = (point.high - point.low) / 2.0
    return f"{number(point.value, half_width)} ({number(point.low, half_width)} to {number(point.high, half_width)})"


def _change(each: Series, change: ChangePoint) -> str:
    point = each.points[change.index]
    where = " ".join(filter(None, [point.created_at[:10], point.commit]))
    levels = f"{number(change.before)} to {number(change.after)}"
    return f"{levels} from {where or point.run} on (p {p_text(change.p_value)})"


def _none(each: Series) -> str:
    return "none" if len(each.points) >= FEWEST_RUNS else "too few runs to tell"


def _scores(group: Sequence[Series], history: pd.DataFrame) -> Table:
    counts = dict(zip(history["case_id"], history["n_images"], strict=True))
    rows = []
    for each in group:
        n = counts.get(each.case.case_id)
        changes = [
            f"{percent(change.before, n)} to {percent(change.after, n)} in "
            f"{each.points[change.index].run} {each.points[change.index].commit}".rstrip()
            for change in each.changes
        ]
        ends = [percent(each.points[place].value, n) for place in (0, -1)]
        rows.append((one_line(each.case.label), str(len(each.points)), *ends, "; ".join(changes) or "none"))
    return Table(
        title="Top-1 % on the same images, run by run",
        header=("Case", "Runs", "First", "Newest", "Changes"),
        rows=tuple(rows),
        numeric=(False, True, True, True, False),
    )
