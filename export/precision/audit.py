"""What a graph of lower precision requests of each layer: read from the file itself.

A graph requests a layer in INT8 where the layer's data and weights come out of a quantiser (DequantizeLinear,
FakeQuantize), so that integers could be multiplied. Whether a runtime does so is for its backend to prove.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]
from onnx import TensorProto

# They move values without changing them.
_MOVES = ("Reshape", "Squeeze", "Unsqueeze", "Transpose")
# Nodes that hold nearly all the arithmetic: a graph in which none of them is quantised gains nothing.
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Operators that take integers and multiply them, of ONNX and of ONNX Runtime.
INTEGER = (
    *("QLinearConv", "QLinearMatMul", "QGemm", "ConvInteger", "MatMulInteger"),
    *("MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
)
# Operations of OpenVINO that restore a value from its integers, one after the other.
_RESTORES = ("Convert", "Subtract", "Multiply")
OPENVINO_HEAVY = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")

INT8, FLOAT32 = "int8", "float32"
_FLOATS = {TensorProto.FLOAT: FLOAT32, TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


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
def precision_of(path: Path) -> str:
    """The least of ``int8``, ``fp16``, ``bf16`` and ``fp32`` that a graph requests for any layer; ``fp32`` where there
    is no such file, or it is no graph.
    """
    try:
        requested = set(requested_by_onnx(path).values())
    except (OSError, DecodeError):
        return "fp32"
    lower = {INT8: "int8", "float16": "fp16", "bfloat16": "bf16"}
    return next((name for type_, name in lower.items() if type_ in requested), "fp32")


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
