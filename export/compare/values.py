"""The values inside of a PyTorch network (by hooks) and of an ONNX graph (a part of it at a time).

Only what is requested is kept, so that memory holds the values under comparison and never all activations.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.parity import cpu_session
from scarlet.errors import BenchError

Pixels = NDArray[np.float32]


class Values(Protocol):
    """Something that computes named values from images."""

    def of(self, names: Sequence[str], batches: Iterable[Pixels]) -> Generator[dict[str, NDArray[Any]]]:
        """The named values of each batch, with the batch as first axis."""
        ...


@dataclass(frozen=True)
class Call:
    """One call of a module during a forward pass.

    Attributes:
        name: dotted name of the module; empty for the whole network.
        index: counts the calls of this module from 0.
        shape: of its output without the batch.
        folds: key of the convolution or linear layer whose output is all that this BatchNorm reads, or "".
    """

    name: str
    index: int
    shape: tuple[int, ...]
    folds: str = ""

    @property
    def key(self) -> str:
        """How ``TorchValues`` names the output of this call."""
        return _key(self.name, self.index)


def _key(name: str, index: int) -> str:
    return f"{name}:{index}" if index else name


class _AllSeen(Exception):
    """Ends a forward pass once everything requested has been computed."""


class TorchValues:
    """Outputs of a network's modules.

    A value's name is the module's dotted name; of a module that is called again, ``name:1`` for its second call.

    Args:
        module: in eval mode, float32, on the CPU.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def of(self, names: Sequence[str], batches: Iterable[Pixels]) -> Generator[dict[str, NDArray[Any]]]:
        """The outputs of the named calls for each batch; the forward pass ends with the last of them."""
        wanted = set(names)
        modules = dict(self.module.named_modules())
        found: dict[str, NDArray[Any]] = {}
        counts: dict[str, int] = {}

        def keep(name: str, output: object) -> None:
            key = _key(name, counts.get(name, 0))
            counts[name] = counts.get(name, 0) + 1
            if key in wanted and isinstance(output, Tensor):
                # Copied, because the activation that follows may work in place.
                found[key] = output.detach().clone().numpy()
                if len(found) == len(wanted):
                    raise _AllSeen

        with ExitStack() as hooks:
            for name in {name.partition(":")[0] for name in wanted}:
                hook = modules[name].register_forward_hook(lambda _, __, output, name=name: keep(name, output))
                hooks.enter_context(hook)
            for batch in batches:
                found.clear()
                counts.clear()
                with suppress(_AllSeen), torch.inference_mode():
                    self.module(torch.from_numpy(np.ascontiguousarray(batch)))
                yield dict(found)

    def calls(self, batch: Pixels) -> list[Call]:
        """Every call of a module that returns one tensor, in the order in which they end; keeps no tensors."""
        calls: list[Call] = []
        counts: dict[str, int] = {}
        last: tuple[str, Tensor] | None = None  # the layer that ended last, if it could be folded into

        def note(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
            nonlocal last
            if not isinstance(output, Tensor):
                return
            folds = ""
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and last and inputs[0] is last[1]:
                folds = last[0]
            call = Call(name, counts.get(name, 0), tuple(output.shape[1:]), folds)
            counts[name] = call.index + 1
            calls.append(call)
            if has_weights(layer):
                last = (call.key, output)
            elif last and output is not last[1]:  # a container hands the same tensor on
                last = None

        with ExitStack() as hooks, torch.inference_mode():
            for name, layer in self.module.named_modules():
                hooks.enter_context(layer.register_forward_hook(partial(note, name)))
            self.module(torch.from_numpy(np.ascontiguousarray(batch[:1])))
        return calls


def has_weights(layer: nn.Module) -> bool:
    """Whether this is a layer that exporters write as Conv, Gemm or MatMul, with its weights as an operand."""
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)


_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
OUTPUT = -1  # stands for the graph's outputs among the readers of a value


class OnnxValues:
    """Values inside of an ONNX graph, computed by ONNX Runtime on the CPU.

    Each request runs a part of the graph: the nodes that lead to the values requested, which become its outputs.
    The runtime's optimisations are off, so that the nodes run as they are written.

    Args:
        model: with its weights; one input.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    @classmethod
    def load(cls, path: Path) -> OnnxValues:
        """Reads a file; BenchError where the file is missing or is no ONNX graph."""
        from google.protobuf.message import DecodeError  # type: ignore[import-untyped, unused-ignore]

        try:
            return cls(onnx.load(path))
        except (OSError, DecodeError) as error:
            raise BenchError(
                f"'{path}' cannot be read as an ONNX graph ({type(error).__name__})", "Check the path."
            ) from error

    def of(self, names: Sequence[str], batches: Iterable[Pixels]) -> Generator[dict[str, NDArray[Any]]]:
        """The named values for each batch; BenchError where onnxruntime is not installed or cannot run the graph."""
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
        """The indices of the nodes that read a value; ``OUTPUT`` where it is an output of the graph."""
        readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.model.graph.node):
            for name in {*node.input, *_outer_names(node)}:
                readers.setdefault(name, []).append(index)
        for name in self.outputs:
            readers.setdefault(name, []).append(OUTPUT)
        return readers

    def only_reader(self, value: str) -> Any:
        """The node that alone reads a value, or None."""
        indices = self.readers.get(value, [])
        return self.model.graph.node[indices[0]] if len(indices) == 1 and indices[0] != OUTPUT else None

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
                dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim
            )
            for value in (*graph.input, *graph.value_info, *graph.output)
            if value.type.tensor_type.elem_type in _FLOATS
        }

    def multiply_adds(self) -> dict[str, int | None]:
        """Multiply-adds for one image of each Conv, Gemm and MatMul with constant weights, by the value it computes.

        For graphs without a network; of others ``scarlet.cost`` tells. None where a shape is not known.
        """
        costs: dict[str, int | None] = {}
        for node in self.model.graph.node:
            if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in self.constants:
                continue
            shape = self.shapes.get(node.output[0])
            if shape is None or any(length is None for length in shape[1:]):
                costs[node.output[0]] = None
            else:
                terms = _terms(node, list(self.constants[node.input[1]].dims))
                costs[node.output[0]] = prod(filter(None, shape[1:])) * terms
        return costs


def _outer_names(node: Any) -> set[str]:
    """Names that the node's subgraphs read; some of them from the graph around."""
    graphs = [graph for item in node.attribute for graph in (*([item.g] if item.HasField("g") else []), *item.graphs)]
    inner = [part for graph in graphs for part in graph.node]
    outputs = {value.name for graph in graphs for value in graph.output}
    return outputs | {name for part in inner for name in (*part.input, *_outer_names(part))}


def _terms(node: Any, weight: Sequence[int]) -> int:
    """How many products make one number of the output."""
    if node.op_type == "Conv":
        return prod(weight[1:])
    transposed = any(item.name == "transB" and item.i for item in node.attribute)
    return int(weight[-1] if transposed else weight[-2])


def _session(model: Any) -> Any:
    try:
        return cpu_session(model.SerializeToString(), "layers cannot be compared", optimised=False)
    except BenchError:
        raise
    except Exception as error:  # the runtime's own classes derive from Exception alone
        raise BenchError(
            f"onnxruntime cannot run the graph: {str(error).splitlines()[0]}", "Check the file with another runtime."
        ) from error
