"""What the command line does where its output, its folder or a run's record is not as it should be."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
import typer
from folders import ROOT
from typer.testing import CliRunner

from bench.cli import app
from bench.commands import show
from bench.commands.baseline import keep
from bench.record.run_folder import RunFolder
from scarlet.errors import BenchError, MachineError
from tests.faults.flips import make_run

# What a command does: it prints, works, prints for programs, and ends with a code of its own.
PROGRAM = """
import sys
from pathlib import Path
from bench import cli
from bench.commands.show import console_for

def work():
    for number in range(3):
        console_for(False).print("caf\\u00e9 \\udcff" + "x" * 9_000, markup=False, soft_wrap=True)
    Path("done").touch()
    sys.exit(3)

cli.main(work)
"""


def run(folder: Path, *words: str, stdout: int | IO[bytes], **more: object) -> tuple[int, str, bool]:
    """Exit code, what was written to standard error, and whether the work was done."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", PROGRAM, *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=stdout, stderr=subprocess.PIPE, check=False, **more
    )  # type: ignore[call-overload]
    return done.returncode, done.stderr.decode(), (folder / "done").exists()


@pytest.mark.parametrize("how", ["no reader", "closed", "full"])
def test_a_command_works_on_where_its_output_goes_away(tmp_path: Path, how: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open("/dev/full", "wb") as full, open(writer, "wb", closefd=True) as unread:
        stdout = full if how == "full" else unread
        more = {"preexec_fn": lambda: os.close(1)} if how == "closed" else {}
        code, said, done = run(tmp_path, stdout=stdout, **more)
    assert done
    assert (code, len(said.splitlines())) == ((2, 2) if how == "full" else (3, 0))


@pytest.mark.parametrize(
    ("raised", "code"), [("OSError(28, 'no space', '/tmp/x')", 2), ("OSError(24, 'files')", 2), ("KeyError(1)", 1)]
)
def test_what_the_system_refuses_is_two_lines(raised: str, code: int) -> None:
    script = f"from bench import cli\ndef work(): raise {raised}\ncli.main(work)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert ("Traceback" in done.stderr) == (code == 1), "a bug of ours keeps its traceback"
    assert len(done.stderr.splitlines()) == 2 or code == 1


def test_a_folder_that_is_gone_under_the_user_is_two_lines(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"import os; os.rmdir({str(gone)!r})\nfrom bench import cli\ncli.main(lambda: 1 / 0)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=gone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: the current folder is gone\n")


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run", images=20, samples=30)


def verify(folder: RunFolder) -> tuple[int, list[list[str]]]:
    """Exit code, and what was said of each part."""
    answer = CliRunner().invoke(app, ["verify", str(folder.path), "--json"])
    return answer.exit_code, json.loads(answer.output)["tables"][0]["rows"]


def test_verify_reads_everything(folder: RunFolder) -> None:
    code, rows = verify(folder)
    assert code == 0
    assert [state for _, state in rows] == ["as it was written"] * 7
    assert [what for what, _ in rows][:3] == ["run.json", "images.json", "rounds.parquet"]
    (folder.path / "images.json").unlink()
    (folder.path / "samples.parquet").write_bytes(b"")
    with (folder.path / "cases.jsonl").open("a") as stream:
        stream.write("torn")
    code, rows = verify(folder)
    assert code == 1
    states = dict(map(tuple, rows))
    assert states["images.json"] == "images.json is missing"
    assert "line 5 left out" in states["cases.jsonl"]
    of_cases = [state for what, state in rows if "fp32" in what]
    assert of_cases[:2] == ["images.json is missing"] * 2
    assert all(state.startswith("samples.parquet cannot be read") for state in of_cases[2:])


def test_verify_says_what_nothing_vouches_for(folder: RunFolder) -> None:
    info = json.loads((folder.path / "run.json").read_text())
    del info["sha256"], info["digests"]
    (folder.path / "run.json").write_text(json.dumps(info))
    code, rows = verify(folder)
    assert code == 0
    assert [state for what, state in rows if what.endswith((".json", ".parquet"))] == ["written before digests"] * 3


def test_a_report_shows_its_tables_where_the_folder_cannot_be_written(folder, capsys):
    (folder.path / "table.csv").mkdir()
    with pytest.raises(MachineError, match="a folder of that name is in the way"):
        show.show_run(folder.path, show.console_for(False), as_json=False)
    assert "onnxruntime" in capsys.readouterr().out


def test_a_damaged_row_is_shown_as_invalid_and_is_no_baseline(folder: RunFolder, tmp_path: Path) -> None:
    (folder.path / "predictions.parquet").unlink()
    with pytest.warns(UserWarning, match="left out"):
        show.show_run(folder.path, show.console_for(False), as_json=True)
    table = json.loads((folder.path / "table.json").read_text())
    assert [row["status"] for row in table["cases"]] == ["invalid", "invalid", "ok", "ok"]
    assert "predictions.parquet is missing" in (folder.path / "report.md").read_text()
    with pytest.raises(BenchError):
        keep(folder.path, tmp_path / "b.json")


def test_a_baseline_is_of_the_run_that_is_named(folder: RunFolder, tmp_path: Path) -> None:
    said = keep(folder.path, tmp_path / "b.json")
    assert "20 images" in said.lines[0]
    assert json.loads((tmp_path / "b.json").read_text())["dataset"]["fingerprint"] == "feed"
    assert "--baseline" in [
        option
        for parameter in typer.main.get_command(app).commands["run"].params  # type: ignore[attr-defined]
        for option in parameter.opts
    ]
