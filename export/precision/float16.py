"""FP32 ONNX -> FP16 or BF16 ONNX, strongly typed: the types are in the graph; inputs and outputs stay float32."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.precision.int8 import converted, expand, name_nodes
from scarlet.errors import BenchError, error_text

# The first opset in which Conv, GlobalAveragePool and HardSwish may be BF16.
BF16_OPSET = 22

FP16_MAX = float(np.finfo(np.float16).max)

# Their output's type comes from an attribute, or they hold graphs of their own: they stay in FP32.
_STAY_FLOAT = {"Bernoulli", "ConstantOfShape", "EyeLike", "Multinomial"}
_STAY_FLOAT |= {f"Random{kind}{like}" for kind in ("Normal", "Uniform") for like in ("", "Like")}
_STAY_FLOAT |= {"If", "Loop", "Scan", "SequenceMap"}


def to_float16(model: Any, exclude: Collection[str] = ()) -> Any:
    """The model in FP16, by onnxconverter-common. Its list of operators that stay in FP32 (Resize, Min, Max) holds.

    Weights above FP16's largest number become that number; those under 1e-7 in size become 1e-7, so that nothing
    that is divided by turns to zero.

    Args:
        exclude: nodes to leave in FP32; wildcards of ``fnmatch``.

    Raises:
        BenchError: the model holds FP16 already, or ``exclude`` fits no node.
    """
    from onnxconverter_common import float16

    # The converter names its casts after nodes.
    name_nodes(model)
    stay = list(expand(exclude, [node.name for node in model.graph.node]))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one for every tensor with a tiny weight
            return float16.convert_float_to_float16(
                model, max_finite_val=FP16_MAX, keep_io_types=True, node_block_list=stay
            )
    except ValueError as error:
        if "already converted" not in str(error):
            raise
        raise BenchError("the graph holds FP16 already", "Give the FP32 graph.") from error


def to_bfloat16(model: Any, exclude: Collection[str] = ()) -> Any:
    """The model in BF16: float constants rounded to the nearest, every node whose schema allows it in BF16.

    A node stays in FP32, between casts, where ONNX allows it no BF16, where its own attributes fix the type, where
    it is of another domain than ONNX's, and where ``exclude`` names it.

    Args:
        exclude: nodes to leave in FP32; wildcards of ``fnmatch``.

    Raises:
        BenchError: the graph cannot be brought to opset 22, or ``exclude`` fits no node.
    """
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    if opset < BF16_OPSET:
        model = converted(model, BF16_OPSET)
    name_nodes(model)
    model = onnx.shape_inference.infer_shapes(model, check_type=True)
    names = [node.name for node in model.graph.node]
    return _BFloat16(model, set(expand(exclude, names))).convert()


class _BFloat16:
    """One conversion: which values are BF16 now, and the casts between the two kinds."""

    def __init__(self, model: Any, exclude: set[str]) -> None:
        self._model, self._graph, self._exclude = model, model.graph, exclude
        self._opset = next(e.version for e in model.opset_import if e.domain in ("", "ai.onnx"))
        _constants_to_initialisers(self._graph)
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        values = (*self._graph.input, *self._graph.value_info, *self._graph.output)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types |= {name: tensor.data_type for name, tensor in self._weights.items()}
        self._taken = {*self._types, *(name for node in self._graph.node for name in node.output)}
        self._now_bf16: set[str] = set()
        self._made: dict[tuple[str, int], str] = {}
        self._nodes: list[Any] = []

    def convert(self) -> Any:
        outputs = {value.name for value in self._graph.output}
        for node in self._graph.node:
            short = self._may_be_bf16(node)
            wanted = TensorProto.BFLOAT16 if short else TensorProto.FLOAT
            for index, name in enumerate(node.input):
                if self._types.get(name) == TensorProto.FLOAT:
                    node.input[index] = self._as(name, wanted)
            self._nodes.append(node)
            if not short:
                continue
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                    attribute.i = TensorProto.BFLOAT16
            for index, name in enumerate(node.output):
                if self._types.get(name) != TensorProto.FLOAT:
                    continue
                if name in outputs:  # its name and type belong to the graph's reader
                    inner = self._new_name(f"{name}_bf16")
                    node.output[index] = inner
                    self._nodes.append(_cast(inner, name, TensorProto.FLOAT))
                    self._made[name, TensorProto.BFLOAT16] = inner
                else:
                    self._now_bf16.add(name)
        used = {name for node in self._nodes for name in node.input} | outputs
        _replace(self._graph.node, self._nodes)
        _replace(self._graph.initializer, [t for t in self._graph.initializer if t.name in used])
        # What was known of the values' types is no longer true; it is inferred anew.
        del self._graph.value_info[:]
        return onnx.shape_inference.infer_shapes(self._model, check_type=True, strict_mode=True)

    def _may_be_bf16(self, node: Any) -> bool:
        if node.domain not in ("", "ai.onnx") or node.op_type in _STAY_FLOAT or node.name in self._exclude:
            return False
        schema = onnx.defs.get_schema(node.op_type, self._opset)
        allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
        formal = [*_formal(schema.inputs, node.input), *_formal(schema.outputs, node.output)]
        floats = [kind for kind, name in formal if self._types.get(name) == TensorProto.FLOAT]
        # A kind that is no parameter of the schema ("tensor(float)") is fixed.
        return bool(floats) and all("tensor(bfloat16)" in allowed.get(kind, ()) for kind in floats)

    def _as(self, name: str, wanted: int) -> str:
        """The name under which the float value ``name`` is had in the type ``wanted``; casts where it has to."""
        if (name in self._now_bf16) == (wanted == TensorProto.BFLOAT16):
            return name
        if (name, wanted) not in self._made:
            other = self._new_name(f"{name}_{'bf16' if wanted == TensorProto.BFLOAT16 else 'fp32'}")
            self._made[name, wanted] = other
            if name in self._weights:
                self._graph.initializer.append(_rounded(self._weights[name], other))
            else:
                self._nodes.append(_cast(name, other, wanted))
        return self._made[name, wanted]

    def _new_name(self, name: str) -> str:
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name


def _formal(parameters: Any, names: Any) -> list[tuple[str, str]]:
    """Each actual value's formal type; the last parameter may stand for any number of values."""
    if not len(parameters):
        return []
    last = len(parameters) - 1
    return [(parameters[min(index, last)].type_str, name) for index, name in enumerate(names) if name]


def _constants_to_initialisers(graph: Any) -> None:
    kept = []
    for node in graph.node:
        tensor = next((item.t for item in node.attribute if item.name == "value"), None)
        if node.op_type != "Constant" or tensor is None:
            kept.append(node)
            continue
        moved = graph.initializer.add()
        moved.CopyFrom(tensor)
        moved.name = node.output[0]
    _replace(graph.node, kept)


def _rounded(tensor: Any, name: str) -> Any:
    import ml_dtypes

    values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
    return numpy_helper.from_array(values, name)


def _cast(source: str, target: str, kind: int) -> Any:
    return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=kind)


def _replace(repeated: Any, items: list[Any]) -> None:
    copies = list(items)
    del repeated[:]
    repeated.extend(copies)


def check_runs(path: Path) -> None:
    """Loads the graph into ONNX Runtime on the CPU and runs one blank image, or one batch of a fixed graph.

    The CPU computes FP16 nodes in FP32, so that a value too large for FP16 need not show here: accuracy tells.

    Raises:
        BenchError: it does not load or run, or what comes out is not finite.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        wanted = session.get_inputs()[0]
        # An open height or width is given the usual one.
        shape = [size if isinstance(size, int) else 1 for size in wanted.shape[:2]]
        shape += [size if isinstance(size, int) else 224 for size in wanted.shape[2:]]
        logits = session.run(None, {wanted.name: np.zeros(shape, np.float32)})[0]
    except Exception as error:  # its exceptions have no common type that it exports
        reason = error_text(error)
        raise BenchError(
            f"the converted graph does not run: {reason}", "Leave the named node in float with `exclude`."
        ) from error
    if logits.dtype != np.float32 or not np.isfinite(logits).all():
        raise BenchError(
            "the converted graph gives logits that are not finite",
            "Leave the layers with large values in float with `exclude`, or use another precision.",
        )
