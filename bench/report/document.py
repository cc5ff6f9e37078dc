"""Tables of text as a file: what a command shows, in the form that a file's name asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.record.files import atomic_file, encodable, write_text
from bench.report.data import safe_cell
from bench.report.markdown import escaped, markdown_table
from bench.report.tables import Table
from scarlet.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Document:
    """What a command shows, for any form.

    Attributes:
        title: of the whole.
        tables: in order.
        lines: sentences below them.
        marks: what must be said before anything else, such as that data are a demo.
        data: the same for machines, as JSON types.
        frames: the same as tidy tables by name; the first is the main one.
    """

    title: str
    tables: Sequence[Table]
    lines: Sequence[str] = ()
    marks: Sequence[str] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def write(document: Document, path: Path) -> list[Path]:
    """Writes a document; the suffix decides the form. The same document gives the same bytes.

    Args:
        document: what to write.
        path: ``.md``, ``.json``, ``.csv``, ``.parquet``, ``.tex`` or ``.html``. Of csv and parquet, which hold one
            table a file, further tables get their names added: ``flips.csv``, ``flips-images.csv``.

    Returns:
        the files written.

    Raises:
        BenchError: the suffix is not known, or the disk is full or not writable.
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise BenchError(
            f"--out {path}: no form has this suffix", f"Name a file that ends in {', '.join(WRITERS)}."
        )
    return writer(document, path)


def check_target(path: Path) -> None:
    """Refuses a file that cannot be, before anything slow begins.

    Raises:
        BenchError: the suffix is not known, or the folder does not exist.
    """
    if path.suffix.lower() not in WRITERS:
        raise BenchError(
            f"--out {path}: no form has this suffix", f"Name a file that ends in {', '.join(WRITERS)}."
        )
    if not path.parent.is_dir():
        raise BenchError(f"--out {path}: there is no folder {path.parent}", "Make the folder first.")


def _markdown(document: Document, path: Path) -> list[Path]:
    lines = [f"# {escaped(document.title)}"]
    for mark in document.marks:
        lines += ["", f"> **{escaped(mark)}**"]
    for table in document.tables:
        lines += markdown_table(table)
    if document.lines:
        lines += ["", *(f"- {escaped(line)}" for line in document.lines)]
    write_text(path, "\n".join(lines) + "\n")
    return [path]


def _json(document: Document, path: Path) -> list[Path]:
    write_text(path, json.dumps(document.data, indent=1, sort_keys=True, allow_nan=False) + "\n")
    return [path]


def _csv(document: Document, path: Path) -> list[Path]:
    written = []
    for target, frame in _files(document, path):
        safe = frame.copy()
        for column in safe.columns:
            if safe[column].dtype.kind not in "biuf":
                safe[column] = safe[column].map(
                    lambda cell: safe_cell(encodable(cell)) if isinstance(cell, str) else cell
                )
        write_text(target, safe.to_csv(index=False, lineterminator="\n"))
        written.append(target)
    return written


def _parquet(document: Document, path: Path) -> list[Path]:
    written = []
    for target, frame in _files(document, path):
        with atomic_file(target) as stream:
            frame.to_parquet(stream, index=False, compression="zstd")
        written.append(target)
    return written


def _files(document: Document, path: Path) -> list[tuple[Path, pd.DataFrame]]:
    """A file for each table; the first has the name that was asked for."""
    names = [path, *(path.with_name(f"{path.stem}-{name}{path.suffix}") for name in [*document.frames][1:])]
    return list(zip(names, document.frames.values(), strict=True))


def _latex(document: Document, path: Path) -> list[Path]:
    """A float for each table; the demo mark and the notes stand below it."""
    from bench.report.latex.escape import escaped as tex
    from bench.report.latex.layout import Cell, Column, TexTable, source

    name = re.sub(r"[^A-Za-z0-9-]+", "-", path.stem).strip("-") or "table"
    written = [
        source(
            TexTable(
                columns=[
                    Column(header, "r" if numeric else "l")
                    for header, numeric in zip(table.header, table.numeric, strict=True)
                ],
                rows=[[Cell(text) for text in row] for row in table.rows],
                caption=f"{table.title}.",
                label=f"tab:{name}-{number}",
                watermarks=document.marks,
                notes=[f"{note}." for note in table.notes],
            )
        )
        for number, table in enumerate(document.tables, start=1)
    ]
    written += [f"% {tex(line)}\n" for line in document.lines]
    write_text(path, "\n".join(written))
    return [path]


def _html(document: Document, path: Path) -> list[Path]:
    from bench.report.html.page import PAGE
    from bench.report.html.safety import content_policy, environment, inlined

    style = inlined((PAGE / "style.css").read_text(encoding="utf-8"))
    page = environment().get_template("document.html.j2")
    write_text(path, page.render(document=document, style=style, policy=content_policy()))
    return [path]


WRITERS: dict[str, Callable[[Document, Path], list[Path]]] = {
    ".md": _markdown,
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".tex": _latex,
    ".html": _html,
}
