"""What a graph of lower precision holds, and what it requests: read from the file itself.

A graph requests a layer in INT8 where the layer's data and weights come out of a quantiser (DequantizeLinear,
FakeQuantize), so that integers could be multiplied. Whether a runtime does so is for its backend to prove.
"""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from onnx import TensorProto, numpy_helper

PAIR = ("QuantizeLinear", "DequantizeLinear")
# They move values without changing them.
_MOVES = ("Reshape", "Squeeze", "Unsqueeze", "Transpose")
# Nodes that hold nearly all the arithmetic: a graph in which none of them is quantised gains nothing.
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operations of OpenVINO that restore a value from its integers, one after the other.
# Operators that take integers and multiply them, of ONNX and of ONNX Runtime.
INTEGER = (
    *("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"),
    *("MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
)
_RESTORES = ("Convert", "Subtract", "Multiply")
OPENVINO_HEAVY = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")

INT8, FLOAT32 = "int8", "float32"
_FLOATS = {TensorProto.FLOAT: FLOAT32, TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


def audit_qdq(model: Any) -> dict[str, Any]:
    """Counts in a graph with Q/DQ pairs.

    Returns:
        ``quantize_linear`` and ``dequantize_linear``: numbers of these nodes; ``quantised``: by kind of node, how
        many have their data (and weights, where they have any) from DequantizeLinear, give theirs to QuantizeLinear
        and are of a kind that the quantiser knows, which is what runtimes fuse into INT8; ``between_pairs``: the same
        for kinds that it does not know (HardSwish), which run in float or by table; ``left_float``: the other nodes
        by kind; ``heavy_quantised``: how many of ``quantised`` are convolutions or matrix products; ``ranges``: for
        each quantised activation its ``scale``, ``zero_point`` and ``type``.
    """
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    known = {*QDQRegistry, *QLinearOpsRegistry}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    restored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    quantised: Counter[str] = Counter()
    between: Counter[str] = Counter()
    left: Counter[str] = Counter()
    ranges: dict[str, dict[str, Any]] = {}
    pairs: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type in PAIR:
            pairs[node.op_type] += 1
            if node.op_type == "QuantizeLinear" and node.input[0] not in constants:
                ranges[node.input[0]] = _scale(node, constants)
            continue
        # The third input of a convolution is its bias, which stays in float in the symmetric dialect.
        data = [name for name in node.input[:2] if name] if node.op_type in HEAVY else node.input[:1]
        is_int8 = data and all(name in restored for name in data) and node.output[0] in rounded
        (left if not is_int8 else quantised if node.op_type in known else between)[node.op_type] += 1
    return {
        "quantize_linear": pairs["QuantizeLinear"],
        "dequantize_linear": pairs["DequantizeLinear"],
        "quantised": dict(sorted(quantised.items())),
        "between_pairs": dict(sorted(between.items())),
        "left_float": dict(sorted(left.items())),
        "heavy_quantised": sum(quantised[kind] for kind in HEAVY),
        "ranges": dict(sorted(ranges.items())),
    }


def _scale(node: Any, constants: dict[str, Any]) -> dict[str, Any]:
    zero = constants[node.input[2]] if len(node.input) > 2 else None
    return {
        "scale": numpy_helper.to_array(constants[node.input[1]]).item(),
        "zero_point": numpy_helper.to_array(zero).item() if zero is not None else 0,
        "type": TensorProto.DataType.Name(zero.data_type).lower() if zero is not None else "uint8",
    }


def audit_float(model: Any, element: int) -> dict[str, Any]:
    """Counts in a graph of which most of the values have the type ``element`` (``TensorProto.FLOAT16``).

    Returns:
        ``converted``: by kind, how many nodes yield that type; ``left_float``: the other nodes by kind; ``casts``:
        how many Cast nodes there are; ``heavy_converted``: how many of ``converted`` are convolutions or matrix
        products.
    """
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    kinds = {
        value.name: value.type.tensor_type.elem_type for value in (*inferred.graph.value_info, *inferred.graph.output)
    }
    converted: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type != "Cast":
            (converted if kinds.get(node.output[0]) == element else left)[node.op_type] += 1
    return {
        "converted": dict(sorted(converted.items())),
        "left_float": dict(sorted(left.items())),
        "casts": sum(node.op_type == "Cast" for node in model.graph.node),
        "heavy_converted": sum(converted[kind] for kind in HEAVY),
    }


def audit_openvino(path: Path) -> dict[str, Any]:
    """Counts in an OpenVINO IR that NNCF quantised.

    Returns:
        ``fake_quantize``: number of FakeQuantize nodes; ``quantised``: by kind of operation, how many have their
        data from one; ``left_float``: the other convolutions and matrix products; ``heavy_quantised``; ``ranges``:
        for each FakeQuantize its lowest and highest value and number of levels.
    """
    import openvino

    model = openvino.Core().read_model(path)
    quantised: Counter[str] = Counter()
    left: Counter[str] = Counter()
    ranges: dict[str, dict[str, Any]] = {}
    for operation in model.get_ordered_ops():
        kind = operation.get_type_name()
        if kind == "FakeQuantize":
            low, high = (operation.input_value(place).get_node() for place in (1, 2))
            if all(edge.get_type_name() == "Constant" for edge in (low, high)):
                ranges[operation.get_friendly_name()] = {
                    "low": float(low.get_data().min()),
                    "high": float(high.get_data().max()),
                    "levels": int(operation.get_attributes()["levels"]),
                }
        elif operation.get_input_size() and kind not in (*_MOVES, "ShapeOf"):
            source = operation.input_value(0).get_node()
            while source.get_type_name() in _MOVES:
                source = source.input_value(0).get_node()
            if source.get_type_name() == "FakeQuantize":
                quantised[kind] += 1
            elif kind in OPENVINO_HEAVY:
                left[kind] += 1
    return {
        "fake_quantize": len(ranges),
        "quantised": dict(sorted(quantised.items())),
        "left_float": dict(sorted(left.items())),
        "heavy_quantised": sum(quantised[kind] for kind in OPENVINO_HEAVY),
        "ranges": dict(sorted(ranges.items())),
    }


def requested_by_onnx(path: Path) -> dict[str, str]:
    """What each convolution and matrix product of an ONNX graph is to be computed in.

    Returns:
        by name of the node ``int8``, ``float16``, ``bfloat16`` or ``float32``; the type of the others is that of
        their weights.
    """
    model = onnx.load(path, load_external_data=False)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    values = (*model.graph.input, *model.graph.value_info)
    types |= {value.name: value.type.tensor_type.elem_type for value in values}
    restored, moved = set(), {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear":
            restored.add(node.output[0])
        elif node.op_type in _MOVES:
            moved[node.output[0]] = node.input[0]
        elif node.op_type == "Constant":
            types[node.output[0]] = node.attribute[0].t.data_type

    def source(name: str) -> str:
        while name in moved:
            name = moved[name]
        return name

    requested = {}
    for node in model.graph.node:
        if node.op_type in INTEGER:
            requested[node.name or node.output[0]] = INT8
        elif node.op_type in HEAVY:
            data = [source(name) for name in node.input[:2]]
            known = [_FLOATS[types[name]] for name in data[::-1] if types.get(name) in _FLOATS]
            requested[node.name or node.output[0]] = (
                INT8 if all(name in restored for name in data) else (known or [FLOAT32])[0]
            )
    return requested


@functools.cache
def is_quantised(path: Path) -> bool:
    """Whether a graph requests any layer in INT8; False where there is no such file, or it is no graph."""
    try:
        return INT8 in requested_by_onnx(path).values()
    except (OSError, DecodeError):
        return False


def requested_by_openvino(model: Any) -> dict[str, str]:
    """What each convolution and matrix product of a graph that OpenVINO has read is to be computed in.

    Args:
        model: of ``openvino.Core.read_model``, from an IR or from an ONNX file.

    Returns:
        ``int8`` or ``float32`` by friendly name.
    """
    return {
        operation.get_friendly_name(): INT8
        if all(_is_quantised(operation.input_value(place).get_node()) for place in (0, 1))
        else FLOAT32
        for operation in model.get_ordered_ops()
        if operation.get_type_name() in OPENVINO_HEAVY
    }


def _is_quantised(node: Any) -> bool:
    """Whether a value is one of few levels: it comes from a FakeQuantize, or is restored from 8-bit integers."""
    while True:
        kind = node.get_type_name()
        if kind == "FakeQuantize" or node.get_output_element_type(0).to_string() in ("i8", "u8"):
            return True
        restores = kind in _RESTORES and all(
            _is_constant(node.input_value(index).get_node()) for index in range(1, node.get_input_size())
        )
        if not restores and kind not in _MOVES:
            return False
        node = node.input_value(0).get_node()


def _is_constant(node: Any) -> bool:
    while node.get_type_name() in ("Convert", *_MOVES):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
