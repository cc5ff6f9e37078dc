"""Colours, letters and widths of the charts: for light and dark pages, and for paper."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"

# Okabe and Ito, "Color Universal Design" (2008): readers with any colour vision can tell these apart. Its yellow is
# left out: on white it is no more than a hint.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)

# Greys, from letters to the band behind the data.
INK, FAINT, GREY, AXIS, BAND, GRID = "#1F2328", "#57606A", "#767D85", "#AEB5BD", "#E3E7EB", "#ECEEF1"

# What stands for the others on a dark page; every other colour keeps 3:1 or more against either background.
DARK = {
    BLACK: "#FFFFFF",
    INK: "#E6E8EB",
    FAINT: "#A9B1BA",
    GREY: "#9AA1A9",
    AXIS: "#5B636D",
    BAND: "#343A42",
    GRID: "#2C3138",
}

# Liberation Sans comes with vl-convert and has the widths of Arial.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
FONT_SIZE = 12

# Notes: where colours stand for backends alone; and what only a page can do.
BY_BACKEND = "colours: backends"
POINT_AT = "point at a mark for its Case"

WIDTH = 600
# What a line of a title may fill where the page decides on the width: a phone.
NARROW = 330

# Parts of a spec that hold texts or data, and no colours.
_NO_COLOURS = ("data", "datasets", "domain", "description", "usermeta")

# Mean width of a letter over the font's size: of running text, and of bold text.
_LETTER, _BOLD_LETTER = 0.47, 0.53


def specification(
    title: str,
    alt: str,
    notes: Sequence[str],
    values: Sequence[Mapping[str, Any]],
    layers: Sequence[Mapping[str, Any]],
    height: int,
    legend: Sequence[str] = (),
    rows: int = 0,
) -> dict[str, Any]:
    """A whole Vega-Lite spec of layers over common data, in light colours.

    Args:
        title: of the chart.
        alt: what is to be seen, for screen readers.
        notes: lines below the title.
        values: the data.
        layers: marks and encodings.
        height: of the plot alone, in px; the width covers axes too.
        legend: names that it shows, so that ``themed`` knows how many fit beside each other.
        rows: what the height is made of; 0 where the plot may be flattened.
    """
    return {
        "$schema": SCHEMA,
        "description": alt,
        "title": {"text": title, "subtitle": list(notes)},
        "width": WIDTH,
        "height": height,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "data": {"values": list(values)},
        "layer": list(layers),
        "usermeta": {"legend_characters": max(map(len, legend), default=0), "rows": rows},
        "config": _config(FONT_SIZE, _columns(WIDTH, FONT_SIZE, max(map(len, legend), default=0))),
    }


def themed(
    spec: Mapping[str, Any],
    *,
    dark: bool = False,
    width: int | str | None = None,
    font_size: int = FONT_SIZE,
) -> dict[str, Any]:
    """A chart's spec in other colours or of another width; the data is shared with it, not copied.

    Args:
        spec: as of ``Chart.spec``.
        dark: for a dark page. The background is transparent either way.
        width: of the whole chart, axes and legend included, in px; ``container`` to fill the element that it stands
            in; None leaves it.
        font_size: of running text in px; titles are one larger, axes one smaller.
    """
    characters = int((spec.get("usermeta") or {}).get("legend_characters", 0))
    wide = width if isinstance(width, int) else (NARROW if width == "container" else int(spec["width"]))
    own = _config(font_size, _columns(wide, font_size, characters))
    colours = DARK if dark else {}
    made = {key: value if key in _NO_COLOURS else _in(colours, value) for key, value in spec.items()}
    made["title"] = _wrapped(spec["title"], wide, font_size)
    made["config"] = _in(colours, own)
    if width is not None:
        made["width"] = width
    return made


def _in(colours: Mapping[str, str], value: Any) -> Any:
    """The value with other colours, everything new save the data."""
    if isinstance(value, Mapping):
        return {key: item if key in _NO_COLOURS else _in(colours, item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_in(colours, item) for item in value]
    return colours.get(value, value) if isinstance(value, str) else value


def _wrapped(title: Mapping[str, Any], width: int, font_size: int) -> dict[str, Any]:
    """Vega does not break lines."""
    head = max(12, int(width / (_BOLD_LETTER * (font_size + 1))))
    small = max(12, int(width / (_LETTER * (font_size - 1))))
    return {
        "text": textwrap.wrap(title["text"], head),
        "subtitle": [line for note in title["subtitle"] for line in textwrap.wrap(note, small)],
    }


def _columns(width: int, font_size: int, characters: int) -> int:
    """How many entries of a legend stand beside each other: beside the axis, each with a symbol and space around it."""
    return max(1, int((width - 3 * font_size) / (36 + _LETTER * font_size * characters)))


def _config(font_size: int, columns: int) -> dict[str, Any]:
    small = font_size - 1
    return {
        "background": "transparent",
        "font": FONT,
        "padding": 4,
        "view": {"stroke": None},
        "axis": {
            "labelColor": FAINT,
            "labelFontSize": small,
            "titleColor": INK,
            "titleFontSize": small,
            "titleFontWeight": "normal",
            "titlePadding": 6,
            "domainColor": AXIS,
            "tickColor": AXIS,
            "tickSize": 4,
            "gridColor": GRID,
        },
        "legend": {
            "orient": "top",
            "columns": columns,
            "labelColor": INK,
            "labelFontSize": small,
            "labelLimit": 300,
            "symbolStrokeWidth": 2,
            "symbolSize": 5 * font_size,
            "symbolOpacity": 1,
            "rowPadding": 2,
            "columnPadding": 12,
            "offset": 8,
        },
        "title": {
            "anchor": "start",
            "frame": "bounds",
            "color": INK,
            "fontSize": font_size + 1,
            "subtitleColor": FAINT,
            "subtitleFontSize": small,
            "subtitlePadding": 4,
            "offset": 10,
        },
        "text": {"color": INK, "fontSize": small},
        # A screen reader reads the description; thousands of points would bury it.
        "mark": {"aria": False},
    }
