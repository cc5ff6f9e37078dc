"""Accuracy: against latency, with the Pareto front; and where it was lost, step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair

from bench.analysis.accuracy.waterfall import Step
from bench.analysis.stats.paired import share_limits
from bench.backends import display_name
from bench.report.charts.axes import known, linear, positive, tooltips
from bench.report.charts.bars import Bars
from bench.report.charts.chart import PREDICTIONS, ROWS, SAMPLES, Chart, Row, Source
from bench.report.charts.looks import MOST_OF_NAME, Looks, clean, counted, listed, looks, plural
from bench.report.charts.theme import AXIS, BLUE, GREY, VERMILLION
from bench.report.flips import difference_cell, short_names
from bench.report.text import percent, written

# What the accuracy and the latency of one thing have in common. Threads and batches change no prediction.
SAME = ("model", "weights", "backend", "device", "precision", "options")

# Effect of a step, colour and shape of the mark at its end.
WAYS = (
    ("start", GREY, "circle"),
    ("lost", VERMILLION, "triangle-left"),
    ("gained", BLUE, "triangle-right"),
    ("not resolved", GREY, "cross"),
)


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats, by rising cost: none costs as little and is worth as much, and is
    better in one of the two.

    Args:
        points: of each its cost (less is better) and its worth (more is better).
    """
    kept: list[int] = []
    for index in sorted(range(len(points)), key=lambda index: (points[index][0], -points[index][1])):
        best = points[kept[-1]] if kept else None
        if best is None or points[index][1] > best[1] or points[index] == best:
            kept.append(index)
    return kept


def pairs(source: Source) -> list[tuple[Row, Row]]:
    """Each latency row of the smallest batch, with the accuracy of the same model, backend, device and precision.

    Where there are several accuracies (of other pipelines), that of the row's own pipeline, else the first.
    """
    timed = [row for row in source.of("latency") if row["latency_ns_p50"] is not None]
    scored = [row for row in source.of("accuracy") if row["top1_percent"] is not None and row["n_images"]]
    batch = min((row["batch"] for row in timed), default=0)
    joined = []
    for row in timed:
        fitting = [other for other in scored if all(other[name] == row[name] for name in SAME)]
        fitting.sort(key=lambda other: other["pipeline"] != row["pipeline"])
        if row["batch"] == batch and fitting:
            joined.append((row, fitting[0]))
    return joined


def accuracy_latency(source: Source) -> list[Chart]:
    """One chart, of the smallest batch: only rows of one batch can be set beside each other."""
    joined = pairs(source)
    if not joined:
        return []
    rows = [row for row, _ in joined]
    drawn, batch = looks(rows, without=("batch",)), rows[0]["batch"]
    best = front([(row["latency_ns_p50"], scored["top1_percent"]) for row, scored in joined])
    fields = [
        {**_point(row, scored), "front": "yes" if index in best else "no"} for index, (row, scored) in enumerate(joined)
    ]
    on_front = [
        f"{drawn.names[index]} ({written('latency_ns_p50', joined[index][0])} ms, "
        f"{percent(joined[index][1]['top1_percent'], joined[index][1]['n_images'])} %)"
        for index in best
    ]
    return [
        Chart(
            "accuracy_latency",
            f"Accuracy against latency at batch {batch}",
            [
                "stepped line: rows that no other beats in both; bars: 95 % intervals",
                "each accuracy's interval is of it alone; differences on the same images are known better",
                *drawn.notes,
                *source.marks,
            ],
            f"Median latency at batch {batch} against top-1 accuracy of {plural(len(rows), 'row')}. No other row is "
            f"both faster and more accurate than {'these' if len(best) > 1 else 'this'}: {listed(on_front, 5)}.",
            {"rows": (values := drawn.values(rows, fields))},
            _points_and_front(drawn, values, batch),
            height=300,
            legend=drawn.entries,
        )
    ]


def _point(row: Row, scored: Row) -> dict[str, Any]:
    n = scored["n_images"]
    low, high = share_limits(round(scored["top1_percent"] * n / 100.0), n, alpha=0.025)
    ns = {name: row[f"latency_ns_p50{name.removeprefix('ms')}"] for name in ("ms", "ms_low", "ms_high")}
    return {
        "accuracy_case_id": scored["case_id"],
        **{name: value / 1e6 for name, value in ns.items() if value is not None},
        "top1": scored["top1_percent"],
        "top1_low": 100.0 * low,
        "top1_high": 100.0 * high,
        "file": f"{SAMPLES}, {PREDICTIONS}",
    }


def _points_and_front(drawn: Looks, values: Sequence[Row], batch: int) -> list[altair.Chart]:
    low = min(value.get("ms_low", value["ms"]) for value in values)
    high = max(value.get("ms_high", value["ms"]) for value in values)
    x = positive(low, high, f"median latency at batch {batch}, ms", wide=4.0, padding=10)
    y = linear("top-1, %", ticks=6)
    ms, top1 = altair.X("ms:Q", **x), altair.Y("top1:Q", **y)
    rows = altair.Chart(ROWS)
    return [
        rows.transform_filter("datum.front === 'yes'")
        .mark_line(interpolate="step-after", color=AXIS, strokeWidth=3)
        .encode(ms, top1, order="ms:Q"),
        rows.mark_rule().encode(ms, altair.Y("top1_low:Q", **y), y2="top1_high", color=drawn.colour()),
        rows.transform_filter("isValid(datum.ms_low)")
        .mark_rule()
        .encode(altair.X("ms_low:Q", **x), top1, x2="ms_high", color=drawn.colour()),
        rows.mark_point().encode(
            ms,
            top1,
            **drawn.of_points(),
            tooltip=tooltips(
                ("ms:Q", "median latency, ms"),
                ("ms_low:Q", "from"),
                ("ms_high:Q", "to"),
                ("top1:Q", "top-1, %", ".3f"),
                ("top1_low:Q", "from", ".3f"),
                ("top1_high:Q", "to", ".3f"),
                ("front:N", "on the front"),
                ("accuracy_case_id:N", "case_id (accuracy)"),
            ),
        ),
    ]


def waterfall(steps: Sequence[Step], marks: Sequence[str]) -> list[Chart]:
    """One chart of bars from one step's top-1 to the next; none where no step may be scored."""
    values = _step_values(steps)
    if not values:
        return []
    down = [value for value in values if value["effect"] != "start"]
    worst = min(down, key=lambda value: float(value["points"]))
    effects = counted([value["effect"] for value in down], [word for word, _, _ in WAYS])
    told = (
        ("case:N", "Case"),
        ("to:Q", "top-1, %", ".3f"),
        ("figure:N", "difference, points"),
        ("images:Q", "images", ","),
        ("flips:Q", "flips", ","),
        ("parent:N", "case_id (step before)"),
    )
    x = linear("top-1, %", grid=False, padding=6)
    return [
        Bars(values, x, "to", "effect", WAYS, told, thick=("from", "to")).chart(
            "waterfall",
            "Where accuracy was lost",
            [
                "each step against the one before it, same images; in points",
                "bar: from the step before; line: 95 % interval of the paired difference",
                *marks,
            ],
            f"Top-1 accuracy from step to step, {plural(len(down), 'step')}: {effects}. "
            f"Lowest difference: {worst['name']}, {worst['figure']} points.",
        )
    ]


def _step_values(steps: Sequence[Step]) -> list[dict[str, Any]]:
    """A row a step that may be scored, after the start that it comes from."""
    scored = [step for step in steps if step.ledger is not None and step.ledger.top1 is not None]
    # The accuracy of a start is that of the first step's images.
    first = {step.parent: step for step in reversed(scored)}
    drawn = [step for step in steps if step in scored or (not step.parent and step.case in first)]
    names = dict(zip(drawn, short_names([step.case for step in drawn]), strict=True))
    titles = _titles(drawn, names)
    return [
        known(
            place=place,
            case_id=step.case.case_id,
            name=titles[step],
            case=clean(names[step], 2 * MOST_OF_NAME),
            file=PREDICTIONS,
            **(_step(step) if step.parent else _start(first[step.case])),
        )
        for place, step in enumerate(drawn)
    ]


def _titles(drawn: Sequence[Step], names: Mapping[Step, str]) -> dict[Step, str]:
    """What each step changes; where two change the same (INT8 in two runtimes), with the backend or the whole name."""
    tries = (
        lambda step: step.change,
        lambda step: f"{step.change} ({display_name(step.case.backend)})",
        lambda step: f"{step.change}: {names[step]}",
    )
    titles = {step: f"{step.change}: {names[step]}" for step in drawn if step.parent is None}
    for title in tries:
        left = [step for step in drawn if step not in titles]
        texts = [title(step) for step in left]
        titles |= {step: text for step, text in zip(left, texts, strict=True) if texts.count(text) == 1}
    return {step: clean(titles.get(step, step.change), MOST_OF_NAME) for step in drawn}


def _start(step: Step) -> dict[str, Any]:
    """The start that this step comes from."""
    assert step.ledger is not None
    assert step.ledger.top1 is not None
    top1 = step.ledger.top1.base_percent
    return {"figure": f"{percent(top1, step.ledger.n_images)} %", "effect": "start", "to": top1}


def _step(step: Step) -> dict[str, Any]:
    assert step.parent is not None
    assert step.ledger is not None
    assert step.ledger.top1 is not None
    pair, n = step.ledger.top1, step.ledger.n_images
    resolved = pair.low_points > 0 or pair.high_points < 0
    return {
        "figure": str(difference_cell(pair, n)),
        "effect": ("gained" if pair.difference_points > 0 else "lost") if resolved else "not resolved",
        "from": pair.base_percent,
        "to": pair.other_percent,
        "low": pair.base_percent + pair.low_points,
        "high": pair.base_percent + pair.high_points,
        "points": pair.difference_points,
        "images": n,
        "flips": step.ledger.n_flips,
        "parent": step.parent.case_id,
    }
