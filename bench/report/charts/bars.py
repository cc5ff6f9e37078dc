"""A list of intervals: each row with its name and its figure above, so that it fits a phone and a column of a paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair

from bench.report.charts.chart import ROWS
from bench.report.charts.looks import scaled
from bench.report.charts.theme import AXIS, BAND, GRID, INK, Theme

# px of a row: plenty, and where there are many.
ROW, LOW_ROW, FEW = 34, 27, 14

# More rows than these get no text; their names are shown when one points at them.
MOST_NAMED, BARE_ROW = 40, 7

# Of a row with text, as shares of its height from its middle: the bar's middle, half its height, the text's middle.
BAR, HALF, TEXT = 0.2, 0.15, -0.25


def height_of(n_rows: int) -> int:
    """Of the plot, in px."""
    if n_rows > MOST_NAMED:
        return BARE_ROW * n_rows
    return (ROW if n_rows <= FEW else LOW_ROW) * n_rows


def is_named(n_rows: int) -> bool:
    """Rows carry text."""
    return n_rows <= MOST_NAMED


class Bars:
    """The layers of such a list, whose data have the fields ``place`` (0 is the top row), ``name`` and ``figure``."""

    def __init__(self, theme: Theme, n_rows: int, x: dict[str, Any]) -> None:
        """Takes the theme, the number of rows, and title, scale and axis of ``x``."""
        self.theme, self.x, self.is_named = theme, x, is_named(n_rows)
        bar, half = (BAR, HALF) if self.is_named else (0.0, 0.5)
        self._y: dict[str, Any] = {
            "type": "quantitative",
            "axis": None,
            "scale": altair.Scale(domain=[n_rows - 0.5, -0.5], nice=False, zero=False),
        }
        self._rows = altair.Chart(ROWS).transform_calculate(
            middle=f"datum.place + {bar}",
            top=f"datum.place + {bar - half}",
            bottom=f"datum.place + {bar + half}",
            text=f"datum.place + {TEXT}",
        )

    def _at(self, field: str) -> altair.Y:
        return altair.Y(field, **self._y)

    def tracks(self) -> list[altair.Chart]:
        """A fine line under each row's bar."""
        if not self.is_named:
            return []
        track = self._rows.mark_rule(color=GRID, strokeWidth=self.theme.px(1))
        return [track.encode(x=altair.value(0), x2=altair.value("width"), y=self._at("middle"))]

    def band(self, low: float, middle: float, high: float) -> list[altair.Chart]:
        """A range that counts as nothing, and its middle: behind the bars, and not behind the text."""
        ends: dict[str, Any] = {"y": self._at("top"), "y2": "bottom"}
        return [
            self._rows.mark_rect(color=BAND).encode(
                x=altair.X(datum=low, type="quantitative", **self.x), x2=altair.X2(datum=high), **ends
            ),
            self._rows.mark_rule(color=AXIS, strokeWidth=self.theme.px(1.5)).encode(
                x=altair.X(datum=middle, type="quantitative", **self.x), **ends
            ),
        ]

    def spans(self, low: str, high: str, width: float = 1.5, **more: Any) -> altair.Chart:
        """A line between two fields, where both are known: in ink, or encoded as ``more`` says."""
        x = altair.X(low, type="quantitative", **self.x)
        known = f"isValid(datum.{low}) && isValid(datum.{high})"
        rows = self._rows.transform_filter(known).mark_rule(color=INK, strokeWidth=self.theme.px(width))
        span: altair.Chart = rows.encode(x=x, x2=high, y=self._at("middle"), **more)
        return span

    def points(self, field: str, **more: Any) -> altair.Chart:
        """A point at the field, encoded as ``more`` says."""
        mark = self.theme.point() if self.is_named else self.theme.point(4.5)
        x = altair.X(field, type="quantitative", **self.x)
        point: altair.Chart = self._rows.mark_point(**mark).encode(x=x, y=self._at("middle"), **more)
        return point

    def texts(self) -> list[altair.Chart]:
        """Fields ``name``, from the left, and ``figure``, from the right."""
        if not self.is_named:
            return []
        left = self._rows.mark_text(align="left", limit=altair.ExprRef("width * 0.6"))
        right = self._rows.mark_text(align="right", limit=altair.ExprRef("width * 0.4"))
        return [
            left.encode(x=altair.value(0), y=self._at("text"), text="name:N"),
            right.encode(x=altair.value("width"), y=self._at("text"), text="figure:N"),
        ]


def kinds(
    field: str, ways: Sequence[tuple[str, str, str]], present: Sequence[str]
) -> tuple[altair.Color, altair.Shape]:
    """The encodings ``color`` and ``shape`` of a closed set of words, with one legend of those that are present.

    Args:
        ways: word, colour and shape of each.
    """
    words, colours, shapes = zip(*(way for way in ways if way[0] in present), strict=True)
    return altair.Color(field, **scaled(words, colours)), altair.Shape(field, **scaled(words, shapes))
