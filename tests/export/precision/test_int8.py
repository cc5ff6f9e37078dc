"""Q/DQ graphs: ONNX Runtime's own, the symmetric ones, and what a recipe leaves in float."""

import onnx
import pytest
from onnxruntime.quantization import quantize_static
from precision_graphs import images, run, saved, small

from export.precision.audit import requested_by_onnx
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


def zero_points(model):
    """Value and type of those of all activations."""
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in tensors]
    assert len(pairs) >= 5
    return [(int(tensors[node.input[2]]), tensors[node.input[2]].dtype.name) for node in pairs]


def test_symmetric_has_no_zero_points_and_leaves_biases_in_float(tmp_path):
    model = make(tmp_path, SYMMETRIC)
    assert set(zero_points(model)) == {(0, "int8")}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    assert [types[conv.input[2]] for conv in convs] == [onnx.TensorProto.FLOAT] * 2
    assert onnx.TensorProto.INT32 not in types.values()
    scales = next(tensor for tensor in model.graph.initializer if tensor.name == "w1_scale")
    assert list(scales.dims) == [4]  # one for each output channel


def test_types_and_channels_are_the_recipes(tmp_path):
    recipe = Recipe("int8", "ort", per_channel=True, activation_type="uint8")
    model = make(tmp_path, recipe)
    assert {kind for _, kind in zero_points(model)} == {"uint8"}
    assert list(next(t for t in model.graph.initializer if t.name == "w1_scale").dims) == [4]
    assert list(next(t for t in make(tmp_path, DEFAULT).graph.initializer if t.name == "w1_scale").dims) == []


def test_reduced_range_keeps_weights_in_seven_bits(tmp_path):
    def largest(recipe):
        tensors = {tensor.name: tensor for tensor in make(tmp_path, recipe).graph.initializer}
        return abs(onnx.numpy_helper.to_array(tensors["w1_quantized"]).astype(int)).max()

    assert largest(DEFAULT) == 127
    assert largest(Recipe("int8", "ort", reduce_range=True)) == 64


@pytest.mark.parametrize(
    ("settings", "in_float"),
    [
        ({}, set()),
        ({"exclude": ("block.0/*", "block.3/Add", "*/GlobalAveragePool")}, {"block.0/Conv"}),
        ({"op_types": ("Conv",)}, {"block.6/Gemm"}),
    ],
)
def test_what_is_excluded_or_of_another_kind_stays_in_float(tmp_path, settings, in_float):
    requested = requested_by_onnx(saved(tmp_path, make(tmp_path, Recipe("int8", "ort", **settings)), "made.onnx"))
    assert len(requested) == 3
    assert {name for name, kind in requested.items() if kind == "float32"} == in_float


def test_levels_are_not_spent_on_what_a_clip_cuts_off(tmp_path):
    """Where the clip itself stays in float, so that it is not taken into the quantisation before it."""
    clipped = small()
    clipped.graph.node[1].op_type = "Relu"
    path, _ = prepared(tmp_path, clipped)
    ranges = tensor_ranges(path, [images()], "minmax")
    assert ranges["first"][0] < -1.0 < 0.0 == ranges["active"][0]
    made = quantised(path, ranges, Recipe("int8", "ort", exclude=("block.1/HardSwish",)))
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    (pair,) = (node for node in made.graph.node if node.op_type == "QuantizeLinear" and node.input[0] == "first")
    assert float(tensors[pair.input[1]]) == pytest.approx(ranges["active"][1] / 255)


def test_an_unknown_kind_is_told(tmp_path):
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
