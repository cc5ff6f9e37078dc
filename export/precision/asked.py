"""Which convolutions and matrix products a graph asks to be computed in 8 bits or in 16: read from the graph itself.

A layer is asked for in INT8 where its data and its weights come out of a quantiser (DequantizeLinear, FakeQuantize),
so that integers could be multiplied. Whether a runtime does so is for its backend to prove.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from export.precision.audit import HEAVY

INT8, FLOAT32 = "int8", "float32"
_FLOATS = {TensorProto.FLOAT: FLOAT32, TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}

# Operations of OpenVINO that restore a value from its integers, one after the other, and those that only move it.
_RESTORES = ("Convert", "Subtract", "Multiply")
_MOVES = ("Reshape", "Squeeze", "Unsqueeze", "Transpose")
OPENVINO_HEAVY = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul")


def asked_of_onnx(path: Path) -> dict[str, str]:
    """What each convolution and matrix product of an ONNX graph is to be computed in.

    Returns:
        by name of the node ``int8``, ``float16``, ``bfloat16`` or ``float32``; the type of the others is that of
        their weights.
    """
    model = onnx.load(path)
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

    asked = {}
    for node in model.graph.node:
        if node.op_type in HEAVY:
            data = [source(name) for name in node.input[:2]]
            known = [_FLOATS[types[name]] for name in (*data[::-1],) if types.get(name) in _FLOATS]
            asked[node.name or node.output[0]] = (
                INT8 if all(name in restored for name in data) else (known or [FLOAT32])[0]
            )
    return asked


def asked_of_openvino(model: Any) -> dict[str, str]:
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
            _is_constant(node.input_value(place).get_node()) for place in range(1, node.get_input_size())
        )
        if not restores and kind not in _MOVES:
            return False
        node = node.input_value(0).get_node()


def _is_constant(node: Any) -> bool:
    while node.get_type_name() in ("Convert", *_MOVES):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
