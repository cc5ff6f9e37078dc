"""Which value of an ONNX graph is which module's output; which values two graphs have in common."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from export.compare.values import Call, OnnxValues, has_weights
from export.onnx import noted_module
from scarlet.errors import BenchError


@dataclass(frozen=True)
class Layer:
    """A value that both sides compute.

    Attributes:
        name: the module's name; with the BatchNorm folded into it, ``conv2 + bn2``; of two graphs, the value's name.
        kind: the module's class, or the node's operator in the reference graph.
        reference: the value's name on the reference side.
        other: the value's name in the graph under test.
        feeds: indices, in the list of all layers, of the nearest values that this one is computed from.
    """

    name: str
    kind: str
    reference: str
    other: str
    node: str
    op: str
    feeds: tuple[int, ...] = ()


def pair_module(module: nn.Module, graph: OnnxValues, calls: Sequence[Call]) -> tuple[Layer, ...]:
    """The values of a graph that are outputs of a module's layers, in the order in which the graph computes them.

    Told by the names of nodes (``stem.1/Conv``, the exporter's metadata, or the scopes of the legacy exporter) or of
    the weights that they read: a module's output is the one value that its nodes compute and that nodes of others
    read. A module called n times must have n such values.

    A convolution whose BatchNorm the exporter folded into it is compared behind the BatchNorm: the value before
    it exists in PyTorch alone.

    Raises:
        BenchError: the graph cannot be matched with the network.
    """
    found = _by_names(module, graph, calls)
    if len(calls) > 2 and all(value in graph.outputs for value in found):  # with the logits alone nothing is to search
        raise BenchError(
            "the graph cannot be matched with the model: neither its nodes nor its weights bear the names of modules",
            "Compare with a graph as torch.onnx.export writes it, or two graphs with --onnx and --against.",
        )
    if calls[-1].name == "" and len(graph.outputs) == 1:
        found.setdefault(graph.outputs[0], calls[-1])  # whatever its shape: that is a difference too
    modules = dict(module.named_modules())
    layers = []
    for value, call in found.items():
        name, kind = call.key, type(modules[call.name]).__name__
        if call.folds and graph.producers[value].op_type != "BatchNormalization":
            kind = f"{type(modules[call.folds.partition(':')[0]]).__name__} + {kind}"
            name = f"{call.folds} + {name}"
        node = graph.producers[value]
        layers.append(Layer(name or "output", kind, call.key, value, node.name, node.op_type))
    return _with_feeds(graph, layers)


def pair_graphs(reference: OnnxValues, other: OnnxValues) -> tuple[Layer, ...]:
    """The floating-point values that two graphs compute under the same name, in the reference's order, and the outputs.

    Graphs made from one another (FP16, quantised, optimised) keep most names. Where the other graph quantises
    a value and turns it back, the value turned back is compared, which is what the next layer reads: quantisers
    drop a ReLU or Clip whose work the quantised range does, and keep its name for the value before it.

    Raises:
        BenchError: there are none.
    """
    of_both = reference.shapes.keys() & other.producers.keys() & other.shapes.keys()
    same = {value: value for value in reference.producers if value in of_both}
    if not same:
        raise BenchError(
            "the two graphs have no floating-point value of the same name in common",
            "Make one of the graphs from the other, with a tool that keeps names.",
        )
    if len(reference.outputs) == len(other.outputs) == 1:
        same.setdefault(reference.outputs[0], other.outputs[0])
    layers = [
        Layer(
            name=value,
            kind=reference.producers[value].op_type,
            reference=value,
            other=_turned_back(other, its_other),
            node=other.producers[its_other].name,
            op=other.producers[its_other].op_type,
        )
        for value, its_other in same.items()
    ]
    return _with_feeds(other, layers)


def _turned_back(graph: OnnxValues, value: str) -> str:
    """The output of the DequantizeLinear behind a value that is read through QuantizeLinear alone, or the value."""
    quantise = graph.only_reader(value)
    if quantise is None or quantise.op_type != "QuantizeLinear":
        return value
    indices = graph.readers.get(quantise.output[0], [])
    back = [graph.model.graph.node[index] for index in indices if index >= 0]
    outputs = [node.output[0] for node in back if node.op_type == "DequantizeLinear"]
    return str(outputs[0]) if outputs else value


def _with_feeds(graph: OnnxValues, layers: Sequence[Layer]) -> tuple[Layer, ...]:
    indices = {layer.other: index for index, layer in enumerate(layers)}
    return tuple(replace(layer, feeds=tuple(sorted(_feeds(graph, layer.other, indices)))) for layer in layers)


def _feeds(graph: OnnxValues, value: str, indices: dict[str, int]) -> set[int]:
    """The paired values nearest above a value, through any nodes without a partner."""
    found: set[int] = set()
    waiting, seen = list(graph.producers[value].input), {value}
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name in indices:
            found.add(indices[name])
        elif name in graph.producers:
            waiting.extend(graph.producers[name].input)
    return found


def _by_names(module: nn.Module, graph: OnnxValues, calls: Sequence[Call]) -> dict[str, Call]:
    """Value -> the first call whose output it is (the innermost: it ends before those around it)."""
    modules = dict(module.named_modules())
    nodes = list(graph.model.graph.node)
    scopes = [_scope(node, graph.constants) for node in nodes]
    calls_of: dict[str, list[Call]] = {}
    for call in calls:
        calls_of.setdefault(call.name, []).append(call)
    found: dict[str, Call] = {}
    for name, own_calls in calls_of.items():
        inside = {index for index, scope in enumerate(scopes) if _within(scope, name)}
        exits = [
            value
            for index in sorted(inside)
            for value in nodes[index].output
            if any(reader not in inside for reader in graph.readers.get(value, ()))
        ]
        if len(exits) != len(own_calls):
            continue
        for value, call in zip(exits, own_calls, strict=True):
            behind = _behind_batch_norm(call, calls, scopes, modules)
            if graph.shape_fits(value, behind.shape):
                found.setdefault(value, behind)
    order = {name: index for index, name in enumerate(graph.producers)}
    return {value: found[value] for value in sorted(found, key=order.__getitem__)}


def _behind_batch_norm(call: Call, calls: Sequence[Call], scopes: Sequence[str], modules: dict[str, nn.Module]) -> Call:
    """The call of the BatchNorm that was folded into this layer, or the call itself.

    PyTorch's legacy exporter keeps the convolution's name on the folded node, the dynamo exporter gives it the
    BatchNorm's.
    """
    if not has_weights(modules[call.name]):
        return call
    norm = next((later for later in calls if later.folds == call.key), None)
    return norm if norm is not None and not any(_within(scope, norm.name) for scope in scopes) else call


def _within(scope: str, name: str) -> bool:
    return not name or scope == name or scope.startswith(f"{name}.")


def _scope(node: Any, constants: Container[str]) -> str:
    """The dotted name of the module that a node comes from, or "" where nothing says it."""
    if (noted := noted_module(node)) is not None:
        return noted
    path, _, _ = node.name.rpartition("/")
    if not path:
        return next((name.rpartition(".")[0] for name in node.input[1:] if name in constants and "." in name), "")
    if not path.startswith("/"):
        return str(path)
    # The legacy exporter: /layer1/layer1.0/conv1/Conv, where a part may repeat the one before it.
    parts: list[str] = []
    for part in path.strip("/").split("/"):
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(parts)
