"""FP16 and BF16 graphs: valid, strongly typed, close to FP32, and honest about what stays."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from precision_graphs import images, run, saved, small

from export.precision.float16 import check_runs, to_bfloat16, to_float16
from scarlet.errors import BenchError

BF16 = TensorProto.BFLOAT16


def spread(values):
    return float(np.std(values))


def types_of(model):
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def left_float(model):
    """Kinds of the nodes that yield float32, casts among them."""
    types = types_of(model)
    return sorted(node.op_type for node in model.graph.node if types[node.output[0]] == TensorProto.FLOAT)


def test_fp16_runs_and_is_close(tmp_path):
    model = to_float16(small())
    onnx.checker.check_model(model, full_check=True)
    assert left_float(model) == ["Cast"], "that of the logits"
    path = saved(tmp_path, model)
    check_runs(path)
    expected = run(saved(tmp_path, small(), "fp32.onnx"), images())
    difference = abs(run(path, images()) - expected).max() / spread(expected)
    assert 0 < difference < 0.02
    assert types_of(model)["input"] == types_of(model)["logits"] == TensorProto.FLOAT


def test_fp16_leaves_out_what_is_excluded():
    assert "Conv" in left_float(to_float16(small(), ["block.0/*"]))
    with pytest.raises(BenchError, match="node to exclude"):
        to_float16(small(), ["absent"])
    with pytest.raises(BenchError, match="holds FP16 already"):
        to_float16(to_float16(small()))


def test_a_graph_whose_logits_are_not_finite_is_refused(tmp_path):
    model = small()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b3")
    bias.raw_data = np.full(5, np.inf, np.float32).tobytes()
    with pytest.raises(BenchError, match="not finite"):
        check_runs(saved(tmp_path, to_float16(model)))


def test_weights_too_large_for_fp16_become_its_largest():
    model = small()
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "b3")
    bias.raw_data = np.array([7e4, -7e4, 6e4, 0, 1e-9], np.float32).tobytes()
    found = next(tensor for tensor in to_float16(model).graph.initializer if tensor.name == "b3")
    expected = np.array([65504, -65504, 6e4, 0, 1e-7], np.float16)
    assert np.array_equal(numpy_helper.to_array(found), expected)


def test_a_graph_that_does_not_load_is_told(tmp_path):
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no graph")
    with pytest.raises(BenchError, match="does not run"):
        check_runs(path)


def test_bf16_is_valid_typed_and_evaluates_close_to_fp32():
    model = to_bfloat16(small())
    onnx.checker.check_model(model, full_check=True)
    assert left_float(model) == ["Cast"], "that of the logits"
    assert model.opset_import[0].version == 22
    types = types_of(model)
    assert types["input"] == types["logits"] == TensorProto.FLOAT
    assert {tensor.data_type for tensor in model.graph.initializer} == {BF16}
    expected = ReferenceEvaluator(small()).run(None, {"input": images(2)})[0]
    found = ReferenceEvaluator(model).run(None, {"input": images(2)})[0]
    assert found.dtype == np.float32
    assert 0 < abs(found - expected).max() / spread(expected) < 0.2


def test_bf16_runs_on_openvino(tmp_path):
    openvino = pytest.importorskip("openvino")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(saved(tmp_path, to_bfloat16(small())), "CPU", settings)
    expected = run(saved(tmp_path, small(), "fp32.onnx"), images())
    difference = abs(compiled(images())[0] - expected).max() / spread(expected)
    assert 0 < difference < 0.05


def test_bf16_rounds_to_the_nearest():
    tensor = next(t for t in to_bfloat16(small()).graph.initializer if "w1" in t.name)
    exact = numpy_helper.to_array(next(t for t in small().graph.initializer if t.name == "w1"))
    found = numpy_helper.to_array(tensor).astype(np.float32)
    assert (abs(found - exact) <= abs(exact) * 2.0**-8).all()
    assert (found != exact).any()


def test_what_onnx_has_no_bf16_for_stays_between_casts():
    # Resize takes its scales in float alone; the excluded node stays though it could be BF16.
    extra = [("Resize", ["sum", "", "scales"], "larger"), ("Relu", ["larger"], "relu")]
    model = small(extra=extra)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
    converted = to_bfloat16(model, ["*/Relu"])
    assert left_float(converted) == ["Cast", "Cast", "Relu", "Resize"]
    assert sum(node.op_type == "Cast" for node in converted.graph.node) == 4


def test_constants_casts_and_outputs_that_are_read_again():
    nodes = [
        helper.make_node("Constant", [], ["two"], value=numpy_helper.from_array(np.float32(2))),
        helper.make_node("Conv", ["input", "w"], ["features"]),
        helper.make_node("Cast", ["features"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Cast", ["whole"], ["back"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["back", "two"], ["doubled"]),
        helper.make_node("Add", ["features", "doubled"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, 2, 2])],
        [
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 1, 2, 2]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 1, 2, 2]),
        ],
        [numpy_helper.from_array(np.full((1, 1, 1, 1), 1.5, np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    converted = to_bfloat16(model)
    onnx.checker.check_model(converted, full_check=True)
    pixels = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    features, logits = ReferenceEvaluator(converted).run(None, {"input": pixels})
    assert features.dtype == logits.dtype == np.float32
    assert np.array_equal(features, pixels * 1.5)
    assert np.array_equal(logits, pixels * 1.5 + 2 * np.trunc(pixels * 1.5))
    assert "Constant" not in {node.op_type for node in converted.graph.node}


def test_bf16_refuses_what_cannot_reach_opset_22():
    model = small()
    model.opset_import[0].version = 5
    with pytest.raises(BenchError, match="opset 22"):
        to_bfloat16(model)
