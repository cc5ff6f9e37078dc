"""A table as LaTeX: booktabs rules, siunitx columns, notes below; pandas writes the rows and their headings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

import jinja2
import pandas as pd

from bench.report.document import Cell, Head, Table
from bench.report.latex.escape import escaped
from bench.report.text import one_line
from scarlet.errors import BenchError

# More rows than this do not fit one page with caption and notes.
MOST_ROWS = 40
TOO_LONG = "% A page has no room for so many rows: choose columns of fewer, or split the table.\n"

# What a column and what both columns of a two-column page hold, in points: those of the CVPR and ICCV style, the
# narrowest of the usual ones (237 and 496), less what the estimate below may be wrong by.
COLUMN_PT, PAGE_PT = 230.0, 483.0
# Sizes of type, the largest first, with about what a sign and the gap between two columns of the table take in each, in
# points (widths of Computer Modern's digits and letters).
SIZES = ((r"\small", 4.5, 8.0), (r"\footnotesize", 4.13, 6.0), (r"\scriptsize", 3.88, 5.0), (r"\scriptsize", 3.88, 3.0))

# Signed ones stay text: siunitx drops a plus.
_NUMBER = re.compile(r"\d+(\.\d+)?")
_LABEL = re.compile(r"[A-Za-z0-9:._/+-]+")

_TEMPLATE = r"""% \input this file. The preamble needs \usepackage{booktabs,siunitx,threeparttable}.
<< remarks >>\begin{<< kind >>}
\centering
\begin{threeparttable}
\caption{<< caption >>}
\label{<< label >>}
<< settings >>
<< rows >>
<% if notes %>
\begin{tablenotes}[flushleft]
\footnotesize\raggedright
<% for mark, note in notes %>
\item<< "[%s]" % mark if mark >> << note >>
<% endfor %>
\end{tablenotes}
<% endif %>
\end{threeparttable}
\end{<< kind >>}
"""
# Bold digits stay bold inside of an S column, and as wide as the others are aligned.
_SETTINGS = r"""{size}
\setlength{{\tabcolsep}}{{{gap:g}pt}}
\sisetup{{reset-text-series=false,text-series-to-math=true,table-align-text-after=false}}"""


def checked_label(label: str) -> str:
    """The label, as it was given; BenchError where it is empty, or holds a sign that LaTeX does not take in a label."""
    if not _LABEL.fullmatch(label):
        raise BenchError(
            f"'{one_line(label)}' cannot be a LaTeX label",
            "Write letters, digits and : . _ / + - only, such as --label tab:latency.",
        )
    return label


def mark_of(index: int) -> str:
    """a, b, ... z, aa, ab, ...: the mark of the note with this index, counted from 0."""
    mark = ""
    while index >= 0:
        mark = chr(ord("a") + index % 26) + mark
        index = index // 26 - 1
    return mark


def source(
    table: Table,
    caption: str,
    label: str,
    *,
    watermarks: Sequence[str] = (),
    breaks: frozenset[int] = frozenset(),
    remarks: Sequence[str] = (),
) -> str:
    """The file: remarks as comments, then the table. All texts are plain.

    Of a cell with a value the text is a number, to be aligned with others at its point; an interval has a column of its
    own.

    Args:
        label: for ``\\ref``; see ``checked_label``.
        watermarks: what must not be overlooked: in bold, the first of the notes.
        breaks: rows before which a little space is left.
    """
    heads, rows = _with_intervals(table)
    rows = rows or [[Cell("no rows"), *[Cell()] * (len(heads) - 1)]]
    texts = list(dict.fromkeys(cell.note for row in rows for cell in row if cell.note))
    marks = {text: mark_of(index) for index, text in enumerate(texts)}
    notes = [("", rf"\textbf{{{escaped(text, breakable=True)}}}") for text in watermarks]
    notes += [("", escaped(f"{text[0].upper()}{text[1:]}.", breakable=True)) for text in table.notes if text]
    notes += [(mark, escaped(text, breakable=True)) for text, mark in marks.items()]
    kind, size, gap_pt = _fit(heads, rows, marks)
    template = jinja2.Environment(
        variable_start_string="<<",
        variable_end_string=">>",
        block_start_string="<%",
        block_end_string="%>",
        trim_blocks=True,
        keep_trailing_newline=True,
    ).from_string(_TEMPLATE)
    return template.render(
        remarks="".join(f"% {one_line(remark)}\n" for remark in remarks) + TOO_LONG * (len(rows) > MOST_ROWS),
        kind=kind,
        caption=escaped(caption),
        label=checked_label(label),
        settings=_SETTINGS.format(size=size, gap=gap_pt / 2),
        rows=_tabular(heads, rows, marks, breaks),
        notes=notes,
    )


def _with_intervals(table: Table) -> tuple[list[Head], list[list[Cell]]]:
    """The columns, and the cells by row, each interval in a column of its own; other details are part of the text."""
    heads: list[Head] = []
    columns: list[list[Cell]] = []
    by_column = list(zip(*table.cells, strict=True)) or [()] * len(table.columns)
    for head, cells in zip(table.columns, by_column, strict=True):
        ends = [cell.detail if " to " in cell.detail else "" for cell in cells]
        heads.append(head)
        columns.append([cell if end else replace(cell, text=str(cell)) for cell, end in zip(cells, ends, strict=True)])
        if any(ends):
            heads.append(Head("interval", True, over=head.over))
            columns.append([Cell(end.replace(" to ", "–")) for end in ends])
    return heads, [list(row) for row in zip(*columns, strict=True)]


def _fit(heads: Sequence[Head], rows: Sequence[Sequence[Cell]], marks: Mapping[str, str]) -> tuple[str, str, float]:
    """The float that it needs, the largest type that fits the page, and the gap between columns in points."""
    texts = [[head.text for head in heads]]
    texts += [[cell.text + marks.get(cell.note, "") for cell in row] for row in rows]
    signs = [max(map(len, column)) for column in zip(*texts, strict=True)]

    def width_pt(sign_pt: float, gap_pt: float) -> float:
        return sum(sign_pt * n + gap_pt for n in signs)

    fitting = [(name, gap) for name, sign, gap in SIZES if width_pt(sign, gap) <= PAGE_PT]
    name, gap_pt = fitting[0] if fitting else (SIZES[-1][0], SIZES[-1][2])
    return "table" if width_pt(*SIZES[0][1:]) <= COLUMN_PT else "table*", name, gap_pt


def _tabular(
    heads: Sequence[Head], rows: Sequence[Sequence[Cell]], marks: Mapping[str, str], breaks: frozenset[int]
) -> str:
    by_column = list(zip(*rows, strict=True))
    in_numbers = [any(map(_digits, cells)) for cells in by_column]
    lines = [[_cell(*pair, marks) for pair in zip(row, in_numbers, strict=True)] for row in rows]
    for index in breaks:
        lines[index][0] = f"\\addlinespace\n{lines[index][0]}"
    headers, overs = [escaped(head.text) for head in heads], [escaped(head.over) for head in heads]
    frame = pd.DataFrame(lines)
    frame.columns = pd.MultiIndex.from_arrays([overs, headers]) if any(overs) else pd.Index(headers)
    formats = [_format(head, cells, marks) for head, cells in zip(heads, by_column, strict=True)]
    tex: str = frame.style.hide(axis="index").to_latex(
        column_format=f"@{{}}{' '.join(formats)}@{{}}",
        hrules=True,
        siunitx=True,  # headings in braces
        multicol_align="c",
    )
    if any(overs):
        tex = re.sub(r"(\\toprule\n.*\n)", lambda line: f"{line[1]}{_span_rules(overs)}\n", tex)
    return tex.removesuffix("\n")


def _digits(cell: Cell) -> str:
    """What stands in a column of numbers; empty where it is no number."""
    digits = cell.text.replace(",", "")
    return digits if cell.value is not None and _NUMBER.fullmatch(digits) else ""


def _cell(cell: Cell, in_numbers: bool, marks: Mapping[str, str]) -> str:
    mark = _superscript(marks[cell.note]) if cell.note else ""
    bold = r"\bfseries " if cell.mark == "best" else ""
    if digits := _digits(cell):
        return f"{bold}{digits}" + (f"{{{mark}}}" if mark else "")
    text = f"{bold}{escaped(cell.text)}{mark}"
    # Text in a column of numbers must stand in braces, and an empty cell there is a dash.
    return f"{{{text or '--'}}}" if in_numbers else text


def _format(head: Head, cells: Sequence[Cell], marks: Mapping[str, str]) -> str:
    """The type of a column."""
    numbers = [cell for cell in cells if _digits(cell)]
    if not numbers:
        return "r" if head.numeric else "l"
    digits = [_digits(cell).partition(".") for cell in numbers]
    # Room for the widest mark behind the digits, or it would stand in the next column.
    mark = max((marks.get(cell.note, "") for cell in numbers), key=len)
    shape = f"{max(len(text[0]) for text in digits)}.{max(len(text[2]) for text in digits)}"
    return f"S[table-format={shape}{{{_superscript(mark)}}}]" if mark else f"S[table-format={shape}]"


def _span_rules(overs: Sequence[str]) -> str:
    """Rules below the headings over several columns: over one column a rule says nothing."""
    rules, first = [], 1
    for over, group in groupby(overs):
        last = first + len(list(group)) - 1
        if over and last > first:
            rules.append(rf"\cmidrule(lr){{{first}-{last}}}")
        first = last + 1
    return " ".join(rules)


def _superscript(mark: str) -> str:
    return rf"\textsuperscript{{{mark}}}"
