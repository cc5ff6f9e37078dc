"""A small run in a temporary folder: a graph of one layer, the fake backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import planted_pipelines
import pytest
from bench_fakes import Answer, Clock, Command, HereWorker, Recorder, make_graph, run_on, tiny_files
from folders import FAKES

import pipelines
from bench import cli
from bench.record.case import Case
from bench.record.run_folder import RunFolder
from bench.run.runner import Limits, Order, Runner, Workers
from bench.run.schedule import by_scenario
from bench.worker import channel
from bench.worker.messages import Context


@pytest.fixture(scope="session")
def tiny_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX classifier of 1000 classes: mean colour, then one linear layer."""
    path = tmp_path_factory.mktemp("graph") / "tiny.onnx"
    onnx.save(make_graph("batch"), path)
    return path


@pytest.fixture
def run_cases(tmp_path: Path, image_folder: Path, tiny_graph: Path) -> Callable[..., tuple[RunFolder, Recorder]]:
    """Runs Cases on the clock of their turns, by workers in this process where not told otherwise; gives the folder and
    the listener.
    """

    def run(
        *cases: Case,
        timeout_seconds: float = 60.0,
        budget_seconds: float = 2.0,
        folder: RunFolder | None = None,
        workers: Workers | None = None,
        watch: bool = False,
        lives: int | None = 1,
        clock: Clock | None = None,
        processes: bool = False,
        order: Order | None = None,
        **more: Any,
    ) -> tuple[RunFolder, Recorder]:
        if folder is None:
            folder = run_on(tmp_path / "run", image_folder, cases)
        context = Context(str(folder.path), str(image_folder), tiny_files(tiny_graph), throughput_images=8)
        recorder, log, clock = Recorder(), folder.log_path, clock or Clock()
        start = (lambda case: channel.LocalWorker(log(case.case_id), 1)) if processes else (lambda case: HereWorker())
        make = (workers and workers.make) or start
        workers = replace(workers or Workers(), make=lambda case: clock.of(make(case)), clock=clock)
        limits = Limits(timeout_seconds, budget_seconds, lives=lives, **more)
        Runner(folder, context, recorder, limits, workers, watch).execute(cases, order or by_scenario(cases))
        return folder, recorder

    return run


@pytest.fixture
def scarlet_bench(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Calls the command in this process."""

    def call(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["scarlet-bench", *words])
        code: Any = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
        captured = capfd.readouterr()
        return Answer(int(code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with nothing in it, and a store of its own elsewhere."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    return tmp_path / "work"


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run's workers answer in this process, in a tenth of the time: for tests of what is made of their answers."""
    process = channel.LocalWorker

    def worker(log: Path, threads: int, home: Path | None = None, program: str = channel.PROGRAM) -> Any:
        return HereWorker() if program == channel.PROGRAM else process(log, threads, home, program)

    monkeypatch.setattr(channel, "LocalWorker", worker)


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Registers the planted pipelines here and in every process that is started from here."""
    for name in ("REGISTRY", "STAGE_REGISTRY"):
        monkeypatch.setattr(pipelines, name, dict(getattr(pipelines, name)))
    planted_pipelines.register()
    folder = tmp_path / "site"
    folder.mkdir()
    # Python imports it at its start.
    (folder / "sitecustomize.py").write_text("import planted_pipelines\nplanted_pipelines.register()\n")
    paths = [str(folder), str(FAKES), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("PLANTED_MAIN", str(os.getpid()))
