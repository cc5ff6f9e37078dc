"""`profile` on the command line: what it prints, its JSON and files, and what it refuses."""

import csv
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_fakes import Command, tiny_files

from bench.record.case import Case, Status
from bench.record.run_folder import RunFolder
from bench.run.spec import RunSpec
from bench.studies.profile import drive
from bench.worker import channel
from scarlet.errors import BenchError


@pytest.fixture
def profile(scarlet_bench: Command, image_folder: Path) -> Command:
    """The command on the small image folder."""
    return partial(scarlet_bench, "profile", "--data", str(image_folder))


PEAK = {"threads": 1, "gflop_per_s": {"fp32": 50.0}, "copy_gbyte_per_s": 10.0}


def test_a_profile_in_json_and_in_files(profile, tiny_graph, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("bench.studies.profile.drive.lookup_peaks", lambda fingerprint: [PEAK])
    out = tmp_path / "new" / "profile"
    words = ["--model", f"onnx:{tiny_graph}", "--threads", "1", "--repeats", "5", "--batch", "2"]
    code, said, _ = profile(*words, "--json", "--out", str(out))
    assert code == 0
    answer = json.loads(said)
    assert [row["name"] for row in answer["rows"]] == ["pooled", "flat", "logits"]
    assert answer["totals"]["rows_ns"] == pytest.approx(sum(row["median_ns"] for row in answer["rows"]))
    assert answer["rows"][-1]["multiply_adds"] == 2 * 3000
    assert answer["rows"][-1]["peak_percent"] == pytest.approx(2 * answer["rows"][-1]["gflop_per_s"])
    stored = json.loads((out / "profile.json").read_text())
    assert stored["rows"] == answer["rows"]
    medians = [float(np.median(node["samples_ns"])) for node in stored["recording"]["nodes"]]
    assert medians == [row["median_ns"] for row in answer["rows"]]
    with (out / "profile.csv").open() as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["pooled", "flat", "logits"]


def test_a_profile_for_people(profile, tiny_graph, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setattr("bench.studies.profile.drive.lookup_peaks", lambda fingerprint: [])
    out = tmp_path / "profile"
    words = ["--model", f"onnx:{tiny_graph}", "--backend", "openvino", "--threads", "1", "--repeats", "5"]
    code, said, _ = profile(*words, "--top", "1", "--out", str(out))
    assert code == 0
    assert f"onnx:{tiny_graph}, openvino fp32, batch 1, 1 threads" in said
    assert "more rows:" in said
    assert "the rows add up to" in said
    assert "% of peak" not in said
    assert f"stored: {out}" in said


@pytest.mark.parametrize(
    ("words", "what", "do"),
    [
        (["--backend", "onnxruntine"], "unknown backend 'onnxruntine'", "onnxruntime"),
        (["--backend", "fake"], "unknown backend to profile 'fake'", "Choose from"),
        (["--backend", "openvino,pytorch"], "--backend names 2 values", "one after another"),
        (["--precision", "fp32,int8"], "--precision names 2 values", "one after another"),
        (["--precision", "int3"], "unknown precision 'int3'", ""),
        (["--model", "onnx:missing.onnx"], "missing.onnx", ""),
        (["--batch", "0"], "0 is not a whole number", ""),
        (["--threads", "0"], "0 is not a whole number", ""),
        (["--repeats", "1"], "--repeats 1 is not from 5", "50"),
        (["--top", "-1"], "--top -1", "20"),
        (["--option", "pytorch.form=round"], "pytorch.form is 'round'", "tuned"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(profile: Command, words: list[str], what: str, do: str) -> None:
    code, said, err = profile(*words)
    assert code == 2
    assert what in err
    assert do in err
    assert "Traceback" not in said + err


def test_a_file_in_the_place_of_the_folder(profile: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = profile("--out", str(tmp_path / "file"))
    assert code == 2
    assert "is a file" in err


@pytest.mark.parametrize(
    ("failure", "what"),
    [
        (channel.too_slow(3), "longer than 3 s"),
        (channel.dead(-9, "out of luck"), "killed by SIGKILL; its last words: out of luck"),
        (channel.WorkerFailed(Status.UNAVAILABLE, "openvino is missing"), "cannot be profiled: openvino is missing"),
    ],
)
def test_a_worker_that_fails_is_told_in_one_line(failure, what, monkeypatch, tmp_path):
    def ask_once(*_: Any) -> Any:
        raise failure

    monkeypatch.setattr(channel, "ask_once", ask_once)
    case = Case("onnx:tiny.onnx", "user", "onnxruntime")
    session: Any = SimpleNamespace(
        root=tmp_path, images=(), folder=RunFolder(tmp_path), spec=RunSpec(timeout_seconds=3.0)
    )
    with pytest.raises(BenchError, match=what):
        drive.record(session, case, tiny_files(), 5)
