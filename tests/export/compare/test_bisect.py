"""Bisection on a real network: pairing with its graph, and planted faults that must be named."""

import warnings

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from export.compare.bisect import Compared, bisect, error_table, outputs_at_once
from export.compare.pairing import Layer, pair_graphs, pair_module
from export.compare.values import OnnxValues, TorchValues
from export.compare.weights import compare_graphs, compare_with_module
from export.onnx import export_onnx
from scarlet.errors import BenchError
from scarlet.networks import BlockSpec, Scarlet
from scarlet.random_weights import calibrate, initialise, noise_batches

pytest.importorskip("onnxruntime")

SIZE = 32
PLANTED = [
    ("stem.0.weight", "stem.0 + stem.1"),
    ("separable_conv.0.weight", "separable_conv.0 + separable_conv.1"),
    ("separable_conv.3.weight", "separable_conv.3 + separable_conv.4"),
    ("mb_module.0.conv1.weight", "mb_module.0.conv1 + mb_module.0.bn1"),
    ("mb_module.0.conv2.weight_bias", "mb_module.0.conv2 + mb_module.0.bn2"),
    ("mb_module.0.mid_se.squeeze_conv.weight", "mb_module.0.mid_se.squeeze_conv"),
    ("mb_module.0.mid_se.excite_conv.weight", "mb_module.0.mid_se.excite_conv"),
    ("mb_module.0.conv3.weight", "mb_module.0.conv3 + mb_module.0.bn3"),
    ("mb_module.2.conv2.weight", "mb_module.2.conv2 + mb_module.2.bn2"),
    ("conv_before_pooling.0.weight", "conv_before_pooling.0 + conv_before_pooling.1"),
    ("classifier.weight", "classifier"),
]


class Subject:
    """A small network with calibrated random weights, some images, and its graph as our exporter writes it."""

    def __init__(self, folder):
        blocks = (BlockSpec(2, 16, 3, 1, True), None, BlockSpec(2, 24, 3, 2, False))
        self.module = Scarlet(blocks, classes=7)
        initialise(self.module, 0)
        calibrate(self.module, noise_batches(SIZE, 0))
        self.batches = [batch[:3] for batch in noise_batches(SIZE, 1)]
        self.values = TorchValues(self.module)
        self.calls = self.values.calls(self.batches[0])
        export_onnx(self.module, folder / "net.onnx", SIZE, {})
        self._graph = (folder / "net.onnx").read_bytes()
        self.path = folder / "net.onnx"

    def graph(self):
        """A copy of the graph that may be changed."""
        return onnx.load_from_string(self._graph)

    def search(self, model, **more):
        graph = OnnxValues(model)
        layers = pair_module(self.module, graph, self.calls)
        found = bisect(Compared(self.values, graph, layers, self.batches), **more)
        return found, layers, graph


@pytest.fixture(scope="module")
def subject(tmp_path_factory):
    return Subject(tmp_path_factory.mktemp("net"))


def tensor(model, name):
    return next(item for item in model.graph.initializer if item.name == name)


def change_channel(model, name, channel):
    """Turns the weights of one output channel around, and moves them off zero."""
    item = tensor(model, name)
    values = numpy_helper.to_array(item).copy()
    values[channel] = 0.5 - values[channel]
    item.CopyFrom(numpy_helper.from_array(values, name))


def test_an_export_agrees_in_every_layer_and_only_a_few_are_looked_at(subject):
    found, layers, graph = subject.search(subject.graph())
    assert (found.first, found.difference, found.scanned) == (None, None, "")
    assert found.looked_at == outputs_at_once(found.layers) == 5
    assert len(layers) == len(graph.model.graph.node) - 1  # Flatten is no module
    rows = error_table(Compared(subject.values, graph, layers, subject.batches))
    assert max(difference.relative for _, difference in rows) < 1e-4


@pytest.mark.parametrize(("name", "layer"), PLANTED)
def test_a_changed_weight_tensor_is_named_with_its_layer_and_channel(subject, name, layer):
    model = subject.graph()
    change_channel(model, name, 2)
    found, _, graph = subject.search(model)
    assert found.first.name == layer
    assert found.difference.worst_channel == 2
    differing = [
        (item.name, item.differing)
        for item in compare_with_module(subject.module, graph, found.first)
        if item.differing
    ]
    assert differing == [(name, (2,))]


def test_relu6_in_place_of_hardswish_is_named(subject):
    model = subject.graph()
    node = next(node for node in model.graph.node if node.name == "mb_module.2.act2/HardSwish")
    node.op_type = "Clip"
    node.input.extend(["min_val_cast", "max_val_cast"])
    found, *_ = subject.search(model)
    first = found.first
    assert (first.name, first.kind, first.op) == ("mb_module.2.act2", "Hardswish", "Clip")
    assert first.node == "mb_module.2.act2/HardSwish"


def test_another_number_of_channels_is_a_difference_in_shape(subject):
    model = subject.graph()
    for name in ("classifier.weight", "classifier.bias"):
        item = tensor(model, name)
        item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item)[:5], name))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    graph = OnnxValues(model)
    layers = pair_module(subject.module, OnnxValues(subject.graph()), subject.calls)
    found = bisect(Compared(subject.values, graph, layers, subject.batches))
    assert found.first.name == "classifier"
    assert found.difference.shapes == ((7,), (5,))
    (weight, bias) = compare_with_module(subject.module, graph, found.first)
    assert (weight.channels, len(weight.differing), len(bias.differing)) == (7, 7, 7)
    # A value of another shape is not taken for a module's output; the outputs belong together all the same.
    layers = pair_module(subject.module, graph, subject.calls)
    assert "classifier" not in [layer.name for layer in layers]
    found = bisect(Compared(subject.values, graph, layers, subject.batches))
    assert (found.first.name, found.first.other) == ("output", "logits")


def legacy(subject, folder):
    path = folder / "legacy.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            subject.module,
            (torch.from_numpy(subject.batches[0]),),
            path,
            dynamo=False,
            input_names=["input"],
            output_names=["logits"],
            dynamic_axes={"input": {0: "batch"}},
        )
    return onnx.load(path)


def test_the_legacy_exporters_names_are_understood_and_a_folded_batchnorm_is_not_a_fault(subject, tmp_path):
    # It keeps the convolution's name on the node, whose value is the BatchNorm's.
    model = legacy(subject, tmp_path)
    assert any(node.name == "/stem/stem.0/Conv" for node in model.graph.node)
    found, layers, _ = subject.search(model, every_layer=True)
    assert found.first is None
    named = {layer.name for layer in pair_module(subject.module, OnnxValues(subject.graph()), subject.calls)}
    assert named <= {layer.name for layer in layers}


def test_without_names_of_nodes_layers_are_told_by_those_of_their_weights(subject):
    model = subject.graph()
    for place, node in enumerate(model.graph.node):
        node.name = f"node_{place}"
    change_channel(model, "mb_module.2.conv2.weight", 1)
    found, layers, graph = subject.search(model)
    with_weights = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert [layer.other for layer in layers] == [node.output[0] for node in with_weights]
    assert found.first.name == "mb_module.2.conv2 + mb_module.2.bn2"
    (weight, _) = compare_with_module(subject.module, graph, found.first)
    assert weight.differing == (1,)
    assert "differs in 1 of" in weight.text()


def test_the_exporters_metadata_tells_modules_where_names_do_not(subject):
    model = subject.graph()
    scoped = 0
    for place, node in enumerate(model.graph.node):
        scope = node.name.rpartition("/")[0]
        node.name = f"node_{place}"
        if scope:
            entry = node.metadata_props.add()
            entry.key, entry.value = "pkg.torch.onnx.name_scopes", f"['', '{scope}', 'some_op']"
            scoped += 1
    found, layers, _ = subject.search(model)
    assert found.first is None
    assert len(layers) == scoped
    model.graph.node[0].metadata_props[0].value = "['"
    assert len(pair_module(subject.module, OnnxValues(model), subject.calls)) == scoped - 1


def test_a_graph_without_names_cannot_be_matched(subject):
    model = subject.graph()
    for place, node in enumerate(model.graph.node):
        node.name = f"node_{place}"
        node.input[:] = [name.replace(".", "_") for name in node.input]
    for item in model.graph.initializer:
        item.name = item.name.replace(".", "_")
    with pytest.raises(BenchError, match="cannot be matched with the model"):
        pair_module(subject.module, OnnxValues(model), subject.calls)


class Twice(nn.Module):
    """One activation called twice, a linear layer with BatchNorm, and a linear layer on three axes."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 6)
        self.norm = nn.BatchNorm1d(6)
        self.act = nn.ReLU(inplace=True)
        self.last = nn.Linear(6, 4)

    def forward(self, x):
        x = self.act(self.norm(self.first(torch.flatten(x, 1))))
        return self.act(self.last(x)[:, None]).squeeze(1)


def twice_graph(module):
    """What an exporter might write: MatMul and Add, a BatchNormalization, no names."""
    arrays = {
        "first.weight": module.first.weight.T,
        "first.bias": module.first.bias,
        "norm.weight": module.norm.weight,
        "norm.bias": module.norm.bias,
        "mean": module.norm.running_mean,
        "var": module.norm.running_var,
        "last.weight": module.last.weight,
        "last.bias": module.last.bias,
    }
    constants = [numpy_helper.from_array(value.detach().numpy().copy(), name) for name, value in arrays.items()]
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("MatMul", ["flat", "first.weight"], ["product"]),
        helper.make_node("Add", ["product", "first.bias"], ["sum"]),
        helper.make_node("BatchNormalization", ["sum", "norm.weight", "norm.bias", "mean", "var"], ["normal"]),
        helper.make_node("Relu", ["normal"], ["active"]),
        helper.make_node("Gemm", ["active", "last.weight", "last.bias"], ["linear"], transB=1),
        helper.make_node("Relu", ["linear"], ["logits"]),
        # A constant that others share, as the legacy exporter passes it on: no output of its module.
        helper.make_node("Identity", ["first.bias"], ["shared"]),
        helper.make_node("Neg", ["shared"], ["unused"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "twice", [info("input", 1, ["n", 3, 2, 2])], [info("logits", 1, ["n", 4])], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def test_matmul_with_its_bias_and_an_unfolded_batchnorm_are_matched():
    torch.manual_seed(0)
    module = Twice().eval()
    values, graph = TorchValues(module), OnnxValues(twice_graph(module))
    batch = np.random.default_rng(0).standard_normal((5, 3, 2, 2)).astype(np.float32)
    calls = values.calls(batch)
    layers = pair_module(module, graph, calls)
    assert [(layer.name, layer.other) for layer in layers] == [
        ("first", "sum"),
        ("norm", "normal"),
        ("last", "linear"),
        ("output", "logits"),
    ]
    assert bisect(Compared(values, graph, layers, [batch])).first is None
    change_channel(graph.model, "first.bias", 3)
    changed = OnnxValues(graph.model)
    assert bisect(Compared(values, changed, layers, [batch])).first.name == "first"
    differing = [item.differing for item in compare_with_module(module, changed, layers[0])]
    assert differing == [()]  # a MatMul has no operand for the bias
    assert compare_with_module(module, changed, layers[-1]) == ()


def test_a_module_called_twice_has_an_output_for_each_call():
    module = Twice().eval()
    batch = np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32)
    values = TorchValues(module)
    keys = [call.key for call in values.calls(batch)]
    assert keys == ["first", "norm", "act", "last", "act:1", ""]
    (found,) = values.of(["norm", "act", "act:1"], [batch])
    assert found["norm"].min() < 0 <= found["act"].min()  # kept apart, though the activation works in place
    assert found["act:1"].shape == (2, 1, 4)
    assert not any(layer._forward_hooks for layer in module.modules())


def test_two_graphs_are_compared_by_names_and_half_precision_leaves_single(subject):
    from onnxconverter_common import float16

    half = float16.convert_float_to_float16(subject.graph(), keep_io_types=True)
    reference, other = OnnxValues(subject.graph()), OnnxValues(half)
    layers = pair_graphs(reference, other)
    assert len(layers) == len(reference.model.graph.node)
    loose = bisect(Compared(reference, other, layers, subject.batches), 0.1)
    assert loose.first is None
    tight = bisect(Compared(reference, other, layers, subject.batches), 1e-5)
    assert tight.first.name == "stem.1/Conv"
    rows = error_table(Compared(reference, other, layers, subject.batches))
    decibels = [difference.sqnr_db for _, difference in rows]
    assert decibels == sorted(decibels)
    assert 30 < decibels[0] < decibels[-1] < 90


def test_an_int8_layer_with_a_wrong_scale_is_the_first_beyond_a_loose_tolerance(subject, tmp_path):
    quantization = pytest.importorskip("onnxruntime.quantization")

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.left = iter(subject.batches)

        def get_next(self):
            batch = next(self.left, None)
            return None if batch is None else {"input": batch}

    path = tmp_path / "int8.onnx"
    quantization.quantize_static(subject.path, path, Reader(), per_channel=True)
    reference, other = OnnxValues(subject.graph()), OnnxValues.load(path)
    layers = pair_graphs(reference, other)
    assert len(layers) > 20
    # The quantiser dropped this Clip and gave its name to the value before it.
    clipped = next(layer for layer in layers if layer.name == "stem.2/Clip")
    assert (clipped.node, clipped.other) == ("stem.1/Conv", "stem.2/Clip_DequantizeLinear_Output")
    right = bisect(Compared(reference, other, layers, subject.batches), 1.5, every_layer=True)
    assert right.first is None
    model = onnx.load(path)
    scale = tensor(model, "mb_module.2.conv2.weight_scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(8), scale.name))
    broken = OnnxValues(model)
    found = bisect(Compared(reference, broken, layers, subject.batches), 1.5)
    assert found.first.name == "mb_module.2.bn2/Conv"
    assert compare_graphs(reference, broken, found.first) == ()  # INT8 weights are not the FP32 ones
    worst = error_table(Compared(reference, broken, layers, subject.batches))[0][0]
    assert worst.name.startswith(("mb_module.2", "conv_before", "pool", "Flatten", "logits"))


def test_outputs_of_two_graphs_belong_together_whatever_their_names(subject):
    model = subject.graph()
    change_channel(model, "classifier.weight", 1)
    model.graph.output[0].name = model.graph.node[-1].output[0] = "scores"
    reference, other = OnnxValues(subject.graph()), OnnxValues(model)
    found = bisect(Compared(reference, other, pair_graphs(reference, other), subject.batches))
    assert (found.first.reference, found.first.other) == ("logits", "scores")


def test_weights_of_two_graphs_are_compared(subject):
    model = subject.graph()
    change_channel(model, "mb_module.2.conv3.weight", 4)
    reference, other = OnnxValues(subject.graph()), OnnxValues(model)
    found = bisect(Compared(reference, other, pair_graphs(reference, other), subject.batches))
    weight, bias = compare_graphs(reference, other, found.first)
    assert (weight.name, weight.differing, bias.differing) == ("mb_module.2.conv3.weight", (4,), ())
    assert "is the same" in bias.text()
    assert compare_graphs(reference, other, Layer("act", "", *["mb_module.2.act1/HardSwish"] * 2, "", "")) == ()


def test_graphs_without_common_names_and_files_that_are_no_graphs_are_clear_errors(subject, tmp_path):
    model = subject.graph()
    for node in model.graph.node:
        node.input[:] = [name if name == "input" or tensor_named(model, name) else f"my_{name}" for name in node.input]
        node.output[:] = [f"my_{name}" for name in node.output]
    model.graph.output[0].name = "my_logits"
    del model.graph.value_info[:]
    with pytest.raises(BenchError, match="no floating-point value of the same name"):
        pair_graphs(OnnxValues(subject.graph()), OnnxValues(model))
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(BenchError, match="cannot be read as an ONNX graph"):
        OnnxValues.load(tmp_path / "text.onnx")
    broken = subject.graph()
    broken.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(BenchError, match="onnxruntime cannot run the graph"):
        next(OnnxValues(broken).of(["stem.1/Conv"], subject.batches))


def tensor_named(model, name):
    return any(item.name == name for item in model.graph.initializer)


def test_only_what_the_asked_values_need_is_run_with_few_outputs_at_a_time(subject, monkeypatch):
    graph = OnnxValues(subject.graph())
    part = graph.part(["stem.2/Clip"])
    assert [node.name for node in part.graph.node] == ["stem.1/Conv", "stem.2/Clip"]
    assert len(part.graph.initializer) == 4
    model = subject.graph()
    change_channel(model, "mb_module.2.conv2.weight", 0)
    parts = []
    monkeypatch.setattr(
        OnnxValues, "part", lambda self, names, cut=OnnxValues.part: parts.append(cut(self, names)) or parts[-1]
    )
    _, layers, graph = subject.search(model)
    assert len(parts) > 1
    error_table(Compared(subject.values, graph, layers, subject.batches))
    most = outputs_at_once(len(layers))
    assert most == 5
    assert max(len(part.graph.output) for part in parts) == most


def test_names_that_a_subgraph_reads_are_kept():
    info = helper.make_tensor_value_info
    inner = [
        helper.make_graph([helper.make_node(op, ["outer"], [op])], op, [], [info(op, 1, None)])
        for op in ("Relu", "Neg")
    ]
    nodes = [
        helper.make_node("Exp", ["input"], ["outer"]),
        helper.make_node("Sqrt", ["input"], ["unused"]),
        helper.make_node("If", ["yes"], ["chosen"], then_branch=inner[0], else_branch=inner[1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [info("input", 1, ["n", 2])],
        [info("chosen", 1, ["n", 2])],
        [numpy_helper.from_array(np.array(False), "yes")],
    )
    values = OnnxValues(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10))
    assert [node.op_type for node in values.part(["chosen"]).graph.node] == ["Exp", "If"]
    (found,) = values.of(["chosen"], [np.zeros((1, 2), np.float32)])
    assert found["chosen"].tolist() == [[-1.0, -1.0]]
