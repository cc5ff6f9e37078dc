"""The command of the GPU check: the GPU that it finds, the folder that it makes, its output and exit code."""

import io
import json
import subprocess
import tarfile
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_run
from typer.testing import CliRunner

from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.run.spec import RunSpec
from scarlet.errors import BenchError
from tests.gpu.acceptance import __main__, summary
from tests.gpu.acceptance.__main__ import app, exit_code, find_gpu, folder_name
from tests.gpu.acceptance.judge import Figure
from tests.gpu.acceptance.steps import HERE, HOME, Record, Runner, Step

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


@pytest.mark.parametrize(("status", "code"), [(Status.OK, 0), (Status.UNAVAILABLE, 1)])
def test_a_dry_run_asks_no_gpu_and_fails_where_a_package_is_missing(status, code, tmp_path, monkeypatch):
    monkeypatch.setattr(__main__, "find_gpu", lambda: pytest.fail("no GPU is asked for"))
    seen: list[Step] = []

    def pretend(self: Runner, steps: Any) -> list[Record]:
        seen.extend(steps)
        row = report_run.case(pipeline="dali")
        folder = report_run.make_run(self.folder / "accuracy", [row])
        report_run.end(folder, row, status, reason="" if status == Status.OK else "the package nvidia-dali is missing")
        return [Record(step.name, "ok") for step in steps]

    monkeypatch.setattr(Runner, "carry_out", pretend)
    answer = CliRunner().invoke(app, ["--out", str(tmp_path), "--dry-run"])
    assert answer.exit_code == code, answer.output
    assert {device for step in seen if step.plan for device in step.plan["devices"]} == {"cpu"}
    assert {step.name for step in seen if step.plan} == {"throughput", "accuracy", "graphs", "latency-1", "latency-64"}
    for step in seen:
        if step.plan:
            assert RunSpec(**step.plan).cases("demo")
            assert step.command(120.0)[-6:] == ["--budget", "4", "--lives", "1", "--timeout", "120"]


def test_the_packages_of_a_dry_run_are_pinned():
    lines = (HERE / "packages.txt").read_text().splitlines()
    names = {line for line in lines if line and not line.startswith("#")}
    for extra, other in (("cpu", {"triton", "nvidia-ml-py"}), ("gpu", {"onnxruntime"})):
        pins = (HOME / "constraints" / f"{extra}.txt").read_text().splitlines()
        assert names - {pin.partition("==")[0] for pin in pins} <= other


def test_results_are_packed_small_and_whole(tmp_path):
    """What six runs of a full check leave is far below one part; what is more is cut, and joined by cat."""
    folder = tmp_path / "nvidia-h200-2026-11-22"
    run = RunFolder.create(folder / "latency-1")
    n, noise = 100_000, np.random.default_rng(0)  # of batch 1: a step of 90 s measures for some 22 s in rows of 200 us
    for stage in ("compute", "enqueue"):
        run.write_samples_part(
            stage, round=np.sort(noise.integers(0, 40, n)).astype(np.int32), stage=stage,
            images=np.ones(n, np.int32), warmup=np.zeros(n, bool),
            latency_ns=noise.normal(200_000, 4_000, n).astype(np.int64) // 500 * 500,
        )  # fmt: skip
    parts = summary.pack(folder)
    assert len(parts) == 1
    assert 6 * 5 / 2 * parts[0].stat().st_size < summary.PART_BYTES == 16 * 2**20
    small = summary.pack(folder, 50_000)
    assert len(small) > 1
    assert {part.stat().st_size for part in small[:-1]} == {50_000}
    joined = b"".join(part.read_bytes() for part in small)
    assert joined == b"".join(part.read_bytes() for part in summary.pack(folder)), "the same bytes, and not itself"
    with tarfile.open(fileobj=io.BytesIO(joined)) as tar:
        tar.extractall(tmp_path / "there", filter="data")
    for path in (folder / "latency-1").rglob("*"):
        if path.is_file():
            assert (tmp_path / "there" / path.relative_to(tmp_path)).read_bytes() == path.read_bytes()


def test_a_check_that_is_stopped_packs_what_it_has(tmp_path, monkeypatch):
    def stopped(self: Runner, steps: Any) -> list[Record]:
        (self.folder / "doctor.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(Runner, "carry_out", stopped)
    CliRunner().invoke(app, ["--out", str(tmp_path), "--dry-run"])
    (part,) = tmp_path.glob("*/packed/*")
    with tarfile.open(part) as tar:
        assert [Path(name).name for name in tar.getnames()] == ["doctor.json"]
