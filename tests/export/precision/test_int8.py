"""Q/DQ graphs: ONNX Runtime's own, the symmetric ones, and what a recipe leaves in float."""

import onnx
import pytest
from onnxruntime.quantization import quantize_static
from precision_graphs import images, run, saved, small

from export.precision.audit import audit_qdq
from export.precision.calibration import tensor_ranges
from export.precision.int8 import expand, prepare_graph, quantised
from export.precision.recipe import Recipe, default_recipe
from scarlet.errors import BenchError

DEFAULT, SYMMETRIC = Recipe("int8", "ort"), default_recipe("int8", "symmetric")


def prepared(tmp_path, model):
    path = tmp_path / "prepared.onnx"
    done = prepare_graph(saved(tmp_path, model), path)
    return path, done


def make(tmp_path, recipe, model=None):
    path, _ = prepared(tmp_path, model or small())
    return quantised(path, tensor_ranges(path, [images()], recipe.calibration), recipe)


class Reader:
    def __init__(self, pixels):
        self.feeds = [{"input": image[None]} for image in pixels]

    def get_next(self):
        return self.feeds.pop(0) if self.feeds else None


def test_settings_left_out_are_those_of_quantize_static(tmp_path):
    source = saved(tmp_path, small(), "source.onnx")
    quantize_static(str(source), str(tmp_path / "theirs.onnx"), Reader(images()))
    theirs = onnx.load(tmp_path / "theirs.onnx").SerializeToString(deterministic=True)
    assert make(tmp_path, DEFAULT).SerializeToString(deterministic=True) == theirs


def test_counts_and_ranges_of_the_default(tmp_path):
    facts = audit_qdq(make(tmp_path, DEFAULT))
    assert facts["quantised"] == {"Add": 1, "Conv": 2, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1}
    assert facts["between_pairs"] == {"HardSwish": 1}
    assert facts["left_float"] == {}
    assert facts["heavy_quantised"] == 3
    assert facts["ranges"]["input"]["type"] == "int8"
    assert 0.01 < facts["ranges"]["input"]["scale"] < 0.1


def test_symmetric_has_no_zero_points_and_leaves_biases_in_float(tmp_path):
    model = make(tmp_path, SYMMETRIC)
    facts = audit_qdq(model)
    assert {(item["zero_point"], item["type"]) for item in facts["ranges"].values()} == {(0, "int8")}
    assert facts["heavy_quantised"] == 3
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [types[conv.input[2]] for conv in convs] == [onnx.TensorProto.FLOAT] * 2
    assert onnx.TensorProto.INT32 not in types.values()
    scales = next(tensor for tensor in model.graph.initializer if tensor.name == "w1_scale")
    assert list(scales.dims) == [4]  # one for each output channel


def test_types_and_channels_are_the_recipes(tmp_path):
    recipe = Recipe("int8", "ort", per_channel=True, activation_type="uint8")
    model = make(tmp_path, recipe)
    assert {item["type"] for item in audit_qdq(model)["ranges"].values()} == {"uint8"}
    assert list(next(t for t in model.graph.initializer if t.name == "w1_scale").dims) == [4]
    assert list(next(t for t in make(tmp_path, DEFAULT).graph.initializer if t.name == "w1_scale").dims) == []


def test_reduced_range_keeps_weights_in_seven_bits(tmp_path):
    def largest(recipe):
        tensors = {tensor.name: tensor for tensor in make(tmp_path, recipe).graph.initializer}
        return abs(onnx.numpy_helper.to_array(tensors["w1_quantized"]).astype(int)).max()

    assert largest(DEFAULT) == 127
    assert largest(Recipe("int8", "ort", reduce_range=True)) == 64


def test_excluded_nodes_stay_in_float(tmp_path):
    exclude = ("block.0/*", "block.3/Add", "*/GlobalAveragePool")
    facts = audit_qdq(make(tmp_path, Recipe("int8", "ort", exclude=exclude)))
    assert facts["left_float"] == {"Add": 1, "Conv": 1, "Flatten": 1, "GlobalAveragePool": 1, "HardSwish": 1}
    assert facts["quantised"] == {"Conv": 1, "Gemm": 1}


def test_a_node_without_weights_between_quantised_ones_is_counted_as_what_it_is(tmp_path):
    # Its neighbours' pairs stand on both sides of it: runtimes fuse it although the quantiser passed it over.
    facts = audit_qdq(make(tmp_path, Recipe("int8", "ort", exclude=("block.3/Add",))))
    assert facts["quantised"]["Add"] == 1


def test_only_the_named_kinds_are_quantised(tmp_path):
    facts = audit_qdq(make(tmp_path, Recipe("int8", "ort", op_types=("Conv",))))
    assert facts["quantised"] == {"Conv": 2}
    with pytest.raises(BenchError, match="kind of node to quantise 'conv'"):
        make(tmp_path, Recipe("int8", "ort", op_types=("conv",)))


def test_names_are_expanded_in_the_graphs_order():
    assert expand(["b*", "a"], ["a", "b1", "c", "b0"]) == ("a", "b1", "b0")
    assert expand(["a[0]"], ["a[0]", "a0"]) == ("a[0]",)  # a name goes before a pattern
    with pytest.raises(BenchError, match="node to exclude 'd'"):
        expand(["d"], ["a"])


def test_nameless_nodes_can_be_excluded(tmp_path):
    path, _ = prepared(tmp_path, small(named=False))
    names = [node.name for node in onnx.load(path).graph.node]
    assert names[0] == "Conv_0"
    assert len(set(names)) == len(names)


def test_batchnorm_is_folded_before_it_is_quantised(tmp_path):
    model = small(batchnorm=True)
    path, done = prepared(tmp_path, model)
    assert done["folded_batchnorm"]
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
    pixels = images()
    assert abs(run(path, pixels) - run(saved(tmp_path, model), pixels)).max() < 1e-4
    assert not prepared(tmp_path, small())[1]["folded_batchnorm"]


def test_old_opsets_are_converted(tmp_path):
    model = small(opset=14)
    model.opset_import[0].version = 12
    for node in model.graph.node:
        if node.op_type == "HardSwish":
            node.op_type = "Relu"
    path, done = prepared(tmp_path, model)
    assert done["opset_before"] == 12
    assert onnx.load(path).opset_import[0].version == 13


def test_a_quantised_graph_is_not_quantised_again(tmp_path):
    with pytest.raises(BenchError, match="quantised already"):
        prepare_graph(saved(tmp_path, make(tmp_path, DEFAULT), "done.onnx"), tmp_path / "again.onnx")
