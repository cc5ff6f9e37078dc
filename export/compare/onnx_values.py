"""The values inside of an ONNX graph, made outputs of a part of it, a few at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from export.compare.torch_values import Pixels
from scarlet.errors import BenchError

_THREADS = 2
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
OUTPUT = -1  # stands for the graph's outputs among the readers of a value


class OnnxValues:
    """Values inside of an ONNX graph, computed by ONNX Runtime on the CPU.

    Each request runs a part of the graph: the nodes that lead to the values asked for, which become its outputs.
    The runtime's optimisations are off, so that the nodes run as they are written.

    Args:
        model: with its weights; one input.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def load(cls, path: Path) -> OnnxValues:
        """Reads a file.

        Raises:
            BenchError: the file is missing or is no ONNX graph.
        """
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

        try:
            return cls(onnx.load(path))
        except (OSError, DecodeError) as error:
            raise BenchError(
                f"'{path}' cannot be read as an ONNX graph ({type(error).__name__})", "Check the path."
            ) from error

    def of(self, names: Sequence[str], batches: Iterable[Pixels]) -> Generator[dict[str, NDArray[Any]]]:
        """The named values for each batch.

        Raises:
            BenchError: onnxruntime is not installed or cannot run the graph.
        """
        session = _session(self.part(names))
        input_name = session.get_inputs()[0].name
        for batch in batches:
            yield dict(zip(names, session.run(list(names), {input_name: batch}), strict=True))

    def part(self, names: Sequence[str]) -> Any:
        """The graph cut down to the nodes and constants that the named values need; these are its outputs."""
        graph = self.model.graph
        needed = set(names)
        nodes = []
        for node in reversed(graph.node):
            if needed.intersection(node.output):
                nodes.append(node)
                needed.update(node.input)
                needed.update(_outer_names(node))
        tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
        inputs = [value for value in graph.input if value.name in needed or value.name in self.inputs]
        # An output without a type is completed by the runtime.
        outputs = [onnx.ValueInfoProto(name=name) for name in names]
        part = onnx.helper.make_graph(nodes[::-1], graph.name or "part", inputs, outputs, tensors)
        return onnx.helper.make_model(
            part,
            opset_imports=self.model.opset_import,
            ir_version=self.model.ir_version,
            functions=self.model.functions,
        )

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Names of the graph's inputs, weights excepted."""
        return tuple(value.name for value in self.model.graph.input if value.name not in self.constants)

    @cached_property
    def constants(self) -> dict[str, Any]:
        """Initializers by name."""
        return {tensor.name: tensor for tensor in self.model.graph.initializer}

    @cached_property
    def producers(self) -> dict[str, Any]:
        """The node that computes a value, by the value's name."""
        return {name: node for node in self.model.graph.node for name in node.output if name}

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the graph's own outputs."""
        return tuple(value.name for value in self.model.graph.output)

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """The places of the nodes that read a value; ``OUTPUT`` where it is an output of the graph."""
        readers: dict[str, list[int]] = {}
        for place, node in enumerate(self.model.graph.node):
            for name in {*node.input, *_outer_names(node)}:
                readers.setdefault(name, []).append(place)
        for name in self.outputs:
            readers.setdefault(name, []).append(OUTPUT)
        return readers

    def only_reader(self, value: str) -> Any:
        """The node that alone reads a value, or None."""
        places = self.readers.get(value, [])
        return self.model.graph.node[places[0]] if len(places) == 1 and places[0] != OUTPUT else None

    def shape_fits(self, value: str, shape: tuple[int, ...]) -> bool:
        """Whether a value's shape, as far as it is known, could be this one (both without the batch)."""
        known = self.shapes.get(value)
        if not known:
            return True
        return len(known) == len(shape) + 1 and all(
            mine is None or mine == theirs for mine, theirs in zip(known[1:], shape, strict=True)
        )

    @cached_property
    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Shapes of floating-point values, batch included, as far as they can be inferred; None for an open length."""
        graph = onnx.shape_inference.infer_shapes(self.model).graph
        return {
            value.name: tuple(
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            )
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.tensor_type.elem_type in _FLOATS
        }


def _outer_names(node: Any) -> set[str]:
    """Names that the node's subgraphs read; some of them from the graph around."""
    graphs = [
        graph
        for item in node.attribute
        for graph in (*([item.g] if item.HasField("g") else []), *item.graphs)
    ]
    inner = [part for graph in graphs for part in graph.node]
    outputs = {value.name for graph in graphs for value in graph.output}
    return outputs | {name for part in inner for name in (*part.input, *_outer_names(part))}


def _session(model: Any) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BenchError(
            f"layers cannot be compared: onnxruntime does not import ({error})",
            'Install it: pip install "scarlet-bench[cpu]".',
        ) from error
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = _THREADS
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the runtime's own classes derive from Exception alone
        raise BenchError(
            f"onnxruntime cannot run the graph: {str(error).splitlines()[0]}",
            "Check the file with another runtime.",
        ) from error
