"""Charts of the HTML report: what the browser draws them from, and their data as a table for those who cannot see."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.analysis.table import Loaded
from export.store import Store
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from bench.report.charts.chart import Chart

# Rows of a chart's data, and points of one of its curves, that stand as text; whoever wants them all reads the files of
# the run.
DATA_ROWS = 120
CURVE_POINTS = 11

# What the bundle gives to the page.
_SNIPPET = "window.vegaEmbed = vegaEmbed;"


class DataTable(NamedTuple):
    """Rows of a chart's data as text, and how many more there are."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int


def page_charts(run: Loaded) -> tuple[list[tuple[Chart, list[DataTable]]], dict[str, Any]]:
    """The charts of a run, and what the browser draws them from.

    Returns:
        the charts with tables of what they draw; and by name a Vega-Lite specification under ``spec``, with what
        changes on a dark page under ``dark`` (the data stand there once). Titles and notes are taken out of them: the
        page shows them as text.
    """
    from bench.report.charts import charts
    from bench.report.charts.theme import darkened

    shown, specs = [], {}
    for chart in charts(run):
        spec = chart.spec(width="container")
        del spec["title"]
        specs[chart.name] = {"spec": spec, "dark": {key: darkened(spec[key]) for key in ("layer", "config")}}
        shown.append((chart, [data_table(rows) for rows in chart.data.values()]))
    return shown, specs


@cache
def vega_scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that needs no network and defines ``vegaEmbed``.

    Bundling takes seconds of processor time and gives the same for a version of vl-convert: it is kept in the artefact
    store. Where that cannot be used the page is made all the same, only later.
    """
    key_parts = {"snippet": _SNIPPET, "vl-convert-python": version("vl-convert-python")}

    def write(path: Path) -> None:
        path.write_text(_bundle(), encoding="utf-8")

    try:
        made = Store().get_or_make(key_parts, ".js", write)
        return made.read_text(encoding="utf-8")
    except BenchError:
        return _bundle()


def _bundle() -> str:
    import vl_convert

    source: str = vl_convert.javascript_bundle(_SNIPPET)
    return source


def data_table(rows: Sequence[Mapping[str, Any]]) -> DataTable:
    """Rows of a chart's data as text; a curve, which is one row with lists of coordinates, at a few of its points."""
    points = [point for row in rows for point in _points(row)]
    shown = points[:DATA_ROWS]
    header = tuple(dict.fromkeys(str(name) for point in shown for name in point))
    cells = tuple(tuple(_text(point.get(name)) for name in header) for point in shown)
    return DataTable(header, cells, sum(map(_n_points, rows)) - len(shown))


def _n_points(row: Mapping[str, Any]) -> int:
    return max((len(value) for value in row.values() if isinstance(value, list)), default=1)


def _points(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The ends of a curve and some points evenly between them; the row itself where it holds no curve."""
    n = _n_points(row)
    k = min(n, CURVE_POINTS)
    for index in (place * (n - 1) // max(k - 1, 1) for place in range(k)):
        yield {name: value[index] if isinstance(value, list) else value for name, value in row.items()}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
