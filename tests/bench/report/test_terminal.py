"""No name of a file's steers a terminal, or hides in a report: whatever it is part of, and whichever way it leaves."""

import io
import os
import warnings
from pathlib import Path

import pandas as pd
import pytest
import typer
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from bench import cli
from bench.record.files import DamagedRunWarning, write_text
from bench.report.data import write_csv
from bench.report.document import Document, Note
from bench.report.forms import write_document
from bench.report.terminal import Terminal
from scarlet.errors import BenchError, visible

HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9b31m\r\x7f\u202eb\u2066c\u2028d\udce9[/x]\x00"
SEEN = "a\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\r\\x7f\\u202eb\\u2066c\\u2028d\\udce9[/x]\\x00"


def hidden(text: str) -> set[str]:
    return {sign for sign in HOSTILE if not sign.isascii() or not sign.isprintable()} & {*text}


def test_what_is_plain_stays_as_it_is() -> None:
    assert visible("tabs\tand lines\n, Größe, 日本, 🦜") == "tabs\tand lines\n, Größe, 日本, 🦜"
    assert visible(HOSTILE) == SEEN


@pytest.mark.parametrize("on_terminal", [True, False])
def test_the_console_shows_names_and_obeys_none(on_terminal: bool) -> None:
    console = Terminal(file=io.StringIO(), force_terminal=on_terminal, width=300, markup=False, color_system=None)
    table = Table(HOSTILE)
    table.add_row(Text(HOSTILE))
    console.print(HOSTILE, highlight=False, soft_wrap=True)
    console.print(table)
    console.print(Text(HOSTILE))
    with Progress(TextColumn("{task.description}", markup=False), console=console) as bars:
        bars.add_task(HOSTILE)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert hidden(said) <= ({"\x1b", "\r"} if on_terminal else set()), "rich's own move the cursor"
    assert said.count("owned") >= 4


def test_error_lines_show_names_and_are_two(capsys: pytest.CaptureFixture[str]) -> None:
    program = typer.Typer()

    @program.command()
    def fails() -> None:
        raise BenchError(f"no {HOSTILE}\nerror: forged", "Mend it.")

    with pytest.raises(SystemExit):
        cli.main(lambda: program([], standalone_mode=False))  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert not hidden(said)
    assert said.count("\n") == 2


def test_warnings_of_damage_are_a_line_without_hidden_signs() -> None:
    cli.main(lambda: None)  # type: ignore[arg-type]
    said = warnings.formatwarning(DamagedRunWarning(f"{HOSTILE} left out"), DamagedRunWarning, "", 0)
    assert said.startswith("warning: a\\x1b")
    assert (hidden(said), said.count("\n")) == (set(), 1)


def test_a_current_folder_that_is_gone_is_a_mistake(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit):
        cli.main(lambda: None)  # type: ignore[arg-type]
    assert "the current folder is gone" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)


def test_a_full_standard_output_stops_nothing_and_is_said(monkeypatch, capsys):
    done: list[int] = []

    def program() -> None:
        for number in range(3):
            print("a line", flush=True)
            Terminal().print("another")
            done.append(number)

    with Path("/dev/full").open("w") as full, monkeypatch.context() as here:
        here.setattr("sys.stdout", full)
        with pytest.raises(SystemExit) as ended:
            cli.main(program)  # type: ignore[arg-type]
    assert (done, ended.value.code) == ([0, 1, 2], 2)
    assert "No space left" in capsys.readouterr().err
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, monkeypatch.context() as here:
        here.setattr("sys.stdout", pipe)
        cli.main(program)  # type: ignore[arg-type]
    assert (len(done), capsys.readouterr().err) == (6, "")


def test_files_show_names(tmp_path: Path) -> None:
    write_text(tmp_path / "x.txt", HOSTILE)
    write_csv(pd.DataFrame({"name": [HOSTILE]}, dtype=object), tmp_path / "x.csv")
    document = Document(HOSTILE, [Note(HOSTILE)])
    for name in ("x.md", "x.html", "x.tex"):
        write_document(document, tmp_path / name)
    for path in tmp_path.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not hidden(text), path.name
        assert "owned" in text, path.name
