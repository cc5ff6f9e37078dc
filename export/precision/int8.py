"""FP32 ONNX -> INT8 ONNX with QuantizeLinear/DequantizeLinear pairs: ONNX Runtime's quantiser, two dialects."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from export.precision.recipe import Recipe
from scarlet.errors import BenchError, error_text, unknown_name

# Below it, DequantizeLinear knows no scale for each channel.
LEAST_OPSET = 13


def prepare_graph(onnx_path: Path, target: Path) -> dict[str, Any]:
    """Writes the graph that is calibrated and quantised: the same function, ready for the quantiser.

    Nodes without a name get one; an opset below 13 is converted. Where BatchNorm was not folded (the graphs that
    this project exports have it folded), ONNX Runtime's preprocessing folds it. It is left out elsewhere, because it
    splits HardSwish into nameless nodes.

    Returns:
        what was done, for the record.

    Raises:
        BenchError: the graph is quantised already, or its opset cannot be converted.
    """
    model = onnx.load(onnx_path)
    if any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node):
        raise BenchError("the graph is quantised already", "Give the FP32 graph.")
    done: dict[str, Any] = {"folded_batchnorm": False}
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < LEAST_OPSET:
        model = converted(model, LEAST_OPSET)
        done["opset_before"] = opset
    name_nodes(model)
    if any(node.op_type == "BatchNormalization" for node in model.graph.node):
        from onnxruntime.quantization import quant_pre_process

        onnx.save(model, target)
        quant_pre_process(target, target, skip_symbolic_shape=True)
        done["folded_batchnorm"] = True
        model = onnx.load(target)
        name_nodes(model)
    onnx.save(model, target)
    return done


def converted(model: Any, opset: int) -> Any:
    """The model in a newer opset; BenchError where the converter cannot."""
    try:
        return onnx.version_converter.convert_version(model, opset)
    except RuntimeError as error:  # what its C++ side raises, whatever the cause
        reason = error_text(error)
        raise BenchError(
            f"the graph cannot be converted to opset {opset}: {reason}", f"Export it with opset {opset}."
        ) from error


def name_nodes(model: Any) -> None:
    """Gives nameless nodes a name, and nodes of one name different ones, in place."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.name or node.op_type}_{index}"
        taken.add(node.name)


def expand(patterns: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The names that a recipe's ``exclude`` means, in the graph's order; BenchError where a pattern fits no name."""
    known, chosen = tuple(names), set()
    for pattern in patterns:
        found = {pattern} & set(known) or set(fnmatch.filter(known, pattern))
        if not found:
            raise unknown_name("node to exclude", pattern, known)
        chosen |= found
    return tuple(name for name in known if name in chosen)


def quantised(graph: Path, ranges: Mapping[str, tuple[float, float]], recipe: Recipe) -> Any:
    """The INT8 model of a prepared graph.

    With a recipe of ``ort`` that sets nothing this is what ``onnxruntime.quantization.quantize_static`` makes.

    Args:
        graph: what ``prepare_graph`` wrote.
        recipe: of dialect ``ort`` or ``symmetric``.

    Raises:
        BenchError: the recipe names a node or kind of node that the graph or the quantiser does not know.
    """
    from onnxruntime.quantization import QDQQuantizer, QuantType, TensorData, TensorsData
    from onnxruntime.quantization.calibrate import CalibrationMethod
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    model = onnx.load(graph)
    known = sorted({*QLinearOpsRegistry, *QDQRegistry})
    for op_type in recipe.op_types:
        if op_type not in known:
            raise unknown_name("kind of node to quantise", op_type, known)
    types = {"int8": QuantType.QInt8, "uint8": QuantType.QUInt8}
    values = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in _cut(model.graph, ranges).items()
    }
    symmetric = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    quantizer = QDQQuantizer(
        model,
        recipe.per_channel,
        recipe.reduce_range,
        types[recipe.weight_type],
        types[recipe.activation_type],
        TensorsData(CalibrationMethod.MinMax, values),
        [],
        list(expand(recipe.exclude, [node.name for node in model.graph.node])),
        list(recipe.op_types or known),
        symmetric if recipe.dialect == "symmetric" else {},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _cut(graph: Any, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The ranges, with those of what goes into a Relu or Clip alone cut to what comes out of it.

    Where that is quantised, ONNX Runtime lets the layer before write the clipped values at once. Where it stays in
    float, levels would be spent on what is then cut off.
    """
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ends, found = {output.name for output in graph.output}, dict(ranges)
    for name in ranges.keys() - ends:
        if [node.op_type for node in readers.get(name, ())] in (["Relu"], ["Clip"]):
            found[name] = ranges.get(readers[name][0].output[0], ranges[name])
    return found
