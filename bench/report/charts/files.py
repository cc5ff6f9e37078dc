"""Charts as files for papers: PDF, SVG and PNG, as wide as one column of print or two."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.record.case import checked_names
from bench.record.files import atomic_file
from bench.report.charts import Chart, themed
from bench.report.charts.theme import FONT_SIZE, POINT_AT

# Columns of the usual two-column papers (IEEE: 3.5 and 7.16 inches; CVPR: 3.25 and 6.88) have room for these.
WIDTHS_INCH = {"single": 3.3, "double": 6.9}
FORMATS = ("pdf", "svg", "png")

POINTS_PER_INCH = 72
FONT_POINTS = 8
PNG_DOTS_PER_INCH = 300

# Height of a plot over the width of its figure, at most.
FLATNESS = 0.62

# What a page has room for, with titles and legend.
MOST_POINTS_HIGH = 540

# In a PDF: the lines of a dictionary of fonts, groups and the like, and a reference to an object.
_RESOURCES = re.compile(rb"(?:^ +/[a-z]+\d+ \d+ 0 R\n)+", re.MULTILINE)
_REFERENCE = re.compile(rb"(?<![\w.-])(\d+) 0 R\b")

_SVG_SIZE = re.compile(r'(<svg\b[^>]*?\bwidth="[\d.]+)("[^>]*?\bheight="[\d.]+)(")')


def write_figures(
    charts: Sequence[Chart],
    folder: Path,
    widths: Sequence[str] = tuple(WIDTHS_INCH),
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Writes every chart in every width and format, in light colours on white; the same charts give the same bytes.

    Args:
        charts: as of ``bench.report.charts.charts``.
        folder: where to; it is made where it is missing. Files are named ``<chart>-<width>.<format>``.
        widths: names in ``WIDTHS_INCH``.
        formats: names in ``FORMATS``.

    Returns:
        the files, in the order of the charts.

    Raises:
        BenchError: a width or a format is not known, or the folder cannot be written.
    """
    wide = checked_names("width of figures", widths, WIDTHS_INCH)
    kinds = checked_names("format of figures", formats, FORMATS)
    written = []
    for chart in charts:
        for width in wide:
            spec = for_paper(chart, WIDTHS_INCH[width])
            for kind in kinds:
                path = Path(folder) / f"{chart.name}-{width}.{kind}"
                with atomic_file(path) as stream:
                    stream.write(_converted(spec, kind))
                written.append(path)
    return written


def for_paper(chart: Chart, width_inch: float) -> dict[str, Any]:
    """The chart's spec at this width: a px is a point. What only a page can do (tooltips) is left out."""
    width = int(width_inch * POINTS_PER_INCH)
    title = chart.spec["title"]
    notes = [note for note in title["subtitle"] if note != POINT_AT]
    printed = {**chart.spec, "title": {**title, "subtitle": notes}}
    made = themed(printed, width=width, font_size=FONT_POINTS)
    rows = (made.get("usermeta") or {}).get("rows")
    share = FONT_POINTS / FONT_SIZE
    height = min(made["height"] * share, MOST_POINTS_HIGH) if rows else min(made["height"], FLATNESS * width)
    still = [_still(layer, share) for layer in made["layer"]]
    return {**made, "background": "white", "height": round(height), "layer": still}


def _still(layer: dict[str, Any], share: float) -> dict[str, Any]:
    """The layer without tooltips and the invisible points that carry them, its marks as small as the letters."""
    encoding = {channel: value for channel, value in layer["encoding"].items() if channel != "tooltip"}
    mark = {name: value for name, value in layer["mark"].items() if name not in ("point", "tooltip")}
    for name in ("yOffset", "strokeWidth", "thickness"):
        if name in mark:
            mark[name] *= share
    if "size" in mark:  # of a point its area, of a tick its length
        mark["size"] *= share if mark["type"] == "tick" else share**2
    return {**layer, "encoding": encoding, "mark": mark}


def _converted(spec: dict[str, Any], kind: str) -> bytes:
    import vl_convert

    if kind == "png":
        drawn: bytes = vl_convert.vegalite_to_png(spec, ppi=PNG_DOTS_PER_INCH)
        return drawn
    if kind == "pdf":
        return in_order(vl_convert.vegalite_to_pdf(spec))
    # Without a unit a viewer takes px, of which an inch has 96.
    drawing = _SVG_SIZE.sub(r"\1pt\2pt\3", vl_convert.vegalite_to_svg(spec), count=1)
    said = (
        f"<title>{escape(' '.join(spec['title']['text']))}</title><desc>{escape(spec['description'])}</desc>"
    )
    start, end, rest = drawing.partition(">")
    return f"{start}{end}{said}{rest}".encode()


def in_order(pdf: bytes) -> bytes:
    """The same PDF with its objects numbered and written in the order in which its catalogue leads to them.

    vl-convert keeps fonts and groups in hash tables: their order changes from call to call. What is not laid out
    as it does it (a table of offsets in the open, of one part) comes back as it is.
    """
    found = re.search(
        rb"\nxref\n0 (\d+)\n((?:\d{10} \d{5} [fn][ \r]\n)+)(trailer\n.*?startxref\n)(\d+)", pdf, re.DOTALL
    )
    if found is None:
        return pdf
    entries = [line.split() for line in found[2].splitlines()]
    offsets = {number: int(line[0]) for number, line in enumerate(entries) if line[2] == b"n"}
    ends = dict(
        zip(sorted(offsets.values()), [*sorted(offsets.values())[1:], found.start() + 1], strict=True)
    )
    heads, bodies = {}, {}
    for number, offset in offsets.items():
        whole = pdf[offset : ends[offset]]
        # Only what stands before a stream is text.
        head, mark, bodies[number] = whole.partition(b"stream\n")
        sorted_lines = _RESOURCES.sub(lambda lines: b"".join(sorted(lines[0].splitlines(True))), head)
        heads[number] = sorted_lines.split(b"\n", 1)[1] + mark
    order = _reached(found[3], heads)
    new = {number: place for place, number in enumerate(order, start=1)}

    def renumbered(text: bytes) -> bytes:
        return _REFERENCE.sub(lambda one: b"%d 0 R" % new[int(one[1])], text)

    made = bytearray(pdf[: min(offsets.values())])
    table = [b"0000000000 65535 f\r\n"]
    for number in order:
        table.append(b"%010d 00000 n\r\n" % len(made))
        made += b"%d 0 obj\n" % new[number] + renumbered(heads[number]) + bodies[number]
    start = len(made)
    made += b"xref\n0 %d\n" % len(table) + b"".join(table)
    made += re.sub(rb"/Size \d+", b"/Size %d" % len(table), renumbered(found[3]))
    return bytes(made) + b"%d\n%%%%EOF" % start


def _reached(trailer: bytes, heads: Mapping[int, bytes]) -> list[int]:
    """The objects that the trailer leads to, each before those that it names itself."""
    order: dict[int, None] = {}
    waiting = [int(number) for number in _REFERENCE.findall(trailer)]
    while waiting:
        number = waiting.pop()
        if number not in order:
            order[number] = None
            waiting += reversed([int(other) for other in _REFERENCE.findall(heads[number])])
    return list(order)
