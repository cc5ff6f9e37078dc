"""Which layers a graph asks to be computed in fewer bits: read from ONNX files and from OpenVINO's models."""

import importlib.util

import onnx
import pytest
from precision_graphs import images, saved, small

from export.precision.audit import requested_by_onnx, requested_by_openvino
from export.precision.calibration import CalibrationSet
from export.precision.lower import make_typed
from export.precision.recipe import Recipe, default_recipe
from export.store import Store
from scarlet.files import file_sha256


def made(tmp_path, recipe):
    path = saved(tmp_path, small())
    calibration = CalibrationSet.of([images()])
    store = Store(tmp_path / "store")
    return make_typed(path, file_sha256(path), recipe, store, calibration).path


@pytest.fixture
def heavy(tmp_path):
    """The names of the layers of the small network."""
    model = onnx.load(saved(tmp_path, small()))
    return [node.name for node in model.graph.node if node.op_type in ("Conv", "Gemm")]


def test_fp32_and_fp16_graphs_ask_for_the_type_of_their_weights(tmp_path, heavy):
    assert requested_by_onnx(saved(tmp_path, small())) == dict.fromkeys(heavy, "float32")
    assert requested_by_onnx(made(tmp_path, default_recipe("fp16"))) == dict.fromkeys(heavy, "float16")
    assert requested_by_onnx(made(tmp_path, default_recipe("bf16"))) == dict.fromkeys(heavy, "bfloat16")


@pytest.mark.parametrize("dialect", ["ort", "symmetric"])
def test_layers_behind_pairs_are_asked_for_in_int8_and_those_left_out_are_not(tmp_path, heavy, dialect):
    recipe = Recipe("int8", dialect, per_channel=True, exclude=(heavy[1],))
    expected = {heavy[0]: "int8", heavy[1]: "float32", heavy[2]: "int8"}
    assert requested_by_onnx(made(tmp_path, recipe)) == expected


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")
@pytest.mark.parametrize("dialect", ["ort", "nncf"])
def test_openvino_models_from_either_format_ask_for_the_same(tmp_path, heavy, dialect):
    if dialect == "nncf" and importlib.util.find_spec("nncf") is None:
        pytest.skip("nncf is not installed")
    from bench.backends.openvino.backend import import_openvino

    recipe = Recipe("int8", dialect, exclude=(heavy[1],))
    model = import_openvino().Core().read_model(made(tmp_path, recipe))
    asked = {name.split("/Without")[0]: type_ for name, type_ in requested_by_openvino(model).items()}
    assert asked == {heavy[0]: "int8", heavy[1]: "float32", heavy[2]: "int8"}
