"""What charts look like: colours, fonts and sizes on light pages, on dark pages and on paper."""

from __future__ import annotations

from typing import Any

# Okabe and Ito, "Color Universal Design" (2008): readers with any colour vision can tell these apart. Its yellow is
# left out: on white it is no more than a hint; a grey that any background shows stands for its black.
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#767D85"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)

# Greys, from text to the finest lines: of text, of text that is read second, of axes and marks at a fixed value, of
# areas behind the data, of lines across the plot. On a dark page others stand for them.
INK, FAINT, AXIS, BAND, GRID = "#1F2328", "#57606A", "#AEB5BD", "#E3E7EB", "#ECEEF1"
DARK = {INK: "#E6E8EB", FAINT: "#A9B1BA", AXIS: "#5B636D", BAND: "#343A42", GRID: "#2C3138"}

# Mean width of a character over the font's size: of running text, and of bold text.
CHARACTER, BOLD_CHARACTER = 0.47, 0.53
FONT_SIZE, SMALL, LARGE = 12, 11, 13

CONFIG: dict[str, Any] = {
    "background": "transparent",
    # Liberation Sans comes with vl-convert and has the widths of Arial.
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "padding": 4,
    "view": {"stroke": None},
    # A screen reader reads the description; thousands of points would bury it.
    "mark": {"aria": False},
    "point": {"filled": True, "opacity": 1, "size": 70},
    "axis": {
        "labelColor": FAINT,
        "labelFontSize": SMALL,
        "titleColor": INK,
        "titleFontSize": SMALL,
        "titleFontWeight": "normal",
        "titlePadding": 6,
        "domainColor": AXIS,
        "tickColor": AXIS,
        "tickSize": 4,
        "gridColor": GRID,
    },
    "legend": {
        "orient": "top",
        "labelColor": INK,
        "labelFontSize": SMALL,
        "labelLimit": 300,
        "symbolStrokeWidth": 2,
        "symbolSize": 60,
        "symbolOpacity": 1,
        "rowPadding": 2,
        "columnPadding": 12,
        "offset": 8,
    },
    "title": {
        "anchor": "start",
        "frame": "bounds",
        "color": INK,
        "fontSize": LARGE,
        "fontWeight": "bold",
        "subtitleColor": FAINT,
        "subtitleFontSize": SMALL,
        "subtitlePadding": 4,
        "offset": 10,
    },
    "text": {"color": INK, "fontSize": SMALL, "baseline": "middle"},
}


def darkened(part: Any) -> Any:
    """A part of a specification as a dark page shows it: other greys, the same colours of data, which keep a contrast
    of 3 or more against either background; new but for what holds the words of a legend.
    """
    if isinstance(part, dict):
        return {name: value if name == "domain" else darkened(value) for name, value in part.items()}
    if isinstance(part, list):
        return [darkened(value) for value in part]
    return DARK.get(part, part) if isinstance(part, str) else part


def printed(spec: dict[str, Any]) -> None:
    """Makes a specification one for paper: on white, without the points that are there for tooltips.

    Titles are not bold and nothing is translucent: vl-convert writes several fonts, or several opacities, into a PDF
    in an order that changes from call to call.
    """
    spec["config"]["background"] = "white"
    spec["config"]["title"]["fontWeight"] = "normal"
    for layer in spec["layer"]:
        for name in ("opacity", "point"):
            layer["mark"].pop(name, None)
