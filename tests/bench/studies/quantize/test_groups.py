"""Which nodes are left in float together, told by the names that exporters give them."""

import fnmatch

import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.studies.quantize.groups import Group, Node, across, blocks, nodes_of, patterns

NODES = tuple(
    Node(name, kind, depthwise)
    for name, kind, depthwise in (
        ("stem.1/Conv", "Conv", False),
        ("stem.2/Clip", "Clip", False),
        ("block.0.bn1/Conv", "Conv", False),
        ("block.0.bn2/Conv", "Conv", True),
        ("block.0.mid_se.squeeze_conv/Conv", "Conv", False),
        ("block.0.mid_se/Mul", "Mul", False),
        ("block.1.bn1/Conv", "Conv", False),
        ("block.1/Add", "Add", False),
        ("block.10.bn1/Conv", "Conv", False),
        ("pool/GlobalAveragePool", "GlobalAveragePool", False),
        ("classifier/Gemm", "Gemm", False),
    )
)


def test_numbered_modules_are_blocks_and_lists_of_layers_are_one() -> None:
    found = {group.name: group.nodes for group in blocks(NODES)}
    assert list(found) == ["stem", "block.0", "block.1", "block.10", "classifier"], "pool computes nothing heavy"
    assert found["stem"] == ("stem.1/Conv", "stem.2/Clip")
    assert found["block.1"] == ("block.1.bn1/Conv", "block.1/Add")


def test_other_exporters_names_are_understood() -> None:
    names = ("/blocks/blocks.0/blocks.0.0/conv_pw/Conv", "blocks.0.1.conv/Conv", "Conv_17", "/Flatten")
    found = [group.name for group in blocks([Node(name, "Conv") for name in names])]
    assert found == ["blocks.blocks.0", "blocks.0.1", "Conv_17", "/Flatten"]


def test_kinds_across_all_blocks() -> None:
    kinds = {group.name: len(group.nodes) for group in across(NODES)}
    assert kinds == {"all squeeze-excite": 2, "all depthwise convolutions": 1}
    assert across(NODES[:2]) == ()


def test_a_recipe_names_whole_blocks_by_a_pattern_that_fits_nothing_else() -> None:
    whole = {group.name: group for group in blocks(NODES)}
    excluded = (*whole["block.1"].nodes, "block.0.bn2/Conv")
    written = patterns(excluded, whole.values(), NODES)
    assert written == ("block.1[./]*", "block.0.bn2/Conv")
    names = [node.name for node in NODES]
    meant = {name for pattern in written for name in {pattern} & set(names) or fnmatch.filter(names, pattern)}
    assert meant == set(excluded), "block.10 is not block.1"
    plain = (Node("Conv_1", "Conv"), Node("Conv_2", "Conv"))
    assert patterns(["Conv_1"], [Group("Conv_1", ("Conv_1",))], plain) == ("Conv_1",)


def test_depthwise_convolutions_are_told_from_grouped_ones() -> None:
    def conv(name: str, groups: int) -> onnx.NodeProto:
        return helper.make_node("Conv", ["x", f"w{name}"], [name], name=name, group=groups)

    shapes = {"full": (8, 4, 1, 1), "depthwise": (4, 1, 3, 3), "grouped": (8, 2, 1, 1)}
    weights = [numpy_helper.from_array(helper.np.zeros(shape, "float32"), f"w{name}") for name, shape in shapes.items()]
    nodes = [conv("full", 1), conv("depthwise", 4), conv("grouped", 2), helper.make_node("Relu", ["full"], ["r"])]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
    model = helper.make_model(helper.make_graph(nodes, "g", [value], [], weights))
    assert [node.depthwise for node in nodes_of(model)] == [False, True, False, False]
