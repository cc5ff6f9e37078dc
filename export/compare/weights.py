"""The weights of a layer and of a graph's node: whether they are the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights, fuse_linear_bn_weights

from export.compare.pairing import Layer
from export.compare.values import OnnxValues, has_weights

# Of the largest weight of a layer. Folding BatchNorm is a few roundings in float32 on either side.
SAME_WEIGHT = 1e-5


class Weights(NamedTuple):
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


def compare_with_module(module: nn.Module, graph: OnnxValues, layer: Layer) -> tuple[WeightDifference, ...]:
    """The weights of the node that computes a layer's value against those of the module.

    Returns:
        One entry for the weight and one for the bias; none where either side has no plain weights there.
    """
    modules = dict(module.named_modules())
    own, *norms = (modules.get(part.partition(":")[0]) for part in layer.name.split(" + "))
    node = _with_weights(graph, layer.other)
    if node is None or own is None or not has_weights(own):
        return ()
    return _differences(node, expected_weights(own, norms[0] if norms else None), stored_weights(graph, node))


def compare_graphs(reference: OnnxValues, other: OnnxValues, layer: Layer) -> tuple[WeightDifference, ...]:
    """The weights of the nodes that compute a value in two graphs.

    None where either graph holds them otherwise than as floating-point constants.
    """
    mine, its = _with_weights(reference, layer.reference), _with_weights(other, layer.other)
    if mine is None or its is None:
        return ()
    return _differences(its, stored_weights(reference, mine), stored_weights(other, its))


def _with_weights(graph: OnnxValues, value: str) -> Any:
    """The node that computes a value, if it multiplies by weights that are stored in the graph; else None."""
    node = graph.producers.get(value)
    if node is not None and node.op_type == "Add":  # the bias of a MatMul
        node = next((graph.producers[name] for name in node.input if name in graph.producers), None)
    if node is None or node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in graph.constants:
        return None
    return node


def _differences(node: Any, expected: Weights, found: Weights) -> tuple[WeightDifference, ...]:
    entries = []
    for name, mine, theirs in zip(node.input[1:3], expected, found, strict=False):
        if mine is None or theirs is None or mine.dtype != theirs.dtype:
            continue  # FP16 weights are others by design
        if mine.shape != theirs.shape:
            entries.append(WeightDifference(name, len(mine), tuple(range(len(mine))), float("nan")))
            continue
        same = same_channels(mine, theirs)
        largest = float(np.max(np.abs(mine.astype(np.float64) - theirs), initial=0.0))
        entries.append(WeightDifference(name, len(mine), tuple(np.flatnonzero(~same).tolist()), largest))
    return tuple(entries)
