"""The accuracy gate as a user meets it: this project's own baseline, and faults planted in the code."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import planted
import pytest
from bench_fakes import make_graph
from folders import ROOT

from bench.run.images import DEMO_DATA, DEMO_IMAGES
from pipelines.demo.make import make_demo

BASELINE = ROOT / "results" / "baselines" / "scarlet_c-demo.json"


def scarlet_bench(
    folder: Path, *words: str, fault: str = "", store: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs the command in this folder, which takes all that it writes."""
    environment = {**os.environ, "SCARLET_BENCH_STORE": str(store or folder / "store")}
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        environment.pop(name, None)
    if fault:
        environment = planted.plant(folder / "planted", fault, environment)
    command = [sys.executable, "-m", "bench.cli", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)


def rows(ended: subprocess.CompletedProcess[str]) -> list[tuple[str, str]]:
    """Verdict and stage of each row of a check."""
    found: list[dict[str, Any]] = json.loads(ended.stdout)["rows"]
    return [(row["verdict"], row["stage"]) for row in found]


@pytest.mark.slow
def test_this_code_passes_against_its_own_baseline(tmp_path: Path, shared_store: Path) -> None:
    data = ROOT / DEMO_DATA / str(DEMO_IMAGES)
    make_demo(data, DEMO_IMAGES)
    words = ["check", "--baseline", str(BASELINE), "--data", str(data), "--json"]
    ended = scarlet_bench(tmp_path, *words, store=shared_store)
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    found = json.loads(ended.stdout)
    assert found["n_images"] == DEMO_IMAGES
    assert rows(ended) == [("pass", "")] * len(found["rows"])


def test_the_baseline_rests_on_nothing_of_the_machine_it_was_made_on() -> None:
    text = BASELINE.read_text(encoding="utf-8")
    content = json.loads(text)
    assert content["dataset"]["is_demo"]
    assert content["settings"]["data"] is None
    assert str(Path.home()) not in text
    cases = [row["case"] for row in content["accuracy"]]
    assert {case["backend"] for case in cases} >= {"pytorch", "onnxruntime"}
    assert {case["pipeline"] for case in cases} >= {"reference", "turbo"}
    assert {case["precision"] for case in cases} == {"fp32"}
    # What tells a change of the reference's stages is in it.
    assert set(content["reference"]) == {"images", "probes"}


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 40 images, a graph of one layer, and their baseline ``b.json``."""
    folder = tmp_path_factory.mktemp("gate")
    make_demo(folder / "data", 40)
    onnx.save(make_graph("batch"), folder / "tiny.onnx")
    words = ["--model", f"onnx:{folder / 'tiny.onnx'}", "--data", "data", "--images", "all"]
    words += ["--backends", "onnxruntime", "--pipeline", "reference,dali", "--scenarios", "accuracy"]
    ended = scarlet_bench(folder, "run", *words)
    assert ended.returncode == 0, ended.stderr
    assert scarlet_bench(folder, "baseline", "--out", "b.json").returncode == 0
    return folder


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("", [("pass", ""), ("pass", "")]),
        ("dali-mean", [("fail", "normalise"), ("pass", "")]),
        ("leak", [("fail", ""), ("fail", "")]),
        ("last-dropped", [("fail", "order"), ("fail", "order")]),
    ],
)
def test_a_planted_fault_fails_the_check_with_row_and_stage(checked, fault, expected):
    ended = scarlet_bench(checked, "check", "--baseline", "b.json", "--json", fault=fault)
    assert rows(ended) == expected, ended.stdout  # in the baseline's order: dali, reference
    assert ended.returncode == (1 if fault else 0)
