"""What a command shows, for any form: blocks of headings, tables, sentences and charts.

A table is made of columns, each with a function from a row to its cell; numbers become text here, and nothing is read
back out of a text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from bench.report.text import number, one_line, whole

if TYPE_CHECKING:
    import pandas as pd

RowType = TypeVar("RowType")


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: as people read it; empty where nothing is known.
        detail: what belongs to it, as its interval: behind it in brackets, or below it in small.
        value: the number behind it, which it is sorted by, and which a table for programs holds.
        mark: a verdict or a status, for forms that have a symbol for it; ``best`` is bold in papers.
        note: what must be said of it, below the table in papers; the others say it elsewhere.
    """

    text: str = ""
    detail: str = ""
    value: float | None = None
    mark: str = ""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.detail})" if self.detail else self.text


@dataclass(frozen=True)
class Head:
    """What stands above a column.

    Attributes:
        numeric: the column holds numbers: align it to the right.
        name: of the column in ``bench.analysis.columns.REGISTRY`` that it shows; empty for none.
        below: it belongs to the column before it, below whose values it may stand.
        folds: its texts are long, and folded where there is no room.
        over: what stands before the text, or above it and its neighbours of the same in papers.
    """

    text: str
    numeric: bool = False
    name: str = ""
    below: bool = False
    folds: bool = False
    over: str = ""


@dataclass(frozen=True)
class Column(Generic[RowType]):
    """How a column is made from rows.

    Attributes:
        when: it is shown: always; known: some cell is not empty; varies: cells differ.
    """

    head: Head
    cell: Callable[[RowType], Cell | str]
    when: str = "always"


@dataclass(frozen=True)
class Table:
    """A table, ready to be written in any form.

    Attributes:
        title: what it is about; empty where the heading before it says so.
        records: what each row is of, where that is a row of a run's table.
        level: of its title as a heading.
    """

    title: str
    columns: tuple[Head, ...]
    cells: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    records: tuple[Mapping[str, Any], ...] = ()
    level: int = 2

    @property
    def header(self) -> tuple[str, ...]:
        """The header of each column."""
        return tuple(f"{head.over} {head.text}".strip() for head in self.columns)

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Of each column whether it holds numbers."""
        return tuple(head.numeric for head in self.columns)

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The cells as text."""
        return tuple(tuple(map(str, cells)) for cells in self.cells)


@dataclass(frozen=True)
class Heading:
    """A heading; the document's title has level 1."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Note:
    """A sentence. ``kind``: item (of a list), paragraph, or mark (what must not be overlooked)."""

    text: str
    kind: str = "item"


@dataclass(frozen=True)
class Chart:
    """A picture in a file: its path relative to the document, and what is to be seen."""

    path: str
    alt: str


Block = Heading | Table | Note | Chart


@dataclass(frozen=True)
class Document:
    """What a command shows.

    Attributes:
        title: of the whole.
        blocks: in order.
        data: the same for machines, as JSON types; empty for what ``as_data`` makes of the blocks.
        frames: the same as tidy tables by name, the first is the main one; empty for one of each table.
    """

    title: str
    blocks: Sequence[Block] = ()
    data: Any = None
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def tables(self) -> list[Table]:
        """Its tables."""
        return [block for block in self.blocks if isinstance(block, Table)]

    @property
    def marks(self) -> list[str]:
        """What must not be overlooked."""
        return [block.text for block in self.blocks if isinstance(block, Note) and block.kind == "mark"]

    @property
    def lines(self) -> list[str]:
        """Its other sentences."""
        return [block.text for block in self.blocks if isinstance(block, Note) and block.kind != "mark"]


def table_of(
    title: str, columns: Iterable[Column[RowType]], rows: Sequence[RowType], notes: Iterable[str] = ()
) -> Table:
    """The table of these rows, without the columns that are not worth their room."""
    heads, cells = [], []
    for column in columns:
        made = [Cell(cell) if isinstance(cell := column.cell(row), str) else cell for row in rows]
        texts = [str(cell) for cell in made]
        if {"always": True, "known": any(texts), "varies": len(set(texts)) > 1}[column.when]:
            heads.append(replace(column.head, text=one_line(column.head.text), over=one_line(column.head.over)))
            cells.append(made)
    by_row = tuple(zip(*cells, strict=True)) if cells else ()
    return Table(one_line(title), tuple(heads), by_row, tuple(notes))


def count_cell(value: int | None) -> Cell:
    """A count with thousands separated; empty where it is not known."""
    return Cell(whole(value), value=value)


def number_cell(value: float | None, half_width: float | None = None) -> Cell:
    """A number with the digits that are true; see ``bench.report.text.number``."""
    return Cell(number(value, half_width), value=value)


def interval_cell(value: float | None, low: float | None, high: float | None) -> Cell:
    """A number with the ends of its interval, where it has one, as detail."""
    if low is None or high is None:
        return number_cell(value)
    half_width = (high - low) / 2.0
    return replace(number_cell(value, half_width), detail=f"{number(low, half_width)} to {number(high, half_width)}")


def rounded_cell(value: float | None, form: str) -> Cell:
    """A number in one of Python's formats; empty where it is not known."""
    return Cell("" if value is None else format(value, form), value=value)


def notes(lines: Iterable[str], kind: str = "item") -> list[Note]:
    """A block for each of these sentences."""
    return [Note(line, kind) for line in lines]


def as_data(document: Document) -> Any:
    """The document as JSON types: what the command gave, else its blocks, numbers as numbers."""
    if document.data is not None:
        return document.data
    return {
        "title": document.title,
        "tables": [
            {
                "title": table.title,
                "columns": list(table.header),
                "rows": [list(map(_plain, cells)) for cells in table.cells],
                "notes": list(table.notes),
            }
            for table in document.tables
        ],
        "marks": document.marks,
        "notes": document.lines,
    }


def as_frames(document: Document) -> Mapping[str, pd.DataFrame]:
    """The document as tidy tables: what the command gave, else one of each table, else one of its sentences."""
    import pandas as pd

    if document.frames:
        return document.frames
    return {
        str(number): pd.DataFrame([map(_plain, cells) for cells in table.cells], columns=list(table.header))
        for number, table in enumerate(document.tables, start=1)
    } or {"notes": pd.DataFrame({"note": [*document.marks, *document.lines]})}


def _plain(cell: Cell) -> float | str:
    return str(cell) if cell.value is None else cell.value
