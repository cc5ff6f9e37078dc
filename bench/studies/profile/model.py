"""The model's side of a profile: its nodes or modules, the layers they belong to, and what these cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.backends import make_backend
from bench.backends.base import ModelFiles, RunsModule
from bench.backends.profiler import node_names
from bench.record.case import Case
from bench.studies.profile.layers import NETWORK, ModelNode
from scarlet.cost import measure_cost
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from torch import nn

    from export.compare.values import OnnxValues


def modules_of(case: Case, files: ModelFiles) -> dict[str, ModelNode]:
    """The modules of the network in the form in which the Case runs it, by name. Needs torch."""
    backend = make_backend(case.backend)
    assert isinstance(backend, RunsModule)
    module = backend.network(case, files)
    costs = measure_cost(module, files.input_size).layers
    return {
        name: ModelNode(name, type(part).__name__, name or NETWORK, multiply_adds=costs.get(name, 0))
        for name, part in module.named_modules()
    }


def nodes_of(files: ModelFiles) -> list[ModelNode]:
    """The nodes of the FP32 graph with their layers. Needs torch where the model is a network of ours.

    A graph of lower precision is made from this one and keeps its names.
    """
    from export.compare.values import OnnxValues

    graph = OnnxValues.load(Path(files.onnx))
    if files.state is None:
        return graph_nodes(graph, {}, graph.multiply_adds())
    return network_nodes(files.network(), graph, files.input_size)


def network_nodes(module: nn.Module, graph: OnnxValues, input_size: int) -> list[ModelNode]:
    """A graph's nodes with the layers of the network that it was exported from, and their multiply-adds."""
    from export.compare.pairing import pair_module
    from export.compare.values import TorchValues

    calls = TorchValues(module).calls(np.zeros((1, 3, input_size, input_size), np.float32))
    try:
        paired = pair_module(module, graph, calls).layers
    except BenchError:  # a graph whose nodes cannot be told: rows bear the nodes' names
        return graph_nodes(graph, {}, graph.multiply_adds())
    times = Counter(call.name for call in calls)
    costs = measure_cost(module, input_size).layers
    layers, multiply_adds = {}, {}
    for layer in paired:
        layers[layer.other] = layer.name
        names = [part.partition(":")[0] for part in layer.name.split(" + ")]
        multiply_adds[layer.other] = sum(costs.get(name, 0) // times[name] for name in names if name in times)
    return graph_nodes(graph, layers, multiply_adds)


def graph_nodes(
    graph: OnnxValues, layers: Mapping[str, str], multiply_adds: Mapping[str, int | None]
) -> list[ModelNode]:
    """A graph's nodes, in its order.

    Args:
        layers: by value. A node whose value is not there bears its own name.
        multiply_adds: for one image, by value; 0 where it is not there.
    """
    nodes = graph.model.graph.node
    return [
        ModelNode(
            name=name,
            op=node.op_type,
            layer=layers.get(node.output[0], name),
            inputs=tuple(filter(None, node.input)),
            outputs=tuple(filter(None, node.output)),
            multiply_adds=multiply_adds.get(node.output[0], 0),
        )
        for node, name in zip(nodes, node_names(nodes), strict=True)
    ]
