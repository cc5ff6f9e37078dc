"""A run as tables, and the example notebook executed on one."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from folders import ROOT
from nbclient import NotebookClient
from report_run import add_predictions, add_samples, case, end, make_run

import bench
from bench.analysis.columns import REGISTRY
from scarlet.errors import BenchError

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
BASE, FAST = case(), case(backend="onnxruntime")
SCORED, OTHER = case(scenario="accuracy", batch=2), case(scenario="accuracy", batch=2, backend="onnxruntime")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = make_run(tmp_path / "run", [BASE, FAST, SCORED, OTHER])
    for each, time in ((BASE, 2_000_000), (FAST, 1_000_000)):
        add_samples(made, each, [time + place for place in range(40)], n_warmup=4, per_round=3)
        end(made, each, stage="compute", proof={"version": "1.0"})
    add_predictions(made, SCORED, {"a.jpg": (0, (0, 1)), "b.jpg": (1, (1, 0))})
    add_predictions(made, OTHER, {"a.jpg": (0, (0, 1)), "b.jpg": (1, (0, 1))})
    for each in (SCORED, OTHER):
        end(made, each)
    return made.path


def test_a_run_becomes_tables(run: Path) -> None:
    loaded = bench.load_run(run)
    assert list(loaded.cases.columns) == list(REGISTRY)
    assert len(loaded.samples) == 80
    assert loaded.samples["warmup"].sum() == 8
    assert set(loaded.predictions["image_id"]) == {"a.jpg", "b.jpg"}
    assert loaded.proofs[BASE.case_id] == {"version": "1.0"}
    assert loaded.info["git"]["dirty"] is True
    (ledger,) = loaded.compare().ledgers
    assert (ledger.n_flips, ledger.n_images) == (1, 2)


def test_two_runs_are_compared_case_by_case(run: Path, tmp_path: Path) -> None:
    second = make_run(tmp_path / "second", [SCORED])
    add_predictions(second, SCORED, {"a.jpg": (0, (1, 0)), "b.jpg": (1, (1, 0))})
    end(second, SCORED)
    (ledger,) = bench.load_run(run).compare(bench.load_run(second.path)).ledgers
    assert ledger.n_flips == 1


def test_columns_are_documented() -> None:
    told = bench.columns()
    assert isinstance(told, pd.DataFrame)
    assert told["column"].tolist() == list(REGISTRY)
    assert told["meaning"].str.len().min() > 10


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="holds no run"):
        bench.load_run(tmp_path)
    with pytest.raises(AttributeError):
        _ = bench.load_runs  # type: ignore[attr-defined]


def test_importing_bench_stays_cheap() -> None:
    check = "import sys, bench; assert not {'pandas', 'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_notebook_runs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUN", str(run))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))
    assert "onnxruntime batch 1: median of 12 rounds 0.500, reported 0.500" in printed
    assert "flips: 1 of 2" in printed
