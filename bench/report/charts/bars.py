"""A list of intervals: each row with its name and its figure above, so that it fits a phone and a column of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair

from bench.report.charts.axes import tooltips
from bench.report.charts.chart import POINT_AT, ROWS, Chart, Row
from bench.report.charts.looks import scaled
from bench.report.charts.theme import AXIS, BAND, GRID, INK

# px of a row: plenty, and where there are many.
ROW, LOW_ROW, FEW = 34, 27, 14

# More rows than these get no text; their names are shown when one points at them.
MOST_NAMED, BARE_ROW = 40, 7

# Of a row with text, as shares of its height from its middle: the bar's middle, half its height, the text's middle.
BAR, HALF, TEXT = 0.2, 0.15, -0.25


def bars(
    name: str,
    title: str,
    notes: Sequence[str],
    alt: str,
    values: Sequence[Row],
    x: dict[str, Any],
    field: str,
    kind: str,
    ways: Sequence[tuple[str, str, str]],
    told: Sequence[tuple[str, ...]],
    *,
    thick: tuple[str, str] | None = None,
    band: tuple[float, float, float] | None = None,
) -> Chart:
    """The chart of such a list: a point in each row, and a line from field ``low`` to ``high`` where both are known.

    Args:
        values: with the fields ``place`` (0 is the top row), ``name``, ``figure`` (how the row's text tells it), and
            those named here.
        x: title, scale and axis of the values.
        field: of the point.
        kind: the field whose word decides the colour and shape of the point.
        ways: word, colour and shape of each kind.
        told: further lines of the tooltip.
        thick: fields between which a thick line in the kind's colour lies, below the interval's, which is then in ink.
        band: a range that counts as nothing, and its middle as the second: behind the bars, and not behind the text.
    """
    n_rows, present = len(values), {value[kind] for value in values}
    is_named = n_rows <= MOST_NAMED
    bar, half = (BAR, HALF) if is_named else (0.0, 0.5)
    rows = altair.Chart(ROWS).transform_calculate(
        middle=f"datum.place + {bar}",
        top=f"datum.place + {bar - half}",
        bottom=f"datum.place + {bar + half}",
        text=f"datum.place + {TEXT}",
    )

    def at(name: str) -> altair.Y:
        scale = altair.Scale(domain=[n_rows - 0.5, -0.5], nice=False, zero=False)
        return altair.Y(name, type="quantitative", axis=None, scale=scale)

    def across(**what: Any) -> altair.X:
        return altair.X(type="quantitative", **what, **x)

    words, colours, shapes = zip(*(way for way in ways if way[0] in present), strict=True)
    colour = {"color": altair.Color(kind, **scaled(words, colours))}
    layers = []
    if band:
        low, middle, high = band
        ends: dict[str, Any] = {"y": at("top"), "y2": "bottom"}
        layers += [
            rows.mark_rect(color=BAND).encode(x=across(datum=low), x2=altair.X2(datum=high), **ends),
            rows.mark_rule(color=AXIS, strokeWidth=1.5).encode(x=across(datum=middle), **ends),
        ]
    if is_named:
        track = rows.mark_rule(color=GRID)
        layers.append(track.encode(x=altair.value(0), x2=altair.value("width"), y=at("middle")))
    spans = [(*thick, 5.0, colour), ("low", "high", 1.5, {})] if thick else [("low", "high", 1.5, colour)]
    for low_field, high_field, width, encoded in spans:
        both = rows.transform_filter(f"isValid(datum.{low_field}) && isValid(datum.{high_field})")
        line = both.mark_rule(color=INK, strokeWidth=width)
        layers.append(line.encode(x=across(shorthand=low_field), x2=high_field, y=at("middle"), **encoded))
    layers.append(
        rows.mark_point(size=70 if is_named else 20).encode(
            x=across(shorthand=field),
            y=at("middle"),
            shape=altair.Shape(kind, **scaled(words, shapes)),
            tooltip=tooltips(*told),
            **colour,
        )
    )
    if is_named:
        left = rows.mark_text(align="left", limit=altair.ExprRef("width * 0.6"))
        right = rows.mark_text(align="right", limit=altair.ExprRef("width * 0.4"))
        layers += [
            left.encode(x=altair.value(0), y=at("text"), text="name:N"),
            right.encode(x=altair.value("width"), y=at("text"), text="figure:N"),
        ]
    return Chart(
        name,
        title,
        [*notes, *([] if is_named else [POINT_AT])],
        alt,
        {"rows": values},
        layers,
        height=n_rows * ((ROW if n_rows <= FEW else LOW_ROW) if is_named else BARE_ROW),
        legend=words,
        is_list=True,
    )
