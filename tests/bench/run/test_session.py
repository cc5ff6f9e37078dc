"""What a command that measures begins with: its folder, and when that stays."""

import io
from pathlib import Path

import onnx
import pytest
from bench_fakes import make_graph
from rich.console import Console

from bench import host
from bench.backends.base import ModelFiles, Unavailable
from bench.record.case import Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run import session
from bench.run.model_files import PreparationFailed
from bench.run.session import Session
from bench.run.spec import RunSpec
from scarlet.errors import BenchError

MISTAKE = BenchError("wrong", "mend it")


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host, "WATCH_SECONDS", 0.0)


@pytest.fixture
def spec(image_folder: Path, tmp_path: Path) -> RunSpec:
    (tmp_path / "deep").mkdir()
    onnx.save(make_graph("batch"), tmp_path / "deep/net.onnx")
    return RunSpec(model="onnx:deep/net.onnx", data=str(image_folder), backends="fake", batches=1)


def console() -> Console:
    return Console(file=io.StringIO())


def test_a_new_folder_knows_the_spec_and_the_images(spec: RunSpec, image_folder: Path) -> None:
    with Session.open(spec.but(images=3), None, console(), "tune") as opened:
        info = opened.folder.read_run_info()
    assert opened.folder.path.parent == Path("results/runs").resolve()
    assert "-tune-net.onnx-" in opened.folder.path.name
    assert RunSpec.from_dict(info["settings"]) == opened.spec
    assert (info["dataset"]["n_images"], info["dataset"]["n_images_in_set"]) == (3, 8)
    assert [image_id for image_id, _ in opened.folder.read_images()] == [image.image_id for image in opened.images]
    context = opened.context(ModelFiles("m", "user", "", "", ""), throughput_images=8)
    assert (context.run, context.data) == (str(opened.folder.path), str(image_folder.resolve()))


@pytest.mark.parametrize(
    ("ends_by", "has_row", "stays"),
    [
        (None, False, True),
        (MISTAKE, False, False),
        (MISTAKE, True, True),
        (PreparationFailed("broken", "see the log"), False, True),
        (KeyboardInterrupt(), False, True),
    ],
)
def test_a_run_that_ends_by_a_mistake_before_it_has_a_row_leaves_no_folder(spec, ends_by, has_row, stays):
    def measure() -> None:
        with Session.open(spec, Path("mine"), console()) as opened:
            if has_row:
                opened.folder.append_case(CaseResult(opened.spec.cases()[0], Status.FAILED, "bug"))
            if ends_by:
                raise ends_by

    if ends_by:
        with pytest.raises(type(ends_by)):
            measure()
    else:
        measure()
    assert Path("mine").exists() == stays


@pytest.mark.parametrize(
    ("ends_by", "stays"), [(None, False), (MISTAKE, False), (PreparationFailed("broken", "see it"), True)]
)
def test_a_scratch_folder_goes_unless_its_log_is_needed(spec, tmp_path, monkeypatch, ends_by, stays):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    try:
        with Session.scratch(spec, console()) as opened:
            if ends_by:
                raise ends_by
    except BenchError:
        assert ends_by
    assert opened.folder.path.parent == tmp_path
    assert opened.folder.path.exists() == stays


def test_a_model_that_is_missing_is_a_mistake_where_nothing_can_be_done_without(spec, monkeypatch):
    def missing(*_: object, **__: object) -> ModelFiles:
        raise Unavailable("timm is not installed")

    monkeypatch.setattr(session, "prepare_files", missing)
    with Session.scratch(spec, console()) as opened:
        with pytest.raises(Unavailable):
            opened.prepare()
        with pytest.raises(BenchError, match="cannot be prepared here: timm is not installed"):
            opened.require()


def test_a_run_goes_on_with_the_graph_that_it_began_with(spec: RunSpec, tmp_path: Path) -> None:
    with Session.open(spec, Path("mine"), console()) as opened:
        opened.write_plan(ModelFiles("onnx:/elsewhere/net.onnx", "user", "", "", ""), opened.spec.cases())
    with Session.resume(Path("mine"), console()) as again:
        assert again.source == "onnx:/elsewhere/net.onnx"
    assert (again.spec, again.images) == (opened.spec, opened.images)
    info = RunFolder(tmp_path / "mine").read_run_info()
    info["dataset"]["fingerprint"] = "other"
    RunFolder(tmp_path / "mine").write_run_info(info)
    with pytest.raises(BenchError, match="have changed since this run began"):
        Session.resume(Path("mine"), console())
