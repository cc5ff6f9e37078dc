"""A list of intervals: each row with its name and its figure above, so that it fits a phone and a column of a paper."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Bars:
    """The rows of such a list: a point in each, and a line from field ``low`` to ``high`` where both are known.

    Attributes:
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

    values: Sequence[Row]
    x: dict[str, Any]
    field: str
    kind: str
    ways: Sequence[tuple[str, str, str]]
    told: Sequence[tuple[str, ...]]
    thick: tuple[str, str] | None = None
    band: tuple[float, float, float] | None = None

    @property
    def is_named(self) -> bool:
        """Rows have text."""
        return len(self.values) <= MOST_NAMED

    def chart(self, name: str, title: str, notes: Sequence[str], alt: str) -> Chart:
        """Draws them."""
        n_rows, present = len(self.values), {value[self.kind] for value in self.values}
        words, colours, shapes = zip(*(way for way in self.ways if way[0] in present), strict=True)
        bar, half = (BAR, HALF) if self.is_named else (0.0, 0.5)
        rows = altair.Chart(ROWS).transform_calculate(
            middle=f"datum.place + {bar}",
            top=f"datum.place + {bar - half}",
            bottom=f"datum.place + {bar + half}",
            text=f"datum.place + {TEXT}",
        )
        points = rows.mark_point(size=70 if self.is_named else 20).encode(
            x=self._across(shorthand=self.field),
            y=self._at("middle"),
            shape=altair.Shape(self.kind, **scaled(words, shapes)),
            tooltip=tooltips(*self.told),
            color=altair.Color(self.kind, **scaled(words, colours)),
        )
        lines = self._lines(rows, altair.Color(self.kind, **scaled(words, colours)))
        layers = [*self._background(rows), *lines, points, *self._texts(rows)]
        return Chart(
            name,
            title,
            [*notes, *([] if self.is_named else [POINT_AT])],
            alt,
            {"rows": self.values},
            layers,
            height=n_rows * ((ROW if n_rows <= FEW else LOW_ROW) if self.is_named else BARE_ROW),
            legend=words,
            is_list=True,
        )

    def _at(self, name: str) -> altair.Y:
        scale = altair.Scale(domain=[len(self.values) - 0.5, -0.5], nice=False, zero=False)
        return altair.Y(name, type="quantitative", axis=None, scale=scale)

    def _across(self, **what: Any) -> altair.X:
        return altair.X(type="quantitative", **what, **self.x)

    def _background(self, rows: altair.Chart) -> Iterator[altair.Chart]:
        if self.band:
            low, middle, high = self.band
            ends: dict[str, Any] = {"y": self._at("top"), "y2": "bottom"}
            across = {"x": self._across(datum=low), "x2": altair.X2(datum=high)}
            yield rows.mark_rect(color=BAND).encode(**across, **ends)
            yield rows.mark_rule(color=AXIS, strokeWidth=1.5).encode(x=self._across(datum=middle), **ends)
        if self.is_named:
            track = rows.mark_rule(color=GRID)
            yield track.encode(x=altair.value(0), x2=altair.value("width"), y=self._at("middle"))

    def _lines(self, rows: altair.Chart, colour: altair.Color) -> Iterator[altair.Chart]:
        spans = [("low", "high", 1.5, {} if self.thick else {"color": colour})]
        if self.thick:
            spans.insert(0, (*self.thick, 5.0, {"color": colour}))
        for low, high, width, encoded in spans:
            both = rows.transform_filter(f"isValid(datum.{low}) && isValid(datum.{high})")
            line = both.mark_rule(color=INK, strokeWidth=width)
            yield line.encode(x=self._across(shorthand=low), x2=high, y=self._at("middle"), **encoded)

    def _texts(self, rows: altair.Chart) -> Iterator[altair.Chart]:
        if self.is_named:
            left = rows.mark_text(align="left", limit=altair.ExprRef("width * 0.6"))
            right = rows.mark_text(align="right", limit=altair.ExprRef("width * 0.4"))
            yield left.encode(x=altair.value(0), y=self._at("text"), text="name:N")
            yield right.encode(x=altair.value("width"), y=self._at("text"), text="figure:N")
