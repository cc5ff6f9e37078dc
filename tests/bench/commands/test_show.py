"""bench.commands.show: every command shows one document, in every form."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bench.cli import app
from bench.commands.show import out_paths
from scarlet.errors import BenchError

# They hand their options on to `run`, or print a schema.
OTHERS = {"plan", "noise", "schema"}


def options(name: str) -> set[str]:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize("name", sorted({*typer.main.get_command(app).commands} - OTHERS))  # type: ignore[attr-defined]
def test_every_command_can_write_what_it_shows(name: str) -> None:
    assert "--out" in options(name)


def test_a_folder_and_a_document_are_told_by_the_suffix(tmp_path: Path) -> None:
    folder = tmp_path / "here.md"
    folder.mkdir()
    assert out_paths(None) == (None, None)
    assert out_paths(tmp_path / "run") == (tmp_path / "run", None)
    assert out_paths(tmp_path / "net.onnx") == (tmp_path / "net.onnx", None)
    assert out_paths(folder) == (folder, None)
    assert out_paths(tmp_path / "what.md") == (None, tmp_path / "what.md")
    with pytest.raises(BenchError, match="there is no folder"):
        out_paths(tmp_path / "gone" / "what.md")


def test_lines_are_a_document_in_every_form_too(tmp_path: Path) -> None:
    for suffix in (".md", ".html", ".tex", ".csv", ".json"):
        out = tmp_path / f"models{suffix}"
        done = CliRunner().invoke(app, ["models", "--out", str(out)])
        assert (done.exit_code, f"written: {out}" in done.output.replace("\n", "")) == (0, True)
        assert "scarlet_c" in out.read_text().replace("\\", "")
    done = CliRunner().invoke(app, ["models", "--json"])
    assert json.loads(done.stdout) == json.loads((tmp_path / "models.json").read_text())
