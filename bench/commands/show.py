"""What commands have in common: exit codes, where to print, how a document or a run is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scarlet.errors import MachineError

if TYPE_CHECKING:
    from rich.console import Console

    from bench.report.document import Document

GOOD, NOT_OK, USER_ERROR, UNRESOLVED, INTERRUPTED = 0, 1, 2, 3, 130

LOG_WIDTH = 160

# For commands that hand their options on to another.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

Strict = Annotated[bool, typer.Option("--strict", help="Exit with 3, and not with 0, where it is unresolved.")]


def exit_code(verdict: str, strict: bool) -> int:
    """Of a verdict: what cannot be told is no fault of a change, and an annotation tells of it, unless asked for."""
    return {"pass": GOOD, "fail": NOT_OK, "unresolved": UNRESOLVED if strict else GOOD}[verdict]


Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of text.")]


def _checked(out: Path | None) -> Path | None:
    """Refuses a file that cannot be, before anything slow begins."""
    if out is not None:
        from bench.report.forms import check_target

        check_target(out)
    return out


Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        callback=_checked,
        help="Write it to a file as well, in the form of its suffix: .md, .html, .tex, .csv, .parquet, .json.",
    ),
]


def console_for(as_json: bool) -> Console:
    """Where people read: standard output, or standard error when that is taken by JSON."""
    from bench.report.terminal import Terminal

    console = Terminal(stderr=as_json, markup=False)
    # A pipe or a log has no width; rich would break lines and tables at 80 columns.
    return console if console.is_terminal else Terminal(stderr=as_json, markup=False, width=LOG_WIDTH)


def out_paths(out: Path | None) -> tuple[Path | None, Path | None]:
    """What ``--out`` names, of commands that also write a folder or a file of their own.

    Returns:
        the path for that; and the file for the document, where the suffix is that of a form.

    Raises:
        BenchError: the file cannot be.
    """
    from bench.report.forms import WRITERS, check_target

    if out is None or out.is_dir() or out.suffix.lower() not in WRITERS:
        return out, None
    check_target(out)
    return None, out


def show(document: Document, out: Path | None, as_json: bool, written: Iterable[str] = (), data: Any = None) -> None:
    """Shows what a command has to say, and writes it to a file where one is named.

    Args:
        out: the file; its suffix decides the form.
        written: lines on files that the command wrote besides, for people.
        data: what to print as JSON where that is not all of ``document.data``.

    Raises:
        BenchError: the file cannot be written.
    """
    from bench.report import terminal
    from bench.report.document import as_data

    if out is not None:
        from bench.report.forms import write_document  # takes long to import

        written = [*written, *(f"written: {path}" for path in write_document(document, out))]
    if as_json:
        typer.echo(json.dumps(as_data(document) if data is None else data, allow_nan=False))
    console = console_for(as_json)
    if not as_json:
        terminal.show(document, console)
    for line in written:
        terminal.printer(console)(line)


def show_run(run: Path, console: Console, as_json: bool, out: Path | None = None) -> None:
    """Writes the reports of a run and prints its table; with ``out`` its report in the form of that suffix too."""
    from bench.analysis.table import load
    from bench.record.raw_tables import kept_reads
    from bench.report.forms import FORMATS, write_all
    from bench.report.terminal import print_tables, printer

    with kept_reads():
        loaded = load(run.resolve())
        refused = None
        try:
            write_all(loaded)
        except MachineError as error:  # the tables are shown all the same
            refused = error
        if out is not None:
            by_suffix = {Path(form.file_name).suffix: form for form in FORMATS.values()}
            by_suffix[out.suffix.lower()].write(loaded, out)
    if as_json:
        records = json.loads(loaded.frame.to_json(orient="records"))
        typer.echo(json.dumps({"run": str(loaded.path), "cases": records}))
    else:
        print_tables(loaded.frame, loaded.info, console)
    if refused is not None:
        raise refused
    if not as_json:
        printer(console)(f"report: {loaded.path / FORMATS['html'].file_name}")
