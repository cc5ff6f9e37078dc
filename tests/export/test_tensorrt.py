"""Building TensorRT plans, over a fake runtime: what is asked of the builder, and what becomes of its refusals."""

import hashlib
import importlib
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from folders import CONTRACTS

from export import tensorrt as plans
from export.store import Store
from export.tensorrt import PlanSpec, TensorRtUnavailable, answered, import_tensorrt, key_parts, plan_for
from scarlet.errors import BenchError
from scarlet.processes import ending

GPU = {"name": "a GPU", "compute_capability": "9.0", "multiprocessors": "132", "driver": "580.1"}
SPEC = PlanSpec("graph.onnx", "0" * 64, 8, 8)


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fake runtime in place of TensorRT."""
    monkeypatch.syspath_prepend(CONTRACTS)
    module = importlib.import_module("tensorrt_drive")
    module.stand_in(monkeypatch)
    return module


@pytest.fixture
def in_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fake runtime for processes that are started."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "tensorrt.py").write_text("from fake_tensorrt import *\nfrom fake_tensorrt import __version__\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(CONTRACTS)]))


def test_what_the_builder_is_asked_for(drive: Any, tmp_path: Path) -> None:
    drive.walk_export(plans, tmp_path)


def test_a_missing_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(TensorRtUnavailable, match=r"NVIDIA's own package index.*pip install tensorrt"):
        import_tensorrt()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise OSError('libnvinfer.so.11: cannot open shared object file')", "do not load: libnvinfer.so.11"),
        ("raise ImportError('undefined symbol: x')", "of one version"),
        ("import tensorrt_part_that_is_not_there", "not whole: No module named 'tensorrt_part"),
        ("__version__ = '8.6.1'", "8.6.1 is too old"),
    ],
)
def test_a_package_that_does_not_work_says_why(source, words, tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(TensorRtUnavailable, match=words):
        import_tensorrt()
    sys.modules.pop("tensorrt", None)


@pytest.mark.parametrize(
    "other",
    [{"onnx_sha256": "1" * 64}, {"opt_batch": 4}, {"max_batch": 16}, {"tf32": True}, {"level": 5}, {"build": 1}],
)
def test_a_plan_of_something_else_has_another_key(other: dict[str, Any]) -> None:
    assert key_parts(replace(SPEC, **other), GPU, "11.4") != key_parts(SPEC, GPU, "11.4")


@pytest.mark.parametrize("field", ["name", "compute_capability", "multiprocessors", "driver"])
def test_a_plan_for_another_gpu_has_another_key(field: str) -> None:
    assert key_parts(SPEC, {**GPU, field: "9"}, "11.4") != key_parts(SPEC, GPU, "11.4")


def test_a_plan_of_another_version_has_another_key_and_one_of_a_moved_graph_the_same() -> None:
    assert key_parts(SPEC, GPU, "11.5") != key_parts(SPEC, GPU, "11.4")
    assert key_parts(replace(SPEC, onnx="elsewhere.onnx"), GPU, "11.4") == key_parts(SPEC, GPU, "11.4")


@pytest.mark.usefixtures("in_processes")
def test_a_plan_is_built_once_in_a_process_of_its_own_and_kept(drive: Any, tmp_path: Path) -> None:
    graph, store = drive.small_graph(tmp_path / "g.onnx"), Store(tmp_path / "store")
    spec = replace(SPEC, onnx=str(graph))
    plan = plan_for(spec, GPU, "11.4", store)
    assert plan.sha256 == hashlib.sha256(plan.path.read_bytes()).hexdigest()
    assert plan.facts["timing_cache"] == "new"
    assert plan.facts["build_seconds"] > 0
    assert drive.fake.CALLS == []  # not in this process
    (timing,) = (store.root / "timing").iterdir()
    again = plan_for(spec, GPU, "11.4", store)
    assert (again, timing.read_bytes()) == (plan, b"timed;")
    numbered = plan_for(replace(spec, build=1), GPU, "11.4", store)
    assert numbered.path != plan.path
    assert numbered.facts["timing_cache"] == "none"
    assert timing.read_bytes() == b"timed;"


@pytest.mark.usefixtures("in_processes")
def test_a_builder_that_crashes_leaves_an_error_and_nothing_else(drive, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT_FAULTS", "crash")
    graph, store = drive.small_graph(tmp_path / "g.onnx"), Store(tmp_path / "store")
    with pytest.raises(BenchError, match=r"was killed by SIGSEGV"):
        plan_for(replace(SPEC, onnx=str(graph)), GPU, "11.4", store)
    assert [path.suffix for path in store.root.rglob("*") if path.is_file()] == [".lock"]


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ("no_plan", BenchError, "built no plan: no kernel fits"),
        ("oom", MemoryError, "ran out of memory while building"),
        ("no_builder", TensorRtUnavailable, "cannot start here: .*factory function returned nullptr"),
    ],
)
def test_what_the_building_process_answers_is_raised_again(fault, kind, words, drive, tmp_path, monkeypatch):
    def in_this_process(command: Any, **settings: Any) -> Any:
        answer = answered(*pickle.loads(settings["input"]))
        return subprocess.CompletedProcess(command, 0, stdout=pickle.dumps(answer))

    monkeypatch.setattr(plans.subprocess, "run", in_this_process)
    drive.fake.FAULTS.add(fault)
    spec = replace(SPEC, onnx=str(drive.small_graph(tmp_path / "g.onnx")))
    with pytest.raises(kind, match=words):
        plan_for(spec, GPU, "11.4", Store(tmp_path / "store"))
    assert not list((tmp_path / "store").rglob("*.plan"))


def test_how_a_process_ended_is_said_in_words() -> None:
    assert ending(1) == "ended with exit code 1"
    assert ending(-9) == "was killed by SIGKILL"
    assert ending(-250) == "was killed by signal 250"


def test_warnings_and_errors_are_printed_and_errors_kept(drive: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log = plans.make_log(drive.fake)
    levels = drive.fake.ILogger.Severity
    for level, words in ((levels.INFO, "one"), (levels.WARNING, "two"), (levels.ERROR, "three\nlines")):
        log.log(level, words)
    assert log.errors == ["three lines"]
    assert capsys.readouterr().err == "TensorRT: two\nTensorRT: three\nlines\n"
