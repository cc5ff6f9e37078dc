"""The command of the GPU check: the GPU that it finds, the folder that it makes, its output and exit code."""

import json
import subprocess
from datetime import date
from typing import Any

import pytest
from typer.testing import CliRunner

from scarlet.errors import BenchError
from tests.gpu.acceptance import __main__, summary
from tests.gpu.acceptance.__main__ import app, exit_code, find_gpu, folder_name
from tests.gpu.acceptance.judge import Figure
from tests.gpu.acceptance.steps import Record, Runner

H200 = {"name": "NVIDIA H200", "capability": "9.0", "torch": "2.13.0", "cuda": "13.0"}


@pytest.mark.parametrize(
    ("stdout", "stderr", "words"),
    [
        (f"a warning\n{json.dumps(H200)}\n", "", ""),
        ('{"torch": "2.13.0+cpu", "cuda": null}', "", r"PyTorch \(2\.13\.0\+cpu\) is a CPU build"),
        ('{"torch": "2.13.0", "cuda": "13.0"}', "", "sees no CUDA device"),
        ("", "Traceback\nModuleNotFoundError: No module named 'torch'", "No module named 'torch'"),
    ],
)
def test_the_gpu_or_why_there_is_none(stdout, stderr, words, monkeypatch):
    answer = subprocess.CompletedProcess([], int(bool(stderr)), stdout, stderr)
    monkeypatch.setattr(__main__.subprocess, "run", lambda *_, **__: answer)
    if not words:
        assert find_gpu() == H200
        return
    with pytest.raises(BenchError, match=words) as raised:
        find_gpu()
    assert "docs/gpu.md" in raised.value.do


def test_the_gpu_names_the_folder():
    assert folder_name("NVIDIA H200", date(2026, 11, 22)) == "nvidia-h200-2026-11-22"
    assert folder_name("../???", date(2026, 1, 2)) == "gpu-2026-01-02"


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [((), 1), (("not run",), 1), (("met", "not run"), 0), (("measured",), 0), (("met", "not met"), 1)],
)
def test_the_exit_code(verdicts, code):
    assert exit_code([Figure("a", "b", "c", None, verdict) for verdict in verdicts]) == code


def test_mistakes_and_a_missing_gpu_write_nothing(tmp_path, monkeypatch):
    def none() -> None:
        raise BenchError("there is no GPU to check: PyTorch sees no CUDA device", __main__.DO)

    monkeypatch.setattr(__main__, "find_gpu", none)
    for minutes, words in (("8", "sees no CUDA device"), ("0", "--minutes 0")):
        answer = CliRunner().invoke(app, ["--minutes", minutes, "--out", str(tmp_path / "published")])
        assert isinstance(answer.exception, BenchError)
        assert words in answer.exception.what
        assert list(tmp_path.iterdir()) == []


def test_the_command_carries_out_and_judges(tmp_path, monkeypatch):
    monkeypatch.setattr(__main__, "find_gpu", lambda: H200)
    seen: dict[str, Any] = {}

    def pretend(self: Runner, steps: Any) -> list[Record]:
        seen.update(names=[step.name for step in steps], minutes=self.minutes)
        with monkeypatch.context() as patched:
            patched.setattr(summary, "write", lambda *_: 1 / 0)
            self.after([Record("doctor", "ok")])
        return [Record("doctor", "ok")]

    monkeypatch.setattr(Runner, "carry_out", pretend)
    answer = CliRunner().invoke(app, ["--out", str(tmp_path), "--minutes", "5", "--quick"])
    assert answer.exit_code == 1, "nothing was measured"
    assert seen["minutes"] == 5.0
    assert "latency-256" not in seen["names"]
    (folder,) = list(tmp_path.iterdir())
    assert folder.name.startswith("nvidia-h200-20")
    assert "not run  tests that need a GPU: no figure" in answer.output
    assert "cannot be written yet: division by zero" in answer.output, "and the check goes on"
    (folder,) = tmp_path.iterdir()
    (folder / "steps.json").write_text("[]")
    as_json = CliRunner().invoke(app, ["--out", str(folder), "--json"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name], "it is gone on with, whatever the day"
    assert json.loads(as_json.stdout)["gpu"] == H200
    assert list(tmp_path.iterdir()) == [folder], "the folder of today is gone on with"
