"""Charts of the HTML report: what the browser draws them from, and their data as a table for those who cannot see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.accuracy.predictions import ScoredRun
from bench.record.files import plain
from scarlet.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

# Rows of a chart's data, and points of one of its curves, that stand as text; whoever wants them all reads the files of
# the run.
DATA_ROWS = 120
CURVE_POINTS = 11

# What the bundle gives to the page.
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


@dataclass(frozen=True)
class DataTable:
    """Rows of a chart's data as text, and how many more there are."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int


@dataclass(frozen=True)
class PageChart:
    """A chart on the page.

    Attributes:
        name: part of the ids of its elements.
        title: what it shows.
        notes: how to read it.
        alt: what is to be seen, in sentences.
        case_ids: Cases it shows.
        data: tables of what is drawn.
    """

    name: str
    title: str
    notes: tuple[str, ...]
    alt: str
    case_ids: tuple[str, ...]
    data: tuple[DataTable, ...]


def page_charts(
    frame: pd.DataFrame, info: Mapping[str, Any], run: ScoredRun
) -> tuple[tuple[PageChart, ...], dict[str, Any]]:
    """The charts of a run, and what the browser draws them from.

    Returns:
        the charts; and by name a Vega-Lite specification under ``spec``, with what changes on a dark page under
        ``dark`` (the data stand there once). Titles and notes are taken out of them: the page shows them as text.
    """
    from bench.report.charts import charts, themed

    shown, specs = [], {}
    for chart in charts(run.path, frame, info, scored=run):
        light, dark = (plain(themed(chart.spec, dark=night, width="container")) for night in (False, True))
        changed = {key: value for key, value in dark.items() if light.get(key) != value}
        title = chart.spec.get("title") or {}
        light["title"] = None
        changed.pop("title", None)
        specs[chart.name] = {"spec": light, "dark": changed}
        shown.append(
            PageChart(
                chart.name,
                chart.title,
                tuple(title.get("subtitle") or ()),
                chart.alt,
                tuple(chart.case_ids),
                tuple(table for rows in _data(light) if (table := _data_table(rows)).header),
            )
        )
    return tuple(shown), specs


@cache
def vega_scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network and defines ``vegaEmbed``.

    Bundling takes seconds of processor time and gives the same for a version of vl-convert: it is kept in the artefact
    store. Where that cannot be used the page is made all the same, only later.
    """
    from importlib.metadata import version

    from export.store import Store

    key_parts = {"snippet": _SNIPPET, "vl-convert-python": version("vl-convert-python")}
    try:
        return Store().get_or_make(key_parts, ".js", _write_bundle).read_text(encoding="utf-8")
    except BenchError:
        return _bundle()


def _write_bundle(path: Path) -> None:
    path.write_text(_bundle(), encoding="utf-8")


def _bundle() -> str:
    import vl_convert

    source: str = vl_convert.javascript_bundle(_SNIPPET)
    return source


def _data(part: Any) -> Iterator[list[Mapping[str, Any]]]:
    """All rows that a specification carries, wherever they stand in it."""
    if isinstance(part, list):
        for item in part:
            yield from _data(item)
    elif isinstance(part, Mapping):
        for key, item in part.items():
            if key == "datasets":
                yield from (rows for rows in item.values() if _are_rows(rows))
            elif key == "data" and isinstance(item, Mapping) and _are_rows(item.get("values")):
                yield item["values"]
            elif key not in ("data", "values"):
                yield from _data(item)


def _are_rows(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(row, Mapping) for row in values)


def _data_table(rows: Sequence[Mapping[str, Any]]) -> DataTable:
    flat = [point for row in rows for point in _points(row)]
    shown = flat[:DATA_ROWS]
    header = tuple(dict.fromkeys(str(name) for row in shown for name in row))
    cells = tuple(tuple(_text(row.get(name)) for name in header) for row in shown)
    return DataTable(header, cells, sum(map(_n_points, rows)) - len(shown))


def _n_points(row: Mapping[str, Any]) -> int:
    return max([len(value) for value in row.values() if isinstance(value, list)], default=1)


def _points(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """A curve, which is one row with lists of coordinates, as rows: its ends, and some evenly between them."""
    n = _n_points(row)
    places = (
        range(n) if n <= CURVE_POINTS else [k * (n - 1) // (CURVE_POINTS - 1) for k in range(CURVE_POINTS)]
    )
    for place in places:
        yield {name: _at(value, place) for name, value in row.items()}


def _at(value: Any, place: int) -> Any:
    if not isinstance(value, list):
        return value
    return value[place] if place < len(value) else None


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
