"""How a run settles what its model is fed, which pipelines make it, and what identifies it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bench_fakes import make_graph
from PIL import Image as PillowImage

from bench.backends.base import ModelFiles
from bench.run.model_input import settle, warnings_of
from bench.run.spec import RunSpec, read_plan
from bench.worker.pixel_parity import Request, try_conventions
from scarlet.errors import BenchError
from scarlet.preprocess import METADATA, Preprocess

HALF = {"mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "net.onnx"
    onnx.save(make_graph("batch"), path)
    return path


def settled(graph: Path, **more: Any) -> tuple[RunSpec, dict[str, Any]]:
    spec = RunSpec(model=f"onnx:{graph}", backends="onnxruntime", pipeline="turbo,dali", **more)
    return settle(spec, spec.source)


def test_without_a_statement_imagenets_numbers_are_assumed_and_rows_say_so(graph: Path) -> None:
    spec, fed = settled(graph)
    assert spec.preprocess == {}
    assert fed["source"] == ""
    assert Preprocess.from_dict(fed["preprocess"]) == Preprocess()
    cases = spec.cases()
    assert {case.model for case in cases} == {f"onnx:{graph}"}
    (warning,) = warnings_of(fed, cases)
    assert warning["kind"] == "assumed_preprocessing"
    assert warning["case_ids"] == [case.case_id for case in cases if case.scenario == "accuracy"]


@pytest.mark.parametrize("where", ["options", "sidecar", "metadata", "plan"])
def test_a_statement_is_part_of_the_models_name_whoever_makes_it(graph: Path, tmp_path: Path, where: str) -> None:
    given: dict[str, Any] = {}
    if where == "options":
        given = {"mean": "0.5", "std": "127.5/255"}
    elif where == "plan":
        (tmp_path / "plan.yaml").write_text("preprocess: {mean: 0.5, std: [0.5, 0.5, 0.5]}")
        given = read_plan(tmp_path / "plan.yaml")["preprocess"]
    elif where == "sidecar":
        (tmp_path / "net.preprocess.yaml").write_text("mean: 127.5\nstd: 127.5\ncrop: 224\n")
    else:
        model = onnx.load(graph)
        onnx.helper.set_model_props(model, {METADATA: json.dumps(asdict(Preprocess(**HALF)))})
        onnx.save(model, graph)
    spec, fed = settled(graph, preprocess=given)
    assert spec.preprocess == HALF
    assert fed["source"]
    assert {case.model for case in spec.cases()} == {f"onnx:{graph} (mean=0.5,0.5,0.5 std=0.5,0.5,0.5)"}
    assert warnings_of(fed, spec.cases()) == []
    assert RunSpec.from_dict(spec.to_dict()) == spec
    back, _ = settled(graph, preprocess={"mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"})
    assert back.preprocess == {}, "options go before the file's own statement"


def test_what_a_pipeline_cannot_do_falls_to_the_reference_in_that_row_alone(graph: Path) -> None:
    spec, fed = settled(graph, preprocess={"crop_mode": "border", "interpolation": "bicubic"})
    assert spec.pipeline == ("turbo", "reference")
    assert list(fed["replaced"]) == ["dali"]
    cases = spec.cases()
    (warning,) = warnings_of(fed, cases)
    assert "border" in warning["text"]
    by_id = {case.case_id: case for case in cases}
    assert {by_id[case_id].pipeline for case_id in warning["case_ids"]} == {"reference"}


@pytest.mark.parametrize(
    ("given", "words"), [({"input_size": 256}, "224 x 224, not of 256"), ({"input_size": "test"}, "no test size")]
)
def test_a_size_that_the_model_has_not_is_refused(graph: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(BenchError, match=words):
        settled(graph, preprocess=given)


def test_a_checkpoint_that_is_not_there_is_told_before_anything_begins() -> None:
    with pytest.raises(BenchError, match="does not exist"):
        settle(RunSpec(checkpoint="absent.pth#ema"), "scarlet_c")


@pytest.mark.parametrize(
    ("scaling", "better"), [((127.0, 128.0), "--mean 127 --std 128"), ((0.0, 255.0), "--mean 0 --std 1"), (None, "")]
)
def test_a_network_that_was_trained_otherwise_is_noticed(tmp_path, scaling, better):
    """A network that tells apart how bright an image is on the scale that it was trained with."""
    images = []
    for level in range(20, 240, 5):
        path = tmp_path / f"{level}.png"
        PillowImage.new("RGB", (32, 32), (level,) * 3).save(path)
        images.append((path.name, level))
    mean, std = scaling or (0.449 * 255, 0.226 * 255)
    weight = np.stack([2 * (np.arange(256) - mean) / std, np.zeros(256), np.zeros(256)]).astype(np.float32)
    model = make_graph("batch", 256, 32)
    bias = -(((np.arange(256) - mean) / std) ** 2)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "weight"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(bias.astype(np.float32), "bias"))
    model.graph.node[-1].output[0] = "product"
    model.graph.node.append(onnx.helper.make_node("Add", ["product", "bias"], ["logits"]))
    onnx.save(model, tmp_path / "net.onnx")
    grey = Preprocess(32, 32, mean=(0.449,) * 3, std=(0.226,) * 3)
    files = ModelFiles("onnx:net.onnx", "user", "", str(tmp_path / "net.onnx"), "", input_size=32, classes=256)
    tried = try_conventions(Request("", str(tmp_path), images, asdict(grey), 1, files))
    assert tried["better"] == better
    assert tried["n_images"] == len(images)
    (*_, warning) = warnings_of({"source": "", "tried": tried}, RunSpec().cases())
    assert (warning["kind"] == "other_preprocessing") == bool(better)
