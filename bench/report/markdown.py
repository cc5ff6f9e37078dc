"""``report.md``: the run for people, and for pull requests; and any document as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.analysis.accuracy.pairing import against_reference
from bench.analysis.table import DEMO_NOTE, Loaded
from bench.record.files import write_text
from bench.report import flips
from bench.report.document import Block, Chart, Document, Heading, Note, Table, notes
from bench.report.sentences import command_line, facts, summary, watermarks
from bench.report.tables import sections, tables
from bench.report.text import one_line

# Of the accuracy waterfall, in the run's folder.
FIGURE = "figures/accuracy-waterfall.svg"
# Enough to look at; `scarlet-bench compare` lists as many as are asked for.
FLIPS_SHOWN = 5


def write(run: Loaded, path: Path) -> None:
    """Writes the report. See ``bench.report.forms.Format``."""
    lines = [*document_lines(run_document(run)), *_remake(run.info)]
    write_text(path, "\n".join(lines) + "\n")


def document_lines(document: Document) -> Iterator[str]:
    """Any document as Markdown, line by line."""
    yield f"# {escaped(document.title)}"
    before: Block | None = None
    for block in document.blocks:
        if not (_is_item(block) and before is not None and _is_item(before)):
            yield ""
        yield from _block(block)
        before = block


def _is_item(block: Block) -> bool:
    return isinstance(block, Note) and block.kind == "item"


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Table):
        yield from table_lines(block)
    elif isinstance(block, Heading):
        yield f"{'#' * block.level} {escaped(block.text)}"
    elif isinstance(block, Chart):
        yield f"![{escaped(block.alt)}]({block.path})"
    else:
        yield {"item": "- {}", "mark": "> **{}**", "paragraph": "{}"}[block.kind].format(escaped(block.text))


def table_lines(table: Table) -> Iterator[str]:
    """A heading where the table has a title, the table and its notes, line by line."""
    if table.title:
        yield f"{'#' * table.level} {escaped(table.title)}"
        yield ""
    yield _row(table.header)
    yield _row("---:" if numeric else "---" for numeric in table.numeric)
    for cells in table.cells:
        yield _row(f"**{escaped(str(cell))}**" if cell.mark == "fail" else escaped(str(cell)) for cell in cells)
    if table.notes:
        yield ""
        yield from (f"- {escaped(note)}" for note in table.notes)


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(text: str) -> str:
    """Text from outside, on one line, that Markdown and HTML show as it is."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`|*\[\]~$])", r"\\\1", text)
    # Underscores inside a word are never emphasis: scarlet_c stays readable in the source.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def run_document(run: Loaded) -> Document:
    """A run for people: its tables, who lost the accuracy, flips, and what disturbed it."""
    frame, info = run.frame, run.info
    models = ", ".join(dict.fromkeys(frame["model"])) or "no Case"
    ledgers, left_out = against_reference(run.scored)
    blocks: list[Block] = [
        *notes(watermarks(frame, info), "mark"),
        Note(summary(frame), "paragraph"),
        *notes(f"{name}: {text}" for name, text in facts(info)),
        *tables(frame, info),
    ]
    for title, section in sections(run, ledgers, left_out).items():
        blocks += [Heading(title), *section]
        if title == flips.WATERFALL:
            blocks += _figure(run)
        if title == "Flips":
            blocks += flips.flips_tables(flips.names_of(ledgers)[1:], ledgers, FLIPS_SHOWN)
    return Document(f"scarlet-bench: {models}", blocks)


def _figure(run: Loaded) -> Iterator[Block]:
    """Who lost the accuracy, as a picture in a file."""
    from bench.report.charts.accuracy import waterfall
    from bench.report.charts.files import write_figure

    demo = bool((run.info.get("dataset") or {}).get("is_demo"))
    for chart in waterfall(flips.telling_steps(run.scored), [DEMO_NOTE] if demo else []):
        write_figure(chart, run.path / FIGURE)
        yield Chart(FIGURE, "Bars from one step's top-1 to the next")


def _remake(info: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## How this was made"
    yield ""
    if line := command_line(info):
        # A fence longer than any run of backticks in it cannot be closed from inside.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
        yield f"{fence}sh"
        yield line
        yield fence
        yield ""
    yield "Times are medians with their 95 % interval over lives, or over rounds of one life; every figure is derived"
    yield "from `samples.parquet` and `predictions.parquet`. Run `scarlet-bench report .` in this folder to remake this"
    yield "page and the tables."
