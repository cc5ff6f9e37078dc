"""Charts as files for papers: PDF, SVG and PNG, as wide as one column of print or two."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.record.files import atomic_file
from bench.report.charts.chart import Chart

# Columns of the usual two-column papers (IEEE: 3.5 and 7.16 inches; CVPR: 3.25 and 6.88) have room for these.
WIDTHS_INCH = {"single": 3.3, "double": 6.9}
FORMATS = ("pdf", "svg", "png")

# A chart is drawn as for a screen and made smaller, so that its type is of 8 points; a px is a point then.
SCALE = 8 / 12
POINTS_PER_INCH, PNG_DOTS_PER_INCH = 72, 300

_SIZE = re.compile(r'(\b(?:width|height)=")([\d.]+)"')  # of the drawing, whose element is the first


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
    for chart, width, form in itertools.product(charts, WIDTHS_INCH, FORMATS):
        paths.append(folder / f"{chart.name}-{width}.{form}")
        write_figure(chart, paths[-1], width)
    return paths


def write_figure(chart: Chart, path: Path, width: str = "double") -> None:
    """Writes one chart in a width of ``WIDTHS_INCH``, in the format that the suffix names.

    Raises:
        BenchError: the folder cannot be written.
    """
    import vl_convert

    spec = chart.spec(int(WIDTHS_INCH[width] * POINTS_PER_INCH / SCALE), is_paper=True)
    with atomic_file(path) as stream:
        if path.suffix == ".png":
            stream.write(vl_convert.vegalite_to_png(spec, scale=SCALE, ppi=PNG_DOTS_PER_INCH))
        elif path.suffix == ".pdf":
            stream.write(vl_convert.svg_to_pdf(_svg(spec, "")))
        else:
            stream.write(_svg(spec, "pt").encode())  # without a unit a viewer takes px, of which an inch has 96


def _svg(spec: dict[str, Any], unit: str) -> str:
    """The drawing with its title and what is to be seen as text."""
    import vl_convert

    drawing = _SIZE.sub(
        lambda side: f'{side[1]}{float(side[2]) * SCALE:g}{unit}"', vl_convert.vegalite_to_svg(spec), count=2
    )
    title = escape(" ".join(spec["title"]["text"]))
    start, end, rest = drawing.partition(">")
    return f"{start}{end}<title>{title}</title><desc>{escape(spec['description'])}</desc>{rest}"
