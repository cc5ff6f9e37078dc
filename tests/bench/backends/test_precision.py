"""The proof of a graph of lower precision: what each layer was asked for, and what it ran in."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from precision_graphs import SIZE, images, saved, small

from bench.backends import make_backend
from bench.backends.base import ModelFiles
from bench.backends.onnxruntime.proof import layers_of
from bench.backends.precision import Layer, precision_proof
from bench.record.case import Case
from export.precision.calibration import CalibrationSet
from export.precision.lower import make_typed
from export.precision.recipe import Recipe, default_recipe
from export.store import Store
from scarlet.files import file_sha256


def test_a_layer_left_in_float_is_no_fallback_and_one_that_stayed_there_is() -> None:
    asked = {"a": "int8", "b": "float32", "c": "int8", "d": "int8"}
    ran = [Layer("a", "QLinearConv", "int8"), Layer("b", "Conv", "float32"), Layer("c", "Conv", "float32")]
    proof = precision_proof(asked, ran)
    assert proof["asked_counts"] == {"float32": 1, "int8": 3}
    assert proof["layer_counts"] == {"Conv float32": 2, "QLinearConv int8": 1}
    assert proof["not_as_asked"] == {"c": "float32", "d": "float32"}, "d is nowhere"
    assert proof["fallback"] == (
        "2 of 3 layers of convolutions and matrix products ran in another precision than int8: c (float32), d (float32)"
    )
    assert precision_proof({"b": "float32"}, ran)["fallback"] == ""
    renamed = precision_proof(asked, [*ran, Layer("d_quantised", "QLinearConv", "int8")])
    assert renamed["not_as_asked"] == {"c": "float32"}, "d is what has another name"


def test_a_sentence_names_some_layers_and_counts_the_rest() -> None:
    proof = precision_proof({str(n): "float16" for n in range(8)}, [])
    assert proof["fallback"].endswith("4 (float32), 3 more")
    assert len(proof["not_as_asked"]) == 8


def conv(name: str, weight: str, kind: str = "Conv") -> onnx.NodeProto:
    return helper.make_node(kind, ["x", weight], [f"{name}_out"], name=name)


def test_layers_are_known_by_the_names_that_rewritings_gave_them() -> None:
    half = numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float16), "half")
    full = numpy_helper.from_array(np.zeros((1, 1, 1, 1), np.float32), "full")
    nodes = [
        conv("stem/Conv_token_31", "full", "QLinearConv"),
        conv("InsertedPrecisionFreeCast_a/Conv_nchwc", "full"),
        conv("b/Conv", "half"),
        conv("", "full", "FusedConv"),
        helper.make_node("MatMul", ["x", "y"], ["z"], name="m"),
        helper.make_node("MatMul", ["p", "q"], ["r"], name="n"),
        helper.make_node("Relu", ["x"], ["w"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT16, [1])
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [], [half, full]))
    assert layers_of(model) == [
        Layer("stem/Conv", "QLinearConv", "int8"),
        Layer("a/Conv", "Conv", "float32"),
        Layer("b/Conv", "Conv", "float16"),
        Layer("_out", "FusedConv", "float32"),
        Layer("m", "MatMul", "float16"),
        Layer("n", "MatMul", "float32"),
    ]


@pytest.fixture
def proof_of(tmp_path: Path) -> Any:
    """The proof and the logits of a small network in a precision, on ONNX Runtime."""

    def proved(recipe: Recipe, **options: str) -> tuple[dict[str, Any], NDArray[np.float32]]:
        path = saved(tmp_path, small())
        made = make_typed(path, file_sha256(path), recipe, Store(tmp_path / "store"), CalibrationSet.of([images()]))
        entry = {"path": str(made.path), "sha256": made.sha256, "facts": made.facts}
        files = ModelFiles(
            *("onnx:small.onnx", "user", "0" * 64, str(path), "0" * 64),
            input_size=SIZE,
            typed={f"{recipe.precision}@r" if recipe.dialect else recipe.precision: entry},
        )
        given = {**options, **({"recipe": "r"} if recipe.dialect else {})}
        case = Case("m", "user", "onnxruntime", precision=recipe.precision, options=tuple(sorted(given.items())))
        backend = make_backend("onnxruntime")
        backend.load(case, files)
        return backend.proof(), backend.infer(images(1))

    return proved


def test_onnxruntime_shows_integers_where_the_graph_asks_for_them(proof_of: Any) -> None:
    proof, _ = proof_of(Recipe("int8", "ort", activation_type="uint8"))
    assert proof["asked_counts"] == {"int8": 3}
    assert proof["layer_counts"] == {"QGemm int8": 1, "QLinearConv int8": 2}
    assert (proof["not_as_asked"], proof["fallback"]) == ({}, "")


def test_a_layer_that_the_recipe_leaves_in_float_is_as_asked(proof_of: Any) -> None:
    proof, _ = proof_of(Recipe("int8", "ort", activation_type="uint8", exclude=("block.2/Conv",)))
    assert proof["asked_counts"] == {"float32": 1, "int8": 2}
    assert proof["fallback"] == ""


def test_a_graph_run_node_by_node_computes_in_float_and_says_so(proof_of: Any) -> None:
    proof, _ = proof_of(Recipe("int8", "ort"), optimization="none")
    assert set(proof["not_as_asked"].values()) == {"float32"}
    assert proof["fallback"].startswith("3 of 3 layers")


def test_fp16_on_the_cpu_is_computed_in_float32(proof_of: Any) -> None:
    proof, logits = proof_of(default_recipe("fp16"))
    assert proof["asked_counts"] == {"float16": 3}
    assert proof["fallback"].startswith("3 of 3 layers"), "ONNX Runtime's CPU provider has no FP16 convolution"
    assert "than float16" in proof["fallback"]
    assert logits.dtype == np.float32


def test_fp32_rows_need_no_second_session(tiny_graph: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.backends.onnxruntime import backend as onnxruntime

    monkeypatch.setattr(onnxruntime, "final_layers", lambda *_: pytest.fail("a second session was made"))
    backend = make_backend("onnxruntime")
    backend.load(Case("m", "user", "onnxruntime"), ModelFiles("m", "user", "0", str(tiny_graph), "0"))
    assert backend.proof()["fallback"] == ""
