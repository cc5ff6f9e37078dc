"""table.tex goes through a real TeX engine: no error, nothing beyond the width of a double-column page."""

import shutil
import subprocess
from pathlib import Path

import pytest
from folders import GOLDEN
from latex_run import HOSTILE, compiled, complaints, paper_run
from report_run import add_samples, case, end, make_run

from bench.analysis.table import load
from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.report.document import Cell, Head, Table
from bench.report.latex import table as latex
from bench.report.latex.layout import source

LATEX = GOLDEN / "latex"


def made(folder: RunFolder, **options: str) -> str:
    path = folder.path / "table.tex"
    latex.write(load(folder.path), path, latex.Options(**options))
    return path.read_text(encoding="utf-8")


def printed(pdf: Path) -> str:
    """The text of the pages, where a reader of PDF is installed."""
    if shutil.which("pdftotext") is None:
        return ""
    return subprocess.run(["pdftotext", "-layout", pdf, "-"], capture_output=True, text=True, check=True).stdout


def test_the_golden_tables_compile_within_the_page(tmp_path: Path) -> None:
    log, pdf = compiled(tmp_path, *(path.read_text() for path in sorted(LATEX.glob("*.tex"))))
    assert complaints(log) == []
    text = printed(pdf)
    assert not text or "ONNX Runtime" in text


def test_hostile_text_an_empty_run_and_a_chosen_few_columns_compile(tmp_path: Path) -> None:
    """In one document, as each start of TeX takes a second."""
    nasty = case(model=f"onnx:{HOSTILE}.onnx", options=(("o", HOSTILE),), weights="user")
    odd = case(model="[x]*", weights="user")
    hostile = make_run(tmp_path / "hostile", [odd, nasty], {"command": ["run", HOSTILE]})
    add_samples(hostile, odd, [1_234_567] * 30)
    end(hostile, odd, stage=HOSTILE)
    end(hostile, nasty, Status.FAILED, reason=HOSTILE + "/very/long/path" * 9 + "f" * 90)
    empty = make_run(tmp_path / "empty", [], {"host": {}, "dataset": {}, "packages": {}, "git": None, "command": []})
    few = paper_run(tmp_path / "few", {"pytorch": 1.0, "onnxruntime": 0.5})
    log, pdf = compiled(
        tmp_path / "tex",
        made(hostile, caption=HOSTILE),
        made(empty),
        made(few, columns="backend,batch,latency", label="tab:few"),
    )
    assert complaints(log) == []
    text = printed(pdf)
    if text:
        assert "no Case was planned" in text
        assert "b%#&" in text
        assert "root:" not in text


def test_bold_digits_are_bold(tmp_path: Path) -> None:
    """The fonts of the page tell: without bold digits there is no bold roman font in it."""
    if shutil.which("pdffonts") is None:
        pytest.skip("no pdffonts: install poppler-utils")
    found = []
    for bold in (False, True):
        table = source(
            Table("", (Head("x"),), ((Cell("12.5", value=1, mark="best" * bold),), (Cell("13.25", value=1),))), "c", "l"
        )
        _, pdf = compiled(tmp_path / str(bold), table)
        fonts = subprocess.run(["pdffonts", pdf], capture_output=True, text=True, check=True).stdout
        found.append("CMBX" in fonts)
    assert found == [False, True]
