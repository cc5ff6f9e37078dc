"""``report.md``: the run for people, and for pull requests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.files import write_text
from bench.report.format import Table, tables
from bench.report.sentences import dataset_line, host_line, one_line, summary, watermarks

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME: str = "report.md"

# A broken set may have thousands; all of them are in cases.jsonl.
BAD_IMAGES_SHOWN = 20


def write(frame: pd.DataFrame, info: Mapping[str, Any], path: Path) -> None:
    """Writes the report. See ``bench.report.Format``."""
    write_text(path, "\n".join(_lines(frame, info)) + "\n")


def escaped(text: str) -> str:
    """Text from outside, on one line, that Markdown and HTML show as it is."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`|*\[\]~$])", r"\\\1", text)
    # Underscores inside a word are never emphasis: scarlet_c stays readable in the source.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _lines(frame: pd.DataFrame, info: Mapping[str, Any]) -> Iterator[str]:
    models = ", ".join(dict.fromkeys(frame["model"])) or "no Case"
    yield f"# scarlet-bench: {escaped(models)}"
    yield ""
    for mark in watermarks(frame, info):
        yield f"> **{escaped(mark)}**"
        yield ""
    yield escaped(summary(frame))
    yield ""
    yield f"- Host: {escaped(host_line(info))}"
    yield f"- Images: {escaped(dataset_line(info))}"
    if info.get("created_at"):
        yield f"- Started: {escaped(str(info['created_at']))}"
    for table in tables(frame, info):
        yield from _table(table)
    yield from _warnings(info)
    yield from _bad_images(info)
    yield from _remake(info)


def _table(table: Table) -> Iterator[str]:
    yield ""
    yield f"## {table.title}"
    yield ""
    yield _row(table.header)
    yield _row("---:" if numeric else "---" for numeric in table.numeric)
    for cells in table.rows:
        yield _row(escaped(cell) for cell in cells)
    if table.notes:
        yield ""
        for note in table.notes:
            yield f"- {escaped(note)}"


def _row(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _warnings(info: Mapping[str, Any]) -> Iterator[str]:
    warnings = info.get("warnings") or ()
    if warnings:
        yield ""
        yield "## What may have disturbed the measurement"
        yield ""
        for warning in warnings:
            yield f"- {escaped(str(warning.get('text', '')))}. {escaped(str(warning.get('advice', '')))}"


def _bad_images(info: Mapping[str, Any]) -> Iterator[str]:
    bad = info.get("bad_images") or ()
    if bad:
        yield ""
        yield "## Unreadable images"
        yield ""
        yield f"{len(bad)} file{'s' if len(bad) > 1 else ''} could not be decoded and took no part."
        yield ""
        for image in bad[:BAD_IMAGES_SHOWN]:
            yield f"- {escaped(image['image_id'])}: {escaped(image['reason'])}"
        if len(bad) > BAD_IMAGES_SHOWN:
            yield f"- and {len(bad) - BAD_IMAGES_SHOWN} more, listed in cases.jsonl"


def _remake(info: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## How this was made"
    yield ""
    command = [str(word) for word in info.get("command") or ()]
    if command:
        line = shlex.join([Path(command[0]).name, *command[1:]])
        # A fence longer than any run of backticks in it cannot be closed from inside.
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
        yield f"{fence}sh"
        yield line
        yield fence
        yield ""
    yield "Times are medians of single calls with the 95 % order-statistic interval; every figure is derived from"
    yield "`samples.parquet` and `predictions.parquet`. Run `scarlet-bench report .` in this folder to remake this"
    yield "page and the tables."
