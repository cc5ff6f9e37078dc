"""The forms of a report: which there are, for a run's folder and for any document."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.analysis.table import Loaded, load
from bench.record.files import write_text
from bench.record.raw_tables import kept_reads
from bench.report import data, markdown
from bench.report.document import Document
from bench.report.html import page
from bench.report.html.safety import rendered
from bench.report.latex import table
from bench.report.latex.escape import escaped
from bench.report.latex.layout import source
from scarlet.errors import BenchError


@dataclass(frozen=True)
class Format:
    """A form of a run's report.

    Attributes:
        write: writes the report in one step; the same run gives the same bytes. Raises BenchError where the disk is
            full or not writable.
    """

    file_name: str
    write: Callable[[Loaded, Path], None]


FORMATS: dict[str, Format] = {
    "csv": Format("table.csv", lambda run, path: data.write_csv(run.frame, path)),
    "parquet": Format("table.parquet", lambda run, path: data.write_parquet(run.frame, path)),
    "json": Format("table.json", lambda run, path: data.write_json(data.run_data(run), path)),
    "markdown": Format("report.md", markdown.write),
    "html": Format("report.html", page.write),
    "latex": Format("table.tex", table.write),
}


def write_all(run: Path | Loaded) -> dict[str, Path]:
    """Makes every report of a run anew from its raw files, in the run's folder.

    Returns:
        the file of each format by the format's name.

    Raises:
        BenchError: the folder holds no run, or cannot be written.
    """
    with kept_reads():
        loaded = run if isinstance(run, Loaded) else load(run)
        paths = {name: loaded.path / format_.file_name for name, format_ in FORMATS.items()}
        for name, path in paths.items():
            FORMATS[name].write(loaded, path)
    return paths


def write_document(document: Document, path: Path) -> list[Path]:
    """Writes a document; the suffix decides the form. The same document gives the same bytes.

    Args:
        path: ``.md``, ``.json``, ``.csv``, ``.parquet``, ``.tex`` or ``.html``. Of csv and parquet, which hold one
            table a file, further tables get their names added: ``flips.csv``, ``flips-images.csv``.

    Returns:
        the files written.

    Raises:
        BenchError: the suffix is not known, or the disk is full or not writable.
    """
    return _writer(path)(document, path)


def check_target(path: Path) -> None:
    """Refuses a file that cannot be, before anything slow begins.

    Raises:
        BenchError: the suffix is not known, or the folder does not exist.
    """
    _writer(path)
    if not path.parent.is_dir():
        raise BenchError(f"--out {path}: there is no folder {path.parent}", "Make the folder first.")


def _writer(path: Path) -> Callable[[Document, Path], list[Path]]:
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise BenchError(f"--out {path}: no form has this suffix", f"Name a file that ends in {', '.join(WRITERS)}.")
    return writer


def _markdown(document: Document, path: Path) -> list[Path]:
    write_text(path, "\n".join(markdown.document_lines(document)) + "\n")
    return [path]


def _latex(document: Document, path: Path) -> list[Path]:
    """A float for each table, with the demo mark and its notes below; where there is none a list of the sentences."""
    name = re.sub(r"[^A-Za-z0-9-]+", "-", path.stem).strip("-") or "table"
    written = [
        source(shown, f"{shown.title or document.title}.", f"tab:{name}-{number}", watermarks=document.marks)
        for number, shown in enumerate(document.tables, start=1)
    ]
    if written:
        written += [f"% {escaped(line)}\n" for line in document.lines]
    else:
        lines = [*document.marks, *document.lines]
        items = "\n".join(rf"\item {escaped(line, breakable=True)}" for line in lines)
        written = [f"\\begin{{itemize}}\n{items}\n\\end{{itemize}}\n"]
    write_text(path, "\n".join(written))
    return [path]


def _html(document: Document, path: Path) -> list[Path]:
    write_text(path, rendered("document.html.j2", document=document))
    return [path]


WRITERS: dict[str, Callable[[Document, Path], list[Path]]] = {
    ".md": _markdown,
    ".json": data.write_document,
    ".csv": data.write_document,
    ".parquet": data.write_document,
    ".tex": _latex,
    ".html": _html,
}
