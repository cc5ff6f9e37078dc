"""Documents on the terminal, which no name or reason of a file's can steer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderableType
from rich.segment import Segment
from rich.table import Table as RichTable
from rich.text import Text

from bench.report.document import Chart, Document, Heading, Note, Table, notes
from scarlet.errors import visible

if TYPE_CHECKING:
    import pandas as pd

# To so many characters the texts of a column are folded where the terminal is narrow.
FOLDED = 10


class Terminal(Console):
    """Prints what is ``visible``, whatever it is part of: a line, a table, a bar; and rich's own codes as they are."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Segments of a renderable; see ``rich.console.Console``."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


def printer(console: Console) -> Callable[[str], None]:
    """What prints a line as it is."""
    return lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_tables(frame: pd.DataFrame, info: Mapping[str, Any], console: Console) -> None:
    """Prints watermarks, the tables and the summary; a Case that is not ok with its status and reason."""
    # They take long to import, and most commands print no table of a run.
    from bench.report.sentences import summary, watermarks
    from bench.report.tables import tables

    marks = notes(watermarks(frame, info), "mark")
    show(Document("", [*tables(frame, info, brief=True), *marks, Note(summary(frame), "paragraph")]), console)


def show(document: Document, console: Console) -> None:
    """Prints a document's blocks, what must not be overlooked last; not its title, which the typed command says.

    Text objects and no markup: brackets in names and reasons are what they are. A terminal narrower than the numbers
    wraps the lines; nothing is cut off.
    """
    for block in sorted(document.blocks, key=lambda block: isinstance(block, Note) and block.kind == "mark"):
        if isinstance(block, Table):
            _table(block, console)
        elif isinstance(block, Heading):
            console.print(Text(block.text, style="table.title"), soft_wrap=True)
        elif isinstance(block, Note):
            # An item may be a path or a command to copy, which stays on one line.
            style = "bold yellow" if block.kind == "mark" else ""
            console.print(Text(block.text, style=style), soft_wrap=block.kind == "item")
        elif isinstance(block, Chart):
            console.print(Text(f"{block.alt}: {block.path}"), soft_wrap=True)


def _table(table: Table, console: Console) -> None:
    if table.title:
        # Not as rich's title, which would be folded to the width of the table.
        console.print(Text(table.title, style="table.title"))
    # One space between columns: they must fit 80 characters.
    drawn = RichTable(box=None, padding=(0, 1, 0, 0))
    for head, header in zip(table.columns, table.header, strict=True):
        justify: JustifyMethod = "right" if head.numeric else "left"
        if head.folds:
            drawn.add_column(header, justify=justify, overflow="fold", min_width=FOLDED)
        else:
            drawn.add_column(header, justify=justify, no_wrap=True)
    for cells in table.rows:
        drawn.add_row(*map(Text, cells))
    if console.width < (least := _least_width(table)):
        drawn.width = least
    console.print(drawn, crop=False)
    console.print()
    for note in table.notes:
        console.print(Text(note, style="dim"))
    if table.notes:
        console.print()


def _least_width(table: Table) -> int:
    """Characters that the table needs with its long columns folded."""
    columns = zip(table.columns, table.header, *table.rows, strict=True)
    widths = (FOLDED if head.folds else max(map(cell_len, texts)) for head, *texts in columns)
    return sum(width + 1 for width in widths)
