"""``report.md``: the run for people, and for pull requests; and any document as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.accuracy.flips import FlipLedger
from bench.analysis.accuracy.pairing import against_reference
from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.table import DEMO_NOTE, Loaded
from bench.record.files import write_text
from bench.report import flips
from bench.report.document import Block, Chart, Document, Heading, Note, Table, notes
from bench.report.sentences import build_lines, command_line, facts, summary, watermarks
from bench.report.tables import tables
from bench.report.text import one_line

# Of the accuracy waterfall, in the run's folder.
FIGURE = "figures/accuracy-waterfall.svg"
# A broken set may have thousands; all of them are in cases.jsonl.
BAD_IMAGES_SHOWN = 20
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
    frame, info, scored = run.frame, run.info, run.scored
    models = ", ".join(dict.fromkeys(frame["model"])) or "no Case"
    builds = build_lines(frame, scored)
    return Document(
        f"scarlet-bench: {models}",
        [
            *notes(watermarks(frame, info), "mark"),
            Note(summary(frame), "paragraph"),
            *notes(f"{name}: {text}" for name, text in facts(info)),
            *tables(frame, info),
            *([Heading("Builds")] if builds else []),
            *notes(builds),
            *_waterfall(scored),
            *_flips(scored),
            *_warnings(info),
            *_bad_images(info),
        ],
    )


def _waterfall(run: ScoredRun) -> Iterator[Block]:
    """Who lost accuracy, step by step."""
    steps = flips.telling_steps(run)
    if (table := flips.waterfall_table(steps)) is None:
        return
    yield table
    from bench.report.charts.accuracy import waterfall
    from bench.report.charts.files import write_figure

    demo = bool((run.info.get("dataset") or {}).get("is_demo"))
    for chart in waterfall(steps, [DEMO_NOTE] if demo else []):
        write_figure(chart, run.path / FIGURE)
        yield Chart(FIGURE, "Bars from one step's top-1 to the next")


def _flips(run: ScoredRun) -> Iterator[Block]:
    """Every accuracy Case against the reference; one line where no image changed sides."""
    ledgers, left_out = against_reference(run)
    if run.reference is None or not (ledgers or left_out):
        return
    cases = [ledger.other.case for ledger in ledgers]
    base, *names = flips.short_names([run.reference.case, *cases])
    yield Heading("Flips")
    if any(ledger.n_flips for ledger in ledgers):
        yield Note(f"Images whose top-1 class differs from that of {base}, the base.", "paragraph")
        yield from _flips_of(names, ledgers)
    elif ledgers:
        yield Note(flips.all_same(base, names, ledgers), "paragraph")
    yield from notes(f"{alone.case.label} is not compared: {alone.reason}" for alone in left_out)


def _flips_of(names: Sequence[str], ledgers: Sequence[FlipLedger]) -> Iterator[Block]:
    yield flips.ledgers_table("", names, ledgers, flips.REPORT)
    yield from notes([*flips.how_to_read(ledgers), *flips.lines(names, ledgers)])
    yield from flips.flips_tables(names, ledgers, FLIPS_SHOWN)


def _warnings(info: Mapping[str, Any]) -> Iterator[Block]:
    warnings = info.get("warnings") or ()
    if warnings:
        yield Heading("What may have disturbed the measurement")
        yield from notes(f"{warning.get('text', '')}. {warning.get('advice', '')}" for warning in warnings)


def _bad_images(info: Mapping[str, Any]) -> Iterator[Block]:
    bad = info.get("bad_images") or ()
    if bad:
        yield Heading("Unreadable images")
        files = f"{len(bad)} file{'s' if len(bad) > 1 else ''}"
        yield Note(f"{files} could not be decoded and took no part.", "paragraph")
        yield from notes(f"{image['image_id']}: {image['reason']}" for image in bad[:BAD_IMAGES_SHOWN])
        if len(bad) > BAD_IMAGES_SHOWN:
            yield Note(f"and {len(bad) - BAD_IMAGES_SHOWN} more, listed in cases.jsonl")


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
