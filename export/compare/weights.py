"""The weights of a layer and of a graph's node: whether they are the same, and which node is which layer by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from export.compare.values import Call, OnnxValues, has_weights
from scarlet.errors import BenchError

# Of the largest weight of a layer. Folding BatchNorm is a few roundings in float32 on either side.
SAME_WEIGHT = 1e-5


@dataclass(frozen=True)
class Weights:
    """A layer's operands, first axis: output channels. ``bias`` is None where there is none."""

    weight: NDArray[Any]
    bias: NDArray[Any] | None


@dataclass(frozen=True)
class WeightDifference:
    """How a stored tensor differs from what it should be.

    Attributes:
        differing: the numbers of those that differ, ascending; empty where none does.
        max_abs_diff: the largest difference of one weight; NaN where the shapes differ.
    """

    name: str
    channels: int
    differing: tuple[int, ...]
    max_abs_diff: float

    def text(self) -> str:
        """One sentence, such as ``weight conv2.weight differs in 1 of 96 channels (17)``."""
        if not self.differing:
            return f"weight {self.name} is the same"
        some = ", ".join(map(str, self.differing[:_NAMED])) + (", ..." if len(self.differing) > _NAMED else "")
        return f"weight {self.name} differs in {len(self.differing)} of {self.channels} channels ({some})"


_NAMED = 5


def expected_weights(layer: nn.Module, norm: nn.Module | None) -> Weights:
    """The operands of a convolution or linear layer, with a BatchNorm folded in where one is given."""
    assert has_weights(layer)
    weight: Any = layer.weight
    bias: Any = layer.bias
    if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.running_mean is not None:
        fuse: Any = fuse_linear_bn_weights if isinstance(layer, nn.Linear) else fuse_conv_bn_weights
        weight, bias = fuse(weight, bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    with torch.no_grad():
        return Weights(weight.detach().numpy(), None if bias is None else bias.detach().numpy())


def stored_weights(graph: OnnxValues, node: Any) -> Weights:
    """The operands that a Conv, Gemm or MatMul node reads from initializers, output channels first."""
    weight = numpy_helper.to_array(graph.constants[node.input[1]])
    transposed = any(item.name == "transB" and item.i for item in node.attribute)
    if node.op_type != "Conv" and not transposed and weight.ndim == 2:
        weight = weight.T
    bias = node.input[2] if len(node.input) > 2 else ""
    return Weights(weight, numpy_helper.to_array(graph.constants[bias]) if bias in graph.constants else None)


def same_channels(expected: NDArray[Any], found: NDArray[Any]) -> NDArray[np.bool_]:
    """For each output channel, whether all its weights are the same to rounding; the shapes are equal."""
    scale = float(np.max(np.abs(expected), initial=0.0))
    close = np.abs(expected.astype(np.float64) - found) <= SAME_WEIGHT * scale
    result: NDArray[np.bool_] = close.reshape(len(expected), -1).all(axis=1)
    return result


def compare_with_module(
    module: nn.Module, calls: Sequence[Call], key: str, graph: OnnxValues, value: str
) -> tuple[WeightDifference, ...]:
    """The weights of the node that computes ``value`` against those of the module whose call is ``key``.

    Returns:
        One entry for the weight and one for the bias; none where either side has no plain weights there.
    """
    modules = dict(module.named_modules())
    call = next(call for call in calls if call.key == key)
    node = _with_weights(graph, value)
    folded = next((other for other in calls if call.folds and other.key == call.folds), None)
    layer = modules[folded.name if folded else call.name]
    if node is None or not has_weights(layer):
        return ()
    norm = modules[call.name] if folded else None
    names = [node.input[1], *node.input[2:3]]
    return _differences(names, expected_weights(layer, norm), stored_weights(graph, node))


def compare_graphs(reference: OnnxValues, other: OnnxValues, value: str) -> tuple[WeightDifference, ...]:
    """The weights of the nodes that compute the value of this name in two graphs.

    None where either graph holds them otherwise than as floating-point constants.
    """
    nodes = _with_weights(reference, value), _with_weights(other, value)
    if nodes[0] is None or nodes[1] is None:
        return ()
    names = [nodes[1].input[1], *nodes[1].input[2:3]]
    return _differences(names, stored_weights(reference, nodes[0]), stored_weights(other, nodes[1]))


def _with_weights(graph: OnnxValues, value: str) -> Any:
    """The node that computes a value, if its weights are an initializer of floating-point numbers."""
    node = graph.producers.get(value)
    if node is not None and node.op_type == "Add":  # the bias of a MatMul
        node = next((graph.producers[name] for name in node.input if name in graph.producers), None)
    return node if node is not None and _has_stored(graph, node) else None


def _has_stored(graph: OnnxValues, node: Any) -> bool:
    """Whether a node multiplies by weights that are stored in the graph."""
    return node.op_type in {"Conv", "Gemm", "MatMul"} and len(node.input) > 1 and node.input[1] in graph.constants


def _differences(names: Sequence[str], expected: Weights, found: Weights) -> tuple[WeightDifference, ...]:
    entries = []
    pairs = ((expected.weight, found.weight), (expected.bias, found.bias))
    for name, (mine, theirs) in zip(names, pairs, strict=False):
        if mine is None or theirs is None or mine.dtype != theirs.dtype:
            continue  # FP16 weights are others by design
        if mine.shape != theirs.shape:
            entries.append(WeightDifference(name, len(mine), tuple(range(len(mine))), float("nan")))
            continue
        same = same_channels(mine, theirs)
        largest = float(np.max(np.abs(mine.astype(np.float64) - theirs), initial=0.0))
        entries.append(WeightDifference(name, len(mine), tuple(np.flatnonzero(~same).tolist()), largest))
    return tuple(entries)


def match_by_weights(module: nn.Module, graph: OnnxValues, calls: Sequence[Call]) -> dict[str, Call]:
    """Value of the graph -> the call whose output it is, for layers with weights (and a BatchNorm folded in).

    Raises:
        BenchError: not every layer finds its partner.
    """
    modules = dict(module.named_modules())
    nodes = [node for node in graph.model.graph.node if _has_stored(graph, node)]
    layers = [call for call in calls if has_weights(modules[call.name])]
    found: dict[str, Call] = {}
    for node, call in _match(modules, graph, nodes, layers, calls):
        value = node.output[0]
        follower = graph.only_reader(value)
        if node.op_type == "MatMul" and follower is not None and follower.op_type == "Add":
            value = follower.output[0]  # a linear layer's bias
            follower = graph.only_reader(value)
        norm = next((later for later in calls if later.folds == call.key), None)
        if norm is not None and not (follower is not None and follower.op_type == "BatchNormalization"):
            call = norm
        if graph.shape_fits(value, call.shape):
            found[value] = call
    return found


def _match(
    modules: dict[str, nn.Module],
    graph: OnnxValues,
    nodes: Sequence[Any],
    layers: Sequence[Call],
    calls: Sequence[Call],
) -> list[tuple[Any, Call]]:
    """Each node with its layer: by the initializer's name, then by values, then by order among equal shapes."""
    norms = {later.folds: modules[later.name] for later in calls if later.folds}
    stored = [stored_weights(graph, node) for node in nodes]
    free, matched = list(layers), dict[int, Call]()
    ways: tuple[Callable[[int, Call], bool], ...] = (
        lambda index, call: bool(nodes[index].input[1].removesuffix(".weight") == call.name),
        lambda index, call: _same_weights(modules, norms, call, stored[index]),
        lambda index, call: expected_weights(modules[call.name], None).weight.shape == stored[index].weight.shape,
    )
    for fits in ways:
        for index in range(len(nodes)):
            chosen = next((call for call in free if index not in matched and fits(index, call)), None)
            if chosen is not None:
                matched[index] = chosen
                free.remove(chosen)
    if free or len(matched) != len(nodes) or not nodes:
        raise BenchError(
            f"the graph cannot be matched with the model: it has {len(nodes)} layers with weights, the model "
            f"{len(layers)}, and {len(free)} of these find no partner by name, values or shape",
            "Compare with an export of this model, or two graphs with --onnx and --against.",
        )
    return [(node, matched[index]) for index, node in enumerate(nodes)]


def _same_weights(modules: dict[str, nn.Module], norms: dict[str, nn.Module], call: Call, stored: Weights) -> bool:
    """Whether most output channels hold the layer's weights, with or without its BatchNorm folded in."""
    for norm in (None, norms.get(call.key)):
        expected = expected_weights(modules[call.name], norm).weight
        if expected.shape == stored.weight.shape and np.mean(same_channels(expected, stored.weight)) > 0.5:
            return True
    return False
