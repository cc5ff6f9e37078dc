"""What charts look like: colours, fonts and sizes on light pages, on dark pages and on paper."""

from __future__ import annotations

from dataclasses import dataclass
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

# Liberation Sans comes with vl-convert and has the widths of Arial.
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
# Mean width of a character over the font's size: of running text, and of bold text.
CHARACTER, BOLD_CHARACTER = 0.47, 0.53
SCREEN_FONT_SIZE = 12


def darkened(part: Any) -> Any:
    """A part of a specification as a dark page shows it: other greys, the same colours of data, which keep a contrast
    of 3 or more against either background; new but for what holds the words of a legend.
    """
    if isinstance(part, dict):
        return {name: value if name == "domain" else darkened(value) for name, value in part.items()}
    if isinstance(part, list):
        return [darkened(value) for value in part]
    return DARK.get(part, part) if isinstance(part, str) else part


@dataclass(frozen=True)
class Theme:
    """What a chart stands on.

    Attributes:
        font_size: of running text in px (on paper in points); titles are one larger, axes one smaller.
        is_paper: it shows no tooltips. There titles are not bold and nothing is translucent: vl-convert writes several
            fonts, or several opacities, into a PDF in an order that changes from call to call.
    """

    background: str = "transparent"
    font_size: int = SCREEN_FONT_SIZE
    is_paper: bool = False

    def px(self, length: float) -> float:
        """A length of a mark, as large as the font: this is what it is on a screen."""
        return length * self.font_size / SCREEN_FONT_SIZE

    def line(self, width: float = 1.5, **more: Any) -> dict[str, Any]:
        """How a line of data is drawn; on a screen its points, which are not seen, carry tooltips."""
        return {"strokeWidth": self.px(width), "point": False if self.is_paper else "transparent", **more}

    def point(self, side: float = 8.4) -> dict[str, Any]:
        """How a point is drawn."""
        return {"filled": True, "opacity": 1, "size": self.px(side) ** 2}

    def columns(self, width: int, characters: int) -> int:
        """How many entries of a legend stand beside each other: beside the axis, each with a symbol and space."""
        return max(1, int((width - 3 * self.font_size) / (36 + CHARACTER * self.font_size * characters)))

    def config(self, columns: int) -> dict[str, Any]:
        """Vega-Lite's configuration, with so many entries of a legend beside each other."""
        small = self.font_size - 1
        return {
            "background": self.background,
            "font": FONT,
            "padding": 4,
            "view": {"stroke": None},
            # A screen reader reads the description; thousands of points would bury it.
            "mark": {"aria": False},
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
                "symbolSize": 5 * self.font_size,
                "symbolOpacity": 1,
                "rowPadding": 2,
                "columnPadding": 12,
                "offset": 8,
            },
            "title": {
                "anchor": "start",
                "frame": "bounds",
                "color": INK,
                "fontSize": self.font_size + 1,
                "fontWeight": "normal" if self.is_paper else "bold",
                "subtitleColor": FAINT,
                "subtitleFontSize": small,
                "subtitlePadding": 4,
                "offset": 10,
            },
            "text": {"color": INK, "fontSize": small, "baseline": "middle"},
        }


SCREEN = Theme()
PAPER = Theme("white", font_size=8, is_paper=True)
