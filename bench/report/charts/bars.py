"""Rows of intervals: each with its name and its figure above, so that they fit a phone and a column of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.report.charts.theme import AXIS, BAND, GRID

# px of a row: plenty, and where there are many.
ROW, LOW_ROW, FEW = 34, 27, 14

# More rows than these get no letters; their names are shown when one points at them.
MOST_NAMED, BARE_ROW = 40, 7

# Where the bar of a row lies, and where its letters stand, from the middle of the row; px.
BAR_DOWN, TEXT_UP = 6, -8
BAND_HEIGHT = 10


def height_of(n_rows: int) -> int:
    """Of the plot, in px."""
    if n_rows > MOST_NAMED:
        return BARE_ROW * n_rows
    return (ROW if n_rows <= FEW else LOW_ROW) * n_rows


def is_named(n_rows: int) -> bool:
    """Rows carry letters."""
    return n_rows <= MOST_NAMED


def place(n_rows: int) -> dict[str, Any]:
    """The encoding of a row's place, field ``place``: 0 at the top."""
    return {
        "field": "place",
        "type": "quantitative",
        "axis": None,
        "scale": {"domain": [n_rows - 0.5, -0.5], "nice": False, "zero": False},
    }


def down(n_rows: int) -> dict[str, Any]:
    """Moves a mark below the letters of its row."""
    return {"yOffset": BAR_DOWN} if is_named(n_rows) else {}


def marker(n_rows: int) -> int:
    """The area of a row's mark, in px."""
    return 70 if is_named(n_rows) else 20


def tracks(n_rows: int) -> list[dict[str, Any]]:
    """The layer of a fine line under each row's bar."""
    mark = {"type": "rule", "color": GRID, "tooltip": False, **down(n_rows)}
    ends = {"x": {"value": 0}, "x2": {"value": "width"}}
    return [{"mark": mark, "encoding": {**ends, "y": place(n_rows)}}] if is_named(n_rows) else []


def band(n_rows: int, scale: dict[str, Any], low: float, middle: float, high: float) -> list[dict[str, Any]]:
    """The layers of a range that counts as nothing, and of its middle: behind the bars, and not behind the letters.

    Args:
        n_rows: that there are.
        scale: type, scale and axis of ``x``.
        low: where the range begins.
        middle: what is marked in it.
        high: where it ends.
    """
    ends = {"x": {**scale, "datum": low}, "x2": {"datum": high}}
    if not is_named(n_rows):
        once: dict[str, Any] = {"data": {"values": [{}]}}
        return [
            {**once, "mark": {"type": "rect", "color": BAND}, "encoding": ends},
            {**once, "mark": {"type": "rule", "color": AXIS}, "encoding": {"x": {**scale, "datum": middle}}},
        ]
    block = {"type": "rule", "strokeWidth": BAND_HEIGHT, "color": BAND, "tooltip": False, **down(n_rows)}
    tick = {"type": "tick", "orient": "vertical", "size": BAND_HEIGHT, "thickness": 1.5, "color": AXIS}
    y = place(n_rows)
    return [
        {"mark": block, "encoding": {**ends, "y": y}},
        {
            "mark": {**tick, "tooltip": False, **down(n_rows)},
            "encoding": {"x": {**scale, "datum": middle}, "y": y},
        },
    ]


def letters(n_rows: int) -> list[dict[str, Any]]:
    """The layers of fields ``name``, from the left, and ``figure``, from the right."""
    if not is_named(n_rows):
        return []
    common: dict[str, Any] = {"type": "text", "baseline": "middle", "yOffset": TEXT_UP, "tooltip": False}
    y = place(n_rows)
    return [
        {
            "mark": {**common, "align": "left", "limit": {"expr": "width * 0.6"}},
            "encoding": {"x": {"value": 0}, "y": y, "text": {"field": "name", "type": "nominal"}},
        },
        {
            "mark": {**common, "align": "right", "limit": {"expr": "width * 0.4"}},
            "encoding": {"x": {"value": "width"}, "y": y, "text": {"field": "figure", "type": "nominal"}},
        },
    ]


def kinds(field: str, ways: Sequence[tuple[str, str, str]], present: Sequence[str]) -> dict[str, Any]:
    """The encodings ``color`` and ``shape`` of a closed set of words, with one legend of those that are present.

    Args:
        field: that holds the word.
        ways: word, colour and shape of each.
        present: words that occur.
    """
    shown = [way for way in ways if way[0] in present]
    common = {"field": field, "type": "nominal", "title": None, "sort": None}
    domain = [word for word, _, _ in shown]
    return {
        "color": {**common, "scale": {"domain": domain, "range": [colour for _, colour, _ in shown]}},
        "shape": {**common, "scale": {"domain": domain, "range": [shape for _, _, shape in shown]}},
    }
