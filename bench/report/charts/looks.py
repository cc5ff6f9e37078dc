"""How rows are named and told apart in a chart: a colour for each backend, a shape or dashes for each precision."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair

from bench.backends import REGISTRY, colour, display_name
from bench.report.charts.axes import known
from bench.report.charts.chart import POINT_AT, Row
from bench.report.charts.theme import PALETTE
from bench.report.text import one_line, row_names

# A legend of more is not read, and no eye tells more lines apart: then they are told apart by backend alone.
MOST_SERIES = 12

# Characters of a text from outside, and of a whole name.
MOST_OF_TEXT, MOST_OF_NAME = 28, 56

# Settings that are named where they differ, beside backend and precision.
VARYING = ("device", "model", "weights", "pipeline", "options", "batch", "threads", "instances")

_STYLES = {"fp32": 0, "int8": 1, "fp16": 2, "bf16": 3, "tf32": 4}
_DASHES = ((1, 0), (6, 3), (2, 2), (10, 3, 2, 3), (4, 2))
_SHAPES = ("circle", "triangle-up", "square", "diamond", "cross")
# Long enough to show dashes.
_LINES = altair.Legend(symbolType="stroke", symbolSize=200)


def scaled(domain: Sequence[str], values: Sequence[Any], **more: Any) -> dict[str, Any]:
    """What an encoding of a closed set of words needs: which value stands for which, in this order.

    Encodings of the same words share one legend.
    """
    scale = altair.Scale(domain=list(domain), range=list(values))
    return {"type": "nominal", "title": None, "sort": None, "scale": scale, **more}


@dataclass(frozen=True)
class Looks:
    """The names of some rows, in their order, and how each distinct one is drawn.

    Attributes:
        names: of each row, told apart as far as can be.
        legend: of each row, what it goes by in the legend.
        styles: of each entry of the legend its colour, and the place of its dashes and its shape.
    """

    names: tuple[str, ...]
    legend: tuple[str, ...]
    styles: Mapping[str, tuple[str, int]]

    @property
    def by_backend(self) -> bool:
        """There are too many names for a legend."""
        return self.names != self.legend

    @property
    def entries(self) -> tuple[str, ...]:
        """The legend's."""
        return tuple(self.styles)

    @property
    def notes(self) -> list[str]:
        """What must be said where colours stand for backends alone."""
        return ["colours: backends", POINT_AT] if self.by_backend else []

    def values(self, rows: Sequence[Row], fields: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """What a chart draws of each row: its Case, name and entry of the legend, and these fields that are known."""
        return [
            known(**{"case_id": row["case_id"], "name": name, "legend": legend, **more})
            for row, name, legend, more in zip(rows, self.names, self.legend, fields, strict=True)
        ]

    def colour(self, **more: Any) -> altair.Color:
        """The encoding ``color`` of field ``legend``."""
        return altair.Color("legend", **scaled(self.entries, [hue for hue, _ in self.styles.values()], **more))

    def of_lines(self) -> dict[str, Any]:
        """The encodings of lines, with a legend of lines."""
        dashes = scaled(self.entries, [list(_DASHES[style]) for _, style in self.styles.values()], legend=_LINES)
        return {"color": self.colour(legend=_LINES), "strokeDash": altair.StrokeDash("legend", **dashes)}

    def of_points(self) -> dict[str, Any]:
        """The encodings of points, with a legend of points."""
        shapes = scaled(self.entries, [_SHAPES[style] for _, style in self.styles.values()])
        return {"color": self.colour(), "shape": altair.Shape("legend", **shapes)}


def clean(text: str, most: int = MOST_OF_TEXT) -> str:
    """A text from outside on one line, without signs that are not seen; cut to its end, where a path says most."""
    seen = "".join(sign for sign in one_line(text) if unicodedata.category(sign) not in ("Cf", "Cs"))
    return seen if len(seen) <= most else f"…{seen[1 - most :]}"


def listed(texts: Sequence[str], most: int) -> str:
    """The first texts, and how many more there are."""
    more = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {more} more" if more > 0 else "")


def counted(words: Sequence[str], order: Sequence[str]) -> str:
    """How often each word occurs, in this order."""
    return ", ".join(f"{words.count(word)} {word}" for word in order if word in words)


def plural(n: int, noun: str) -> str:
    """The count with its noun."""
    return f"{n} {noun}{'s' * (n != 1)}"


def backend_name(row: Row) -> str:
    """Of the row, for people."""
    return clean(str(display_name(row["backend"])))


def names(rows: Sequence[Row], without: Sequence[str] = ()) -> tuple[str, ...]:
    """What tells each row from the others: backend, precision, and every other setting that varies.

    Args:
        without: settings that the chart shows in another way. Rows that differ in nothing else share a name.
    """
    varying = [name for name in VARYING if name not in without]
    settings = [
        {
            **row,
            **{name: clean(row[name]) for name in ("model", "weights", "pipeline")},
            **{name: clean(row[name]).upper() for name in ("device", "precision")},
            "backend": backend_name(row),
        }
        for row in rows
    ]
    texts = [clean(text, MOST_OF_NAME) for text in row_names(settings, ("backend", "precision"), varying)]
    whose: dict[str, set[tuple[Any, ...]]] = {}
    for text, row in zip(texts, rows, strict=True):
        whose.setdefault(text, set()).add(tuple(row[name] for name in ("backend", "precision", *varying)))
    # Names that were cut may have become the same.
    return tuple(
        f"{text} ({row['case_id']})" if len(whose[text]) > 1 else text for text, row in zip(texts, rows, strict=True)
    )


def looks(rows: Sequence[Row], without: Sequence[str] = ()) -> Looks:
    """The names of the rows and how they are drawn; the same backend and precision look the same in every chart."""
    own = names(rows, without)
    hues = _hues([row["backend"] for row in rows])
    if len(set(own)) > MOST_SERIES:
        backends = tuple(map(backend_name, rows))
        return Looks(own, backends, {name: (hues[row["backend"]], 0) for name, row in zip(backends, rows, strict=True)})
    styles: dict[str, tuple[str, int]] = {}
    for name, row in zip(own, rows, strict=True):
        if name not in styles:
            wanted = hues[row["backend"]], _STYLES.get(row["precision"], 0)
            styles[name] = _free(wanted, set(styles.values()), set(hues.values()))
    return Looks(own, own, styles)


def _hues(backends: Sequence[str]) -> dict[str, str]:
    """A colour for each backend: its own, or one that no known backend has; at the end they begin again."""
    own = {colour(backend) for backend in REGISTRY}
    free = itertools.cycle([hue for hue in PALETTE if hue not in own])
    return {backend: colour(backend) or next(free) for backend in dict.fromkeys(backends)}


def _free(wanted: tuple[str, int], taken: set[tuple[str, int]], reserved: set[str]) -> tuple[str, int]:
    """The look that was wanted, or the nearest that is free: in a colour of no backend, then in other dashes."""
    colour, style = wanted
    spare = [other for other in PALETTE if other not in reserved]
    styles = [style, *(other for other in range(len(_SHAPES)) if other != style)]
    choices = [(hue, way) for way in styles for hue in (colour, *spare)]
    return next(choice for choice in [*choices, *itertools.product(PALETTE, styles)] if choice not in taken)
