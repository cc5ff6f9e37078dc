"""Charts as files for papers: PDF, SVG and PNG, as wide as one column of print or two."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.record.files import atomic_file
from bench.report.charts.chart import Chart
from bench.report.charts.theme import PAPER

# Columns of the usual two-column papers (IEEE: 3.5 and 7.16 inches; CVPR: 3.25 and 6.88) have room for these.
WIDTHS_INCH = {"single": 3.3, "double": 6.9}
FORMATS = ("pdf", "svg", "png")

POINTS_PER_INCH = 72
PNG_DOTS_PER_INCH = 300

_SVG_SIZE = re.compile(r'(<svg\b[^>]*?\bwidth="[\d.]+)("[^>]*?\bheight="[\d.]+)(")')


def write_figures(charts: Sequence[Chart], folder: Path) -> list[Path]:
    """Writes every chart in every width and format, on white; the same charts give the same bytes.

    Args:
        folder: where to; it is made where it is missing. Files are named ``<chart>-<width>.<format>``.

    Returns:
        the files, in the order of the charts.

    Raises:
        BenchError: the folder cannot be written.
    """
    paths = []
    for chart in charts:
        for width in WIDTHS_INCH:
            spec = _on_paper(chart, width)
            for form in FORMATS:
                paths.append(folder / f"{chart.name}-{width}.{form}")
                _write(spec, paths[-1])
    return paths


def write_figure(chart: Chart, path: Path, width: str = "double") -> None:
    """Writes one chart in a width of ``WIDTHS_INCH``, in the format that the suffix names.

    Raises:
        BenchError: the folder cannot be written.
    """
    _write(_on_paper(chart, width), path)


def _on_paper(chart: Chart, width: str) -> dict[str, Any]:
    return chart.spec(PAPER, int(WIDTHS_INCH[width] * POINTS_PER_INCH))  # a px is a point


def _write(spec: dict[str, Any], path: Path) -> None:
    import vl_convert

    with atomic_file(path) as stream:
        if path.suffix == ".png":
            stream.write(vl_convert.vegalite_to_png(spec, ppi=PNG_DOTS_PER_INCH))
        elif path.suffix == ".pdf":
            stream.write(vl_convert.vegalite_to_pdf(spec))
        else:
            stream.write(_svg(spec))


def _svg(spec: dict[str, Any]) -> bytes:
    """The drawing with its title and what is to be seen as text."""
    import vl_convert

    # Without a unit a viewer takes px, of which an inch has 96.
    drawing = _SVG_SIZE.sub(r"\1pt\2pt\3", vl_convert.vegalite_to_svg(spec), count=1)
    title = escape(" ".join(spec["title"]["text"]))
    start, end, rest = drawing.partition(">")
    return f"{start}{end}<title>{title}</title><desc>{escape(spec['description'])}</desc>{rest}".encode()
