"""A table as LaTeX: booktabs rules, siunitx columns, notes below.

Two forms: a float with ``threeparttable``, as papers have them, and ``longtable``, which goes on over pages, where a
float would run off its page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.report.sentences import one_line
from scarlet.errors import BenchError

# More rows than this do not fit one page with caption and notes.
MOST_ROWS = 40

# What a column and what both columns of a two-column page hold, in points: those of the CVPR and ICCV style, the
# narrowest of the usual ones (237 and 496), less what the estimate below may be wrong by.
COLUMN_PT, PAGE_PT = 230.0, 483.0
# Sizes of type, the largest first, with about what a sign and the gap between two columns of the table take in each, in
# points (widths of Computer Modern's digits and letters).
SIZES = (
    (r"\small", 4.5, 8.0),
    (r"\footnotesize", 4.13, 6.0),
    (r"\scriptsize", 3.88, 5.0),
    (r"\scriptsize", 3.88, 3.0),
)

_LABEL = re.compile(r"[A-Za-z0-9:._/+-]+")
_COMMAND = re.compile(r"\\[A-Za-z]+(\{\})?|[{}\\]")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: LaTeX, such as of ``latex_text.escaped``; for a number its digits.
        number: it is a number, to be aligned with others at its point.
        bold: the best of its group.
        mark: of the note that belongs to it; empty for none.
    """

    text: str = ""
    number: bool = False
    bold: bool = False
    mark: str = ""


@dataclass(frozen=True)
class Column:
    """A column: its heading as LaTeX, its cells from top to bottom, and its side where they are no numbers."""

    header: str
    cells: tuple[Cell, ...]
    side: str = "l"


@dataclass(frozen=True)
class Span:
    """A heading over several columns: LaTeX, the first and the last of them, counted from 0."""

    header: str
    first: int
    last: int


@dataclass(frozen=True)
class TexTable:
    """A table, ready to be written.

    Attributes:
        columns: at least one, all of one length.
        caption: LaTeX.
        label: for ``\\ref``; see ``checked_label``.
        notes: LaTeX, to stand below.
        marked: mark and LaTeX of each note that cells refer to.
        breaks: rows before which a little space is left.
        spans: headings over several columns.
        remarks: plain text, to stand in the file as comments.
        empty: LaTeX of the only row where there is none.
    """

    columns: tuple[Column, ...]
    caption: str
    label: str
    notes: tuple[str, ...] = ()
    marked: tuple[tuple[str, str], ...] = ()
    breaks: frozenset[int] = frozenset()
    spans: tuple[Span, ...] = ()
    remarks: tuple[str, ...] = ()
    empty: str = "no rows"

    @property
    def n_rows(self) -> int:
        """How many rows it has."""
        return len(self.columns[0].cells)

    @property
    def is_long(self) -> bool:
        """Whether it goes on over pages."""
        return self.n_rows > MOST_ROWS

    def width_pt(self, sign_pt: float, gap_pt: float) -> float:
        """About how wide it is where signs and gaps take so much."""
        signs = [max(len(_plain(text)) for text in _texts(column)) for column in self.columns]
        return sum(sign_pt * n + gap_pt for n in signs)

    @property
    def is_wide(self) -> bool:
        """Whether it is wider than one column of a two-column page."""
        _, sign_pt, gap_pt = SIZES[0]
        return self.width_pt(sign_pt, gap_pt) > COLUMN_PT

    @property
    def size(self) -> tuple[str, float]:
        """The largest type in which it fits the page, else the smallest, as LaTeX; and the gap between columns."""
        for name, sign_pt, gap_pt in SIZES:
            if self.width_pt(sign_pt, gap_pt) <= PAGE_PT:
                return name, gap_pt
        return SIZES[-1][0], SIZES[-1][2]


def checked_label(label: str) -> str:
    """The label, as it was given.

    Raises:
        BenchError: it is empty, or holds a sign that LaTeX does not take in a label.
    """
    if not _LABEL.fullmatch(label):
        raise BenchError(
            f"'{one_line(label)}' cannot be a LaTeX label",
            "Write letters, digits and : . _ / + - only, such as --label tab:latency.",
        )
    return label


def mark_of(place: int) -> str:
    """a, b, ... z, aa, ab, ...: the mark of the note at this place, counted from 0."""
    mark = ""
    while place >= 0:
        mark = chr(ord("a") + place % 26) + mark
        place = place // 26 - 1
    return mark


def source(table: TexTable) -> str:
    """The file: remarks as comments, then the table."""
    body = _long(table) if table.is_long else _float(table)
    return "\n".join([*_remarks(table), *body]) + "\n"


def _remarks(table: TexTable) -> Iterator[str]:
    needed = "booktabs,siunitx,longtable" if table.is_long else "booktabs,siunitx,threeparttable"
    yield rf"% \input this file. The preamble needs \usepackage{{{needed}}}."
    if table.is_long:
        yield "% It goes on over pages, which longtable does in one-column pages only."
    for remark in table.remarks:
        yield f"% {one_line(remark)}"


# --- the two forms ------------------------------------------------------------------------------------------


def _float(table: TexTable) -> Iterator[str]:
    kind = "table*" if table.is_wide else "table"
    yield rf"\begin{{{kind}}}"
    yield r"\centering"
    yield r"\begin{threeparttable}"
    yield rf"\caption{{{table.caption}}}"
    yield rf"\label{{{table.label}}}"
    yield from _settings(table)
    yield rf"\begin{{tabular}}{{{_format(table)}}}"
    yield r"\toprule"
    yield from _headers(table)
    yield r"\midrule"
    yield from _rows(table)
    yield r"\bottomrule"
    yield r"\end{tabular}"
    if table.notes or table.marked:
        yield r"\begin{tablenotes}[flushleft]"
        yield r"\footnotesize\raggedright"
        yield from (rf"\item {note}" for note in table.notes)
        yield from (rf"\item[{mark}] {note}" for mark, note in table.marked)
        yield r"\end{tablenotes}"
    yield r"\end{threeparttable}"
    yield rf"\end{{{kind}}}"


def _long(table: TexTable) -> Iterator[str]:
    n = len(table.columns)
    yield r"\begingroup"
    yield from _settings(table)
    yield rf"\begin{{longtable}}{{{_format(table)}}}"
    yield rf"\caption{{{table.caption}}}\label{{{table.label}}}\\"
    yield r"\toprule"
    yield from _headers(table)
    yield r"\midrule"
    yield r"\endfirsthead"
    yield r"\toprule"
    yield from _headers(table)
    yield r"\midrule"
    yield r"\endhead"
    yield r"\midrule"
    yield rf"\multicolumn{{{n}}}{{r}}{{continued on the next page}} \\"
    yield r"\endfoot"
    yield r"\bottomrule"
    yield r"\endlastfoot"
    yield from _rows(table)
    yield r"\end{longtable}"
    for note in table.notes:
        yield rf"{{\footnotesize\raggedright\noindent {note}\par}}"
    for mark, note in table.marked:
        yield rf"{{\footnotesize\raggedright\noindent{_superscript(mark)} {note}\par}}"
    yield r"\endgroup"


def _settings(table: TexTable) -> Iterator[str]:
    size, gap_pt = table.size
    yield size
    yield rf"\setlength{{\tabcolsep}}{{{gap_pt / 2:g}pt}}"
    # Bold digits stay bold inside of an S column, and as wide as the others are aligned.
    yield r"\sisetup{reset-text-series=false,text-series-to-math=true,table-align-text-after=false}"


# --- parts --------------------------------------------------------------------------------------------------


def _format(table: TexTable) -> str:
    return "@{}" + " ".join(_column_type(column) for column in table.columns) + "@{}"


def _column_type(column: Column) -> str:
    numbers = [cell.text for cell in column.cells if cell.number]
    if not numbers:
        return column.side
    whole = max(len(text.partition(".")[0]) for text in numbers)
    places = max(len(text.partition(".")[2]) for text in numbers)
    # Room for the widest mark behind the digits, or it would stand in the next column.
    mark = max((cell.mark for cell in column.cells if cell.number), key=len)
    return f"S[table-format={whole}.{places}{_braced(_superscript(mark)) if mark else ''}]"


def _headers(table: TexTable) -> Iterator[str]:
    if table.spans:
        yield _spanned(table)
        several = [span for span in table.spans if span.last > span.first]
        rules = [rf"\cmidrule(lr){{{span.first + 1}-{span.last + 1}}}" for span in several]
        yield " ".join(rules)
    yield _row(_braced(column.header) for column in table.columns)


def _spanned(table: TexTable) -> str:
    cells, place = [], 0
    for span in table.spans:
        cells += [""] * (span.first - place)
        cells.append(rf"\multicolumn{{{span.last - span.first + 1}}}{{c}}{{{span.header}}}")
        place = span.last + 1
    cells += [""] * (len(table.columns) - place)
    return _row(cells)


def _rows(table: TexTable) -> Iterator[str]:
    if not table.n_rows:
        yield rf"\multicolumn{{{len(table.columns)}}}{{@{{}}l@{{}}}}{{{table.empty}}} \\"
    in_numbers = [any(cell.number for cell in column.cells) for column in table.columns]
    for number, cells in enumerate(zip(*(column.cells for column in table.columns), strict=True)):
        if number in table.breaks:
            yield r"\addlinespace"
        yield _row(map(_cell, cells, in_numbers))


def _row(cells: Iterator[str] | Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(cell: Cell, in_numbers: bool) -> str:
    mark = _superscript(cell.mark) if cell.mark else ""
    if cell.number:
        bold = r"\bfseries " if cell.bold else ""
        return f"{bold}{cell.text}{_braced(mark) if mark else ''}"
    bold = r"\bfseries " if cell.bold else ""
    text = f"{bold}{cell.text}{mark}"
    # Text in a column of numbers must stand in braces, and an empty cell there is a dash.
    return _braced(text or "--") if in_numbers else text


def _superscript(mark: str) -> str:
    return rf"\textsuperscript{{{mark}}}"


def _braced(text: str) -> str:
    return f"{{{text}}}"


def _texts(column: Column) -> list[str]:
    return [column.header, *(f"{cell.text}{cell.mark}" for cell in column.cells)]


def _plain(text: str) -> str:
    """About what is seen of the LaTeX: a command counts as one sign."""
    return _COMMAND.sub(lambda command: "x" if len(command[0]) > 1 else "", text)
