"""Where accuracy was lost: bars from one step's top-1 to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.analysis.accuracy.waterfall import Step
from bench.backends import display_name
from bench.report.charts import bars
from bench.report.charts.chart import Chart, Source
from bench.report.charts.scales import known, linear
from bench.report.charts.series import MOST_OF_NAME, PREDICTIONS, clean
from bench.report.charts.theme import BLUE, GREY, INK, POINT_AT, VERMILLION, specification
from bench.report.flips import points, short_names
from bench.report.text import percent

TITLE = "Where accuracy was lost"

# Effect, colour, shape of the mark at the step's end.
WAYS = (
    ("start", INK, "circle"),
    ("lost", VERMILLION, "triangle-left"),
    ("gained", BLUE, "triangle-right"),
    ("not resolved", GREY, "cross"),
)


def draw(source: Source) -> list[Chart]:
    """One chart, where at least one step may be scored."""
    values = _values(source)
    if not values:
        return []
    n = len(values)
    notes = [
        "each step against the one before it, same images; in points",
        "bar: from the step before; line: 95 % interval of the paired difference",
        *source.marks,
    ]
    if not bars.is_named(n):
        notes.append(POINT_AT)
    alt = _alt(values)
    present = [value["effect"] for value in values]
    legend = [word for word, _, _ in WAYS if word in present]
    layers = _layers(values, present)
    spec = specification(TITLE, alt, notes, values, layers, bars.height_of(n), legend, n)
    return [Chart("waterfall", TITLE, alt, spec, tuple(value["case_id"] for value in values))]


def _values(source: Source) -> list[dict[str, Any]]:
    """A row a step that may be scored, after the start that it comes from."""
    scored = [step for step in source.steps if step.ledger is not None and step.ledger.top1 is not None]
    parents = {step.parent for step in scored}
    drawn = [step for step in source.steps if step in scored or (not step.parent and step.case in parents)]
    names = dict(zip(drawn, short_names([step.case for step in drawn]), strict=True))
    titles = _titles(drawn, names)
    rows = {row["case_id"]: row for row in source.rows}
    values = []
    for place, step in enumerate(drawn):
        row = rows.get(step.case.case_id)
        common: dict[str, Any] = {
            "place": place,
            "case_id": step.case.case_id,
            "case": clean(names[step], 2 * MOST_OF_NAME),
            "file": PREDICTIONS,
        }
        if step.parent is None:
            top1 = row["top1_percent"] if row else None
            if row and top1 is not None:
                told = f"{percent(top1, row['n_images'])} %"
                values.append(known(**common, name=titles[step], figure=told, effect="start", to=top1))
            continue
        values.append(known(**common, name=titles[step], **_step(step), parent=step.parent.case_id))
    # The places of starts without an accuracy stay free otherwise.
    return [{**value, "place": place} for place, value in enumerate(values)]


def _titles(drawn: Sequence[Step], names: Mapping[Step, str]) -> dict[Step, str]:
    """What each step changes; where two change the same (INT8 in two runtimes), with the backend or the whole name."""
    tries = (
        lambda step: step.change,
        lambda step: f"{step.change} ({display_name(step.case.backend)})",
        lambda step: f"{step.change}: {names[step]}",
    )
    found = {step: f"{step.change}: {names[step]}" for step in drawn if step.parent is None}
    for title in tries:
        left = [step for step in drawn if step not in found]
        texts = [title(step) for step in left]
        found |= {step: text for step, text in zip(left, texts, strict=True) if texts.count(text) == 1}
    return {step: clean(found.get(step, step.change), MOST_OF_NAME) for step in drawn}


def _step(step: Step) -> dict[str, Any]:
    ledger = step.ledger
    assert ledger is not None
    pair = ledger.top1
    assert pair is not None
    n = ledger.n_images
    resolved = pair.low_points > 0 or pair.high_points < 0
    low, high = points(pair.low_points, n), points(pair.high_points, n)
    return {
        "figure": f"{points(pair.difference_points, n)} ({low} to {high})",
        "effect": ("gained" if pair.difference_points > 0 else "lost") if resolved else "not resolved",
        "from": pair.base_percent,
        "to": pair.other_percent,
        "low": pair.base_percent + pair.low_points,
        "high": pair.base_percent + pair.high_points,
        "points": pair.difference_points,
        "images": n,
        "flips": ledger.n_flips,
    }


def _layers(values: Sequence[dict[str, Any]], present: Sequence[str]) -> list[dict[str, Any]]:
    n = len(values)
    to = {"field": "to", "type": "quantitative", **linear("top-1, %", grid=False, padding=6)}
    y, kinds = bars.place(n), bars.kinds("effect", WAYS, present)
    told = [
        {"field": "name", "title": "step"},
        {"field": "case", "title": "row"},
        {"field": "to", "type": "quantitative", "title": "top-1, %", "format": ".3f"},
        {"field": "figure", "title": "difference, points"},
        {"field": "images", "type": "quantitative", "title": "images", "format": ","},
        {"field": "flips", "type": "quantitative", "title": "flips", "format": ","},
        {"field": "case_id", "title": "case_id"},
        {"field": "parent", "title": "case_id (step before)"},
        {"field": "file", "title": "predictions file"},
    ]
    steps = [{"filter": "isValid(datum.from)"}]
    return [
        *bars.tracks(n),
        {
            "transform": steps,
            "mark": {"type": "rule", "strokeWidth": 8, "opacity": 0.4, **bars.down(n)},
            "encoding": {
                "x": {**to, "field": "from"},
                "x2": {"field": "to"},
                "y": y,
                "color": kinds["color"],
            },
        },
        {
            "transform": steps,
            "mark": {"type": "rule", "strokeWidth": 1.5, **bars.down(n)},
            "encoding": {
                "x": {**to, "field": "low"},
                "x2": {"field": "high"},
                "y": y,
                "color": kinds["color"],
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": bars.marker(n), "opacity": 1, **bars.down(n)},
            "encoding": {"x": to, "y": y, **kinds, "tooltip": told},
        },
        *bars.letters(n),
    ]


def _alt(values: Sequence[dict[str, Any]]) -> str:
    steps = [value for value in values if value["effect"] != "start"]
    counts = [(sum(value["effect"] == word for value in steps), word) for word, _, _ in WAYS]
    told = ", ".join(f"{count} {word}" for count, word in counts if count)
    worst = min(steps, key=lambda value: float(value["points"]))
    return (
        f"Top-1 accuracy from step to step, {len(steps)} step{'s' * (len(steps) != 1)}: {told}. "
        f"Lowest difference: {worst['name']}, {worst['figure']} points."
    )
