"""Graphs of lower precision made by a process of its own; what befalls one of them stays with that one."""

import importlib.util
import json
from dataclasses import asdict, replace
from io import StringIO
from pathlib import Path
from typing import Any

import onnx
import pytest
from bench_fakes import Scripted, tiny_files
from rich.console import Console

from bench.backends import REGISTRY
from bench.backends.base import Facts, ModelFiles, Unavailable
from bench.backends.graphs import Wanted, graph_for, needed
from bench.record.case import Case
from bench.run.model_files import (
    Requirements,
    changed,
    prepare_files,
    prepare_request,
    prepare_typed_files,
    requirements,
)
from bench.run.spec import RunSpec
from bench.worker import channel, lower_precision
from bench.worker.footprint import model_file_bytes
from bench.worker.lower_precision import PROGRAM, TypedWorker, prepare_typed, recipe_of
from bench.worker.messages import CalibrationImages
from export.precision.recipe import Recipe, default_recipe, write_recipe
from pipelines.imagenet.find import find_images
from scarlet.errors import BenchError
from scarlet.files import file_sha256

INT8 = Wanted("int8/ort", "int8", "ort")


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "store"))


@pytest.fixture
def files(tiny_graph: Path) -> ModelFiles:
    return replace(tiny_files(tiny_graph), onnx_sha256=file_sha256(tiny_graph))


@pytest.fixture(scope="session")
def chosen(image_folder: Path) -> CalibrationImages:
    image_set = find_images(image_folder)
    return CalibrationImages(image_set.root, image_set.images[:4], "a test")


def message(files: ModelFiles, chosen: CalibrationImages, wanted: Wanted) -> dict[str, Any]:
    common = {"files": files.to_dict(), "calibration": chosen.to_dict(), "pipeline": "reference", "threads": 1}
    return json.loads(json.dumps({**common, "wanted": asdict(wanted)}))  # type: ignore[no-any-return]


def answer_of(worker: TypedWorker, request: dict[str, Any]) -> dict[str, Any]:
    return channel.reply(worker.answer, request)


def test_a_worker_makes_a_graph_and_says_what_it_is(files: ModelFiles, chosen: CalibrationImages) -> None:
    answer = answer_of(TypedWorker(), message(files, chosen, INT8))
    assert answer["ok"], answer
    typed = json.loads(json.dumps(answer["typed"]))
    assert file_sha256(Path(typed["path"])) == typed["sha256"]
    facts = typed["facts"]
    assert facts["calibration"]["images"] == 4
    assert (facts["calibration"]["source"], facts["calibration"]["pipeline"]) == ("a test", "reference")
    assert facts["layers"] == {"int8": 1}


def test_calibration_images_are_read_once_for_all_graphs(files, chosen, monkeypatch):
    passes = []
    original = lower_precision.CalibrationSet.of
    monkeypatch.setattr(lower_precision.CalibrationSet, "of", lambda batches: passes.append(1) or original(batches))
    worker = TypedWorker()
    for dialect in ("ort", "symmetric"):
        assert answer_of(worker, message(files, chosen, Wanted("", "int8", dialect)))["ok"]
    assert passes == [1]


class Copying:
    """Of a backend that takes the graph in a format of its own: what it says of itself."""

    FACTS = Facts("copying", "Copying", "", "numpy", {"cpu": "numpy"}, graph="copying_converter")


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch) -> Case:
    """A Case of that backend."""
    monkeypatch.setitem(REGISTRY, "copying", f"{__name__}:Copying")
    return Case("m", "user", "copying")


def test_a_backend_with_a_format_of_its_own_gets_a_checked_graph(files, chosen, copying, image_folder, monkeypatch):
    scored = find_images(image_folder).images
    required = requirements(
        [copying, Case("m", "user", "onnxruntime")], str(image_folder), scored, RunSpec(), Console()
    )
    (wanted,) = required.wanted
    assert required.calibration is None
    asked = {**message(files, chosen, wanted), "check": required.check.to_dict()}
    answer = answer_of(TypedWorker(), asked)
    assert answer["ok"], answer
    graph = graph_for(copying, {wanted.key: answer["typed"]})
    assert graph.facts["parity"]["n_images"] == len(scored)
    assert model_file_bytes(copying, replace(files, typed={wanted.key: answer["typed"]})) == len(
        Path(graph.path).read_bytes()
    )
    monkeypatch.setattr("copying_converter.PACKAGES", ("no-such-package",))
    answer = answer_of(TypedWorker(), asked)
    assert answer["status"] == "unavailable"
    with pytest.raises(Unavailable, match="pip install no-such-package"):
        graph_for(copying, {wanted.key: answer})


def test_mistakes_and_missing_packages_are_answers(files, chosen, monkeypatch, tmp_path):
    worker = TypedWorker()
    write_recipe(tmp_path / "all.yaml", Recipe("int8", "ort", exclude=("*",)))
    nothing = Wanted("int8@all.yaml", "int8", "", str(tmp_path / "all.yaml"))
    answer = answer_of(worker, message(files, chosen, nothing))
    assert (answer["ok"], answer["status"]) == (False, "failed")
    assert "no convolution and no matrix product" in answer["reason"]
    assert answer["do"]
    absent = {**message(files, chosen, INT8), "pipeline": "absent"}
    assert "unknown pipeline" in answer_of(TypedWorker(), absent)["reason"]
    broken = replace(files, onnx=str(tmp_path / "gone.onnx"))
    assert answer_of(worker, message(broken, chosen, Wanted("fp16", "fp16")))["status"] == "failed"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    answer = answer_of(worker, message(files, chosen, Wanted("int8/nncf", "int8", "nncf")))
    assert (answer["status"], "pip install openvino" in answer["reason"]) == ("unavailable", True)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="onnxconverter-common is not installed"):
        prepare_typed("a.onnx", "0", default_recipe("fp16"), None, None)


def test_a_recipe_must_be_of_what_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    recipe = Recipe("int8", "ort", per_channel=True)
    write_recipe(path, recipe)
    assert recipe_of(Wanted("", "int8", "", str(path))) == recipe
    assert recipe_of(INT8) == default_recipe("int8", "ort")
    for precision, dialect in (("fp16", ""), ("int8", "nncf")):
        with pytest.raises(BenchError, match=f"of {'precision' if precision == 'fp16' else 'dialect'}"):
            recipe_of(Wanted("", precision, dialect, str(path)))


def test_real_workers_make_what_a_matrix_needs(tiny_graph, image_folder, chosen, tmp_path):
    cases = [Case("m", "user", "onnxruntime", precision=precision) for precision in ("fp32", "fp16", "int8")]
    required = Requirements(needed(cases), chosen, "reference")
    request = prepare_request(f"onnx:{tiny_graph}", None, str(image_folder), [])
    files = prepare_files(request, tmp_path / "log", 1, 120, required)
    typed = files.typed
    assert set(typed) == {"fp16", "int8/ort"}
    assert {node.op_type for node in onnx.load(typed["int8/ort"]["path"]).graph.node} >= {"QuantizeLinear"}
    assert typed["fp16"]["facts"]["layers"] == {"float16": 1}
    assert not prepare_files(request, tmp_path / "log", 1, 120).typed
    before = files.to_dict()
    assert not changed(before, files)
    assert not changed({**before, "typed": {}}, files)
    assert changed(before, replace(files, typed={"fp16": {**typed["fp16"], "sha256": "other"}}))
    assert changed(before, replace(files, onnx_sha256="other"))


WANTED = tuple(Wanted(key, "fp16") for key in "abcd")


def test_a_worker_that_dies_takes_one_graph_with_it(files: ModelFiles, tmp_path: Path) -> None:
    ends = [channel.dead(-9, "no memory"), channel.too_slow(5)]
    answers = [{"ok": True, "typed": {"path": name}} for name in "ad"]
    workers = [Scripted([answers[0], ends[0]]), Scripted([ends[1]]), Scripted([answers[1]])]
    waiting = list(workers)
    typed = prepare_typed_files(files, Requirements(WANTED), tmp_path / "log", 1, 5, lambda: waiting.pop(0))
    assert [entry.get("path") for entry in typed.values()] == ["a", None, None, "d"]
    assert typed["b"]["status"] == typed["c"]["status"] == "failed"
    assert "no memory" in typed["b"]["reason"]
    assert "longer than 5 s" in typed["c"]["reason"]
    assert [worker.ended for worker in workers] == ["", "", "stopped"]


def test_an_interrupt_ends_the_worker(files: ModelFiles, tmp_path: Path) -> None:
    worker = Scripted([KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        prepare_typed_files(files, Requirements(WANTED), tmp_path / "log", 1, 5, lambda: worker)
    assert worker.ended == "killed"


def test_a_worker_that_really_dies(files: ModelFiles, chosen: CalibrationImages, tmp_path: Path) -> None:
    program = "import os, sys; sys.stdin.readline(); print('out of luck', file=sys.stderr); os._exit(3)"
    typed = prepare_typed_files(
        files,
        Requirements(WANTED[:1], chosen),
        tmp_path / "log",
        1,
        30,
        lambda: channel.LocalWorker(tmp_path / "log", 1, program=program),
    )
    assert "out of luck" in typed["a"]["reason"]


def test_requirements_choose_images_for_int8_alone(image_folder: Path) -> None:
    console = Console(file=StringIO(), width=200)
    images = find_images(image_folder).images

    def ask(*cases: Case, scored: Any = images[:4]) -> Requirements:
        return requirements(cases, str(image_folder), scored, RunSpec(), console)

    fp16 = Case("m", "user", "onnxruntime", precision="fp16")
    int8 = Case("m", "user", "openvino", precision="int8", pipeline="reference")
    assert ask(Case("m", "user", "pytorch")) == Requirements()
    assert ask(fp16, scored=images) == Requirements(needed([fp16]))
    found = ask(fp16, int8)
    assert found.pipeline == "reference"
    assert {image.image_id for image in found.calibration.images} == {image.image_id for image in images[4:]}
    with pytest.raises(BenchError, match="--calibration"):
        ask(int8, scored=images)


def test_the_program_answers_line_by_line(tmp_path: Path, files: ModelFiles) -> None:
    worker = channel.LocalWorker(tmp_path / "log", 1, program=PROGRAM)
    answer = worker.ask({"files": files.to_dict(), "wanted": asdict(Wanted("bf16", "bf16"))}, 60)
    worker.stop()
    assert answer["typed"]["facts"]["layers"] == {"bfloat16": 1}, answer
