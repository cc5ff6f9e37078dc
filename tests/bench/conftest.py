"""A small run in a temporary folder: a graph of one layer, the fake backend."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnx
import planted_pipelines
import pytest
from bench_fakes import Recorder, make_graph, run_on, tiny_files
from folders import FAKES

import pipelines
from bench.record.case import Case
from bench.record.run_folder import RunFolder
from bench.run.runner import Limits, Runner, Workers
from bench.run.schedule import by_scenario
from bench.worker.messages import Context


@pytest.fixture(scope="session")
def tiny_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX classifier of 1000 classes: mean colour, then one linear layer."""
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    onnx.save(make_graph("batch"), path)
    return path


@pytest.fixture
def run_cases(
    tmp_path: Path, image_folder: Path, tiny_graph: Path
) -> Callable[..., tuple[RunFolder, Recorder]]:
    """Runs Cases in real worker processes, and gives the run's folder and what the listener heard."""

    def run(
        *cases: Case,
        timeout_seconds: float = 60.0,
        budget_seconds: float = 2.0,
        folder: RunFolder | None = None,
        stop: str = "precision",
        workers: Workers | None = None,
        watch: bool = False,
    ) -> tuple[RunFolder, Recorder]:
        if folder is None:
            folder = run_on(tmp_path / "run", image_folder, cases)
        context = Context(
            str(folder.path), str(image_folder), tiny_files(tiny_graph), throughput_images=8, stop=stop
        )
        recorder = Recorder()
        limits = Limits(timeout_seconds, budget_seconds)
        Runner(folder, context, recorder, limits, workers, watch).execute(cases, by_scenario(cases))
        return folder, recorder

    return run


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Registers the planted pipelines here and in every process that is started from here."""
    for name in ("REGISTRY", "STAGE_REGISTRY"):
        copy = dict(getattr(pipelines, name))
        for module in (pipelines, pipelines.registry):
            monkeypatch.setattr(module, name, copy)
    planted_pipelines.register()
    folder = tmp_path / "site"
    folder.mkdir()
    # Python imports it at its start.
    (folder / "sitecustomize.py").write_text("import planted_pipelines\nplanted_pipelines.register()\n")
    paths = [str(folder), str(FAKES), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PLANTED_MAIN", str(os.getpid()))
