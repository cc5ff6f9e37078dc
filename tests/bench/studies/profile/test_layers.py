"""What a runtime executes finds the layers of the model, by names as the runtimes write them, or stays its own."""

from bench.backends.profiler import Node
from bench.studies.profile.layers import NETWORK, Joined, ModelNode, join, join_modules


def chain(*nodes: tuple[str, str, str, int]) -> list[ModelNode]:
    """Nodes (name, operator, layer, multiply-adds), each reading the one before; values bear the nodes' names."""
    before, made = "input", []
    for name, op, layer, multiply_adds in nodes:
        made.append(ModelNode(name, op, layer, (before, f"{name}.weight"), (name,), multiply_adds))
        before = name
    return made


def ort(name: str, op: str) -> Node:
    return Node(name, op, "float", (name,), (1.0,))


STEM = chain(
    ("stem.1/Conv", "Conv", "stem.0 + stem.1", 100),
    ("stem.2/Clip", "Clip", "stem.2", 0),
    ("separable_conv.1/Conv", "Conv", "separable_conv.0 + separable_conv.1", 30),
    ("separable_conv.2/Clip", "Clip", "separable_conv.2", 0),
)


def found(rows: list[Joined]) -> dict[str, list[str]]:
    return {row.name: [node.name for node in row.nodes] for row in rows}


def test_a_convolution_named_after_its_activation_as_onnx_runtime_does() -> None:
    # Recorded: ONNX Runtime 1.31 calls the fused convolution by the Clip behind it.
    rows = join([ort("stem.2/Clip_nchwc", "Conv"), ort("separable_conv.2/Clip_nchwc", "Conv")], STEM)
    assert found(rows) == {
        "stem.0 + .1 + .2": ["stem.2/Clip_nchwc"],
        "separable_conv.0 + .1 + .2": ["separable_conv.2/Clip_nchwc"],
    }
    assert [row.multiply_adds for row in rows] == [100, 30]


def test_an_activation_that_is_executed_apart_keeps_its_row() -> None:
    rows = join([ort("stem.1/Conv", "Conv"), ort("stem.2/Clip", "Clip")], STEM[:2])
    assert found(rows) == {"stem.0 + .1": ["stem.1/Conv"], "stem.2": ["stem.2/Clip"]}
    assert [row.multiply_adds for row in rows] == [100, 0]


BLOCK = [
    ModelNode("m.0.bn3/Conv", "Conv", "m.0.conv3 + m.0.bn3", ("input",), ("m.0.bn3/Conv",), 7),
    ModelNode("m.1.bn1/Conv", "Conv", "m.1.conv1 + m.1.bn1", ("m.0.bn3/Conv",), ("m.1.bn1/Conv",), 5),
    ModelNode("m.1.act1/HardSwish", "HardSwish", "m.1.act1", ("m.1.bn1/Conv",), ("m.1.act1/HardSwish",)),
    ModelNode("m.1/Add", "Add", "m.1", ("m.1.act1/HardSwish", "m.0.bn3/Conv"), ("m.1/Add",)),
    ModelNode("classifier/Gemm", "Gemm", "classifier", ("m.1/Add",), ("logits",), 3),
]


def test_openvino_tells_what_it_fused_and_calls_the_last_node_by_its_value() -> None:
    rows = join(
        [
            Node("m.0.bn3/Conv/WithoutBiases", "Convolution", originals=("m.0.bn3/Conv/WithoutBiases",)),
            Node(
                "m.1.bn1/Conv/WithoutBiases",
                "Convolution",
                originals=("m.1.bn1/Conv/WithoutBiases", "Multiply_18", "m.1.bn1/Conv", "m.1/Add/fq_output_0"),
            ),
            # Named after its neighbours, and none of the model's.
            Node("m.1/Add_acdb_abcd_classifier/Gemm", "Reorder"),
            Node("logits", "FullyConnected", originals=("logits",)),
        ],
        BLOCK,
    )
    assert found(rows) == {
        "m.0.conv3 + bn3": ["m.0.bn3/Conv/WithoutBiases"],
        "m.1.conv1 + bn1 + act1 + Add": ["m.1.bn1/Conv/WithoutBiases"],
        "classifier": ["logits"],
        "(runtime) Reorder": ["m.1/Add_acdb_abcd_classifier/Gemm"],
    }
    assert [bool(row.members) for row in rows] == [True, True, True, False]
    assert rows[-1].multiply_adds is None


def test_a_residual_that_nobody_names_goes_to_the_later_of_its_inputs() -> None:
    rows = join([ort("m.0.bn3/Conv_nchwc", "Conv"), ort("m.1.bn1/Conv_nchwc", "Conv")], BLOCK[:4])
    assert "m.1.conv1 + bn1 + act1 + Add" in found(rows)


def test_quantising_nodes_are_the_runtimes_though_they_bear_a_layers_name() -> None:
    rows = join(
        [
            ort("m.0.bn3/Conv_DequantizeLinear", "DequantizeLinear"),
            ort("m.0.bn3/Conv_token_61", "QLinearConv"),
            ort("m.1.bn1/Conv_DequantizeLinear", "DequantizeLinear"),
        ],
        BLOCK[:1],
    )
    assert found(rows) == {
        "m.0.conv3 + bn3": ["m.0.bn3/Conv_token_61"],
        "(runtime) DequantizeLinear": ["m.0.bn3/Conv_DequantizeLinear", "m.1.bn1/Conv_DequantizeLinear"],
    }


def test_nodes_without_a_name_are_told_by_what_they_lie_behind() -> None:
    # Recorded: in an INT8 graph ONNX Runtime writes HardSwish out, and leaves its parts without a name.
    nodes = [
        ort("Sqrt_1", "Sqrt"),
        ort("m.1.bn1/Conv_token_43", "QLinearConv"),
        ort("m.1.bn1/Conv_DequantizeLinear", "DequantizeLinear"),
        ort("HardSigmoid_669", "HardSigmoid"),
        ort("Mul_670", "Mul"),
    ]
    model = [node for node in BLOCK if node.name in ("m.1.bn1/Conv", "m.1.act1/HardSwish")]
    assert found(join(nodes, model)) == {
        "m.1.conv1 + bn1": ["m.1.bn1/Conv_token_43"],
        "m.1.act1": ["HardSigmoid_669", "Mul_670"],
        "(runtime) DequantizeLinear": ["m.1.bn1/Conv_DequantizeLinear"],
        "(runtime) Sqrt": ["Sqrt_1"],
    }


def test_a_short_name_inside_of_another_word_is_no_name() -> None:
    model = [ModelNode("Mul", "Mul", "Mul", ("input",), ("product",)), *chain(("a/Conv", "Conv", "a", 1))]
    rows = join([ort("Mul_670", "Exp"), ort("data/Conv", "Conv"), ort("fused a/Conv", "FusedConv")], model)
    assert found(rows)["(runtime) Exp"] == ["Mul_670"]
    assert found(rows)["(runtime) Conv"] == ["data/Conv"]
    assert found(rows)["a"] == ["fused a/Conv"]


def test_nothing_is_lost() -> None:
    nodes = [ort(name, op) for name, op in (("stem.2/Clip_nchwc", "Conv"), ("x", "Y"), ("", "Reorder"))]
    rows = join(nodes, STEM)
    assert sorted(node.name for row in rows for node in row.nodes) == sorted(node.name for node in nodes)
    assert [row.layer for row in join(nodes, [])] == ["(runtime) Conv", "(runtime) Y", "(runtime) Reorder"]


def test_modules_of_pytorch_are_the_layers_and_their_containers_are_python() -> None:
    modules = {
        name: ModelNode(name, op, name or NETWORK, multiply_adds=cost)
        for name, op, cost in (("", "Net", 0), ("stem", "Sequential", 0), ("stem.0", "Conv2d", 9))
    }
    nodes = [Node(name, module.op, samples_ns=(1.0,)) for name, module in reversed(modules.items())]
    rows = join_modules([*nodes, Node("elsewhere", "Linear", samples_ns=(1.0,))], modules)
    assert found(rows) == {
        "stem.0": ["stem.0"],
        NETWORK: [""],
        "(runtime) Sequential": ["stem"],
        "(runtime) Linear": ["elsewhere"],
    }
