"""Comparisons as files: every form, twice the same, safe with hostile names."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest
from report_run import add_predictions, case, end, make_run
from typer.testing import CliRunner

from bench.cli import app
from bench.report.document import Cell, Column, Document, Head, Note, table_of
from bench.report.forms import WRITERS, check_target, write_document
from scarlet.errors import BenchError

BASE = case(scenario="accuracy", batch=2)
OTHER = case(scenario="accuracy", batch=2, backend="onnxruntime")
HOSTILE = "=cmd|' /C calc'!A0"

COLUMNS: list[Column[tuple[str, float]]] = [
    Column(Head("A"), lambda row: row[0]),
    Column(Head("B", True), lambda row: Cell(f"{row[1]:.1f}", "0 to 9", row[1])),
    Column(Head("C"), lambda row: "", "known"),
    Column(Head("D"), lambda row: "same", "varies"),
]
TABLE = table_of("What", COLUMNS, [("x|y", 1.25)], ("a note",))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = make_run(tmp_path / "run", [BASE, OTHER])
    add_predictions(made, BASE, {HOSTILE: (0, (0, 1)), "b<i>.jpg": (1, (1, 0)), "c.jpg": (1, (1, 0))})
    add_predictions(made, OTHER, {HOSTILE: (0, (1, 0)), "b<i>.jpg": (1, (0, 1)), "c.jpg": (1, (1, 0))})
    for each in (BASE, OTHER):
        end(made, each)
    return made.path


@pytest.mark.parametrize("suffix", WRITERS)
def test_compare_in_every_form(run: Path, tmp_path: Path, suffix: str) -> None:
    written = []
    for name in ("one", "two"):
        out = tmp_path / name / f"flips{suffix}"
        out.parent.mkdir()
        done = CliRunner().invoke(app, ["compare", str(run), "--out", str(out)])
        assert done.exit_code == 0, done.output
        written.append({path.name: path.read_bytes() for path in sorted(out.parent.iterdir())})
    assert written[0] == written[1], "the same bytes twice"
    assert f"flips{suffix}" in written[0]


def test_markdown_and_csv_show_hostile_names_as_they_are(run: Path, tmp_path: Path) -> None:
    for suffix in (".md", ".csv"):
        CliRunner().invoke(app, ["compare", str(run), "--out", str(tmp_path / f"flips{suffix}")])
    text = (tmp_path / "flips.md").read_text()
    assert "b&lt;i&gt;.jpg" in text
    assert "b<i>" not in text
    rows = list(csv.DictReader((tmp_path / "flips-images.csv").open()))
    assert {row["image_id"] for row in rows} == {f"'{HOSTILE}", "b<i>.jpg"}
    (ledger,) = csv.DictReader((tmp_path / "flips.csv").open())
    assert (ledger["n_images"], ledger["n_flips"], ledger["top1_losses"]) == ("3", "2", "2")


def test_parquet_and_json_hold_every_flip(run: Path, tmp_path: Path) -> None:
    for suffix in (".parquet", ".json"):
        CliRunner().invoke(app, ["compare", str(run), "--flips", "0", "--out", str(tmp_path / f"flips{suffix}")])
    images = pd.read_parquet(tmp_path / "flips-images.parquet")
    assert sorted(images["image_id"]) == sorted([HOSTILE, "b<i>.jpg"])
    assert set(images["other_case_id"]) == {OTHER.case_id}
    told = json.loads((tmp_path / "flips.json").read_text())
    assert len(told["ledgers"][0]["flips"]) == 2


def test_html_and_latex_escape_hostile_names(run: Path, tmp_path: Path) -> None:
    for suffix in (".html", ".tex"):
        done = CliRunner().invoke(app, ["compare", str(run), "--out", str(tmp_path / f"flips{suffix}")])
        assert done.exit_code == 0, done.output
    page = (tmp_path / "flips.html").read_text()
    assert "b&lt;i&gt;.jpg" in page
    assert "<i>" not in page
    assert "default-src 'none'" in page.replace("&#39;", "'")
    tex = (tmp_path / "flips.tex").read_text()
    assert r"\textless{}i" in tex or "$<$i" in tex or r"b\textless" in tex, tex
    assert tex.count(r"\begin{table") == tex.count(r"\end{table")


@pytest.mark.parametrize("name", ["flips.docx", "flips", "nowhere/flips.md"])
def test_a_file_that_cannot_be_is_refused_first(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(BenchError, match="--out"):
        check_target(tmp_path / name)
    if "/" not in name:
        with pytest.raises(BenchError, match="no form has this suffix"):
            write_document(Document(""), tmp_path / name)


def test_marks_and_lines_are_kept(tmp_path: Path) -> None:
    document = Document("Title", [Note("demo data", "mark"), TABLE, Note("a line")])
    (path,) = write_document(document, tmp_path / "out.md")
    text = path.read_text()
    assert "> **demo data**" in text
    assert r"x\|y" in text
    assert "- a line" in text
    assert "- a note" in text


def test_a_table_has_the_columns_that_are_worth_their_room() -> None:
    assert TABLE.header == ("A", "B")
    assert TABLE.rows == (("x|y", "1.2 (0 to 9)"),)


@pytest.mark.parametrize("suffix", WRITERS)
def test_any_document_is_written_in_every_form(tmp_path: Path, suffix: str) -> None:
    for name, document in (("table", Document("Title", [TABLE])), ("lines", Document("Title", [Note("a line")]))):
        (path,) = write_document(document, tmp_path / f"{name}{suffix}")
        assert path.stat().st_size > 0
    if suffix == ".csv":
        assert (tmp_path / "table.csv").read_text() == "A,B\nx|y,1.25\n"
    if suffix == ".json":
        data = json.loads((tmp_path / "table.json").read_text())
        assert data["tables"] == [
            {"title": "What", "columns": ["A", "B"], "rows": [["x|y", 1.25]], "notes": ["a note"]}
        ]
