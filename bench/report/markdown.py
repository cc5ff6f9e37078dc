"""``report.md``: the run for people, and for pull requests."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.accuracy.flips import FlipLedger
from bench.analysis.accuracy.pairing import against_reference
from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.accuracy.waterfall import steps as waterfall_steps
from bench.record.files import write_text
from bench.report import builds, flips, waterfall
from bench.report.sentences import dataset_line, host_line, one_line, summary, watermarks
from bench.report.tables import Table, tables
from scarlet.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME: str = "report.md"

# A broken set may have thousands; all of them are in cases.jsonl.
BAD_IMAGES_SHOWN = 20
# Enough to look at; `scarlet-bench compare` lists as many as are asked for.
FLIPS_SHOWN = 5


def write(frame: pd.DataFrame, info: Mapping[str, Any], path: Path) -> None:
    """Writes the report. See ``bench.report.Format``; the predictions are those of the run in the folder of ``path``.

    A ledger does not fit a frame with a Case a row, so that flips are made from the predictions here.
    """
    write_text(path, "\n".join(_lines(frame, info, ScoredRun.open(path.parent))) + "\n")


def escaped(text: str) -> str:
    """Text from outside, on one line, that Markdown and HTML show as it is."""
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`|*\[\]~$])", r"\\\1", text)
    # Underscores inside a word are never emphasis: scarlet_c stays readable in the source.
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _lines(frame: pd.DataFrame, info: Mapping[str, Any], run: ScoredRun) -> Iterator[str]:
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
        yield from markdown_table(table)
    yield from _builds(frame, run)
    yield from _waterfall(run)
    yield from _flips(run)
    yield from _warnings(info)
    yield from _bad_images(info)
    yield from _remake(info)


def _builds(frame: pd.DataFrame, run: ScoredRun) -> Iterator[str]:
    """What several builds of one plan differ in; nothing where there is one of each."""
    found = builds.lines(frame, run)
    if found:
        yield from ("", "## Builds", "", *(f"- {escaped(line)}" for line in found))


def markdown_table(table: Table, level: str = "##") -> Iterator[str]:
    """A heading, the table and its notes, line by line."""
    yield ""
    yield f"{level} {escaped(table.title)}"
    yield ""
    yield from _cells(table)
    if table.notes:
        yield ""
        for note in table.notes:
            yield f"- {escaped(note)}"


def _cells(table: Table) -> Iterator[str]:
    yield _row(table.header)
    yield _row("---:" if numeric else "---" for numeric in table.numeric)
    for cells in table.rows:
        yield _row(escaped(cell) for cell in cells)


def _waterfall(run: ScoredRun) -> Iterator[str]:
    """Who lost accuracy, step by step; nothing where one step is all there is, which the table above shows as well."""
    try:
        steps = waterfall_steps(run)
    except BenchError:
        return  # the section on flips says what is wrong with the predictions
    drawn = waterfall.table(steps) if max((step.depth for step in steps), default=0) > 1 else None
    if drawn is None:
        return
    yield from markdown_table(drawn)
    demo = bool((run.info.get("dataset") or {}).get("is_demo"))
    figure = waterfall.write_figure(run.path, steps, demo)
    if figure is not None:
        yield ""
        yield f"![Bars from one step's top-1 to the next]({figure.relative_to(run.path).as_posix()})"


def _flips(run: ScoredRun) -> Iterator[str]:
    """Every accuracy Case against the reference; one line where no image changed sides."""
    ledgers, left_out = against_reference(run)
    if run.reference is None or not (ledgers or left_out):
        return
    cases = [ledger.other.case for ledger in ledgers]
    base, *names = flips.short_names([run.reference.case, *cases])
    yield ""
    yield "## Flips"
    yield ""
    if any(ledger.n_flips for ledger in ledgers):
        yield f"Images whose top-1 class differs from that of {escaped(base)}, the base."
        yield from _flips_of(names, ledgers)
    elif ledgers:
        n = min(ledger.n_images for ledger in ledgers)
        said = [f"On all {n:,} images {', '.join(names)} and {base} have the same top-1 class."]
        for name, ledger in zip(names, ledgers, strict=True):
            said += [f"{name}: {line}." for line in flips.one_sided(ledger)]
        yield escaped(" ".join(said))
    if left_out:
        yield ""
    for alone in left_out:
        yield f"- {escaped(alone.case.label)} is not compared: {escaped(alone.reason)}"


def _flips_of(names: Sequence[str], ledgers: Sequence[FlipLedger]) -> Iterator[str]:
    yield ""
    yield from _cells(flips.ledgers_table("", names, ledgers, flips.REPORT))
    yield ""
    yield from (f"- {escaped(line)}" for line in [*flips.how_to_read(ledgers), *flips.lines(names, ledgers)])
    for name, ledger in zip(names, ledgers, strict=True):
        if ledger.n_flips:
            shown = min(FLIPS_SHOWN, ledger.n_flips)
            title = f"{name}: {shown} of {ledger.n_flips:,} flips, the largest margin of the base first (class, margin)"
            yield from markdown_table(flips.flips_table(title, ledger, FLIPS_SHOWN), "###")


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
