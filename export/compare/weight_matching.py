"""Which node of an ONNX graph is which layer, where names of nodes do not say it: told by weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import nn

from export.compare.onnx_values import OnnxValues
from export.compare.torch_values import Call, has_weights
from export.compare.weights import Weights, expected_weights, same_channels, stored_weights
from scarlet.errors import BenchError

_WITH_WEIGHTS = {"Conv", "Gemm", "MatMul"}


def match_by_weights(module: nn.Module, graph: OnnxValues, calls: Sequence[Call]) -> dict[str, Call]:
    """Value of the graph -> the call whose output it is, for layers with weights (and a BatchNorm folded in).

    Raises:
        BenchError: not every layer finds its partner.
    """
    modules = dict(module.named_modules())
    nodes = [
        node
        for node in graph.model.graph.node
        if node.op_type in _WITH_WEIGHTS and len(node.input) > 1 and node.input[1] in graph.constants
    ]
    layers = [call for call in calls if has_weights(modules[call.name])]
    matched = _match(modules, graph, nodes, layers, calls)
    found: dict[str, Call] = {}
    for node, call in matched:
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
    free = list(layers)
    matched: dict[int, Call] = {}

    def take(place: int, candidates: Iterable[Call]) -> None:
        chosen = next(iter(candidates), None)
        if chosen is not None:
            matched[place] = chosen
            free.remove(chosen)

    stored = [stored_weights(graph, node) for node in nodes]
    for place, node in enumerate(nodes):
        name = node.input[1].removesuffix(".weight")
        take(place, [call for call in free if call.name == name])
    for place in range(len(nodes)):
        if place not in matched:
            take(place, [call for call in free if _same_weights(modules, norms, call, stored[place])])
    for place in range(len(nodes)):
        if place not in matched:
            shape = stored[place].weight.shape
            take(
                place,
                [call for call in free if expected_weights(modules[call.name], None).weight.shape == shape],
            )
    if free or len(matched) != len(nodes) or not nodes:
        raise BenchError(
            f"the graph cannot be matched with the model: it has {len(nodes)} layers with weights, the model "
            f"{len(layers)}, and {len(free)} of these find no partner by name, values or shape",
            "Compare with an export of this model, or two graphs with --onnx and --against.",
        )
    return [(node, matched[place]) for place, node in enumerate(nodes)]


def _same_weights(
    modules: dict[str, nn.Module], norms: dict[str, nn.Module], call: Call, stored: Weights
) -> bool:
    """Whether most output channels hold the layer's weights, with or without its BatchNorm folded in."""
    for norm in (None, norms.get(call.key)):
        expected = expected_weights(modules[call.name], norm).weight
        if expected.shape == stored.weight.shape and np.mean(same_channels(expected, stored.weight)) > 0.5:
            return True
    return False
