"""The graph that ONNX Runtime really runs: written out after its rewritings, and read back."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.backends.precision import Layer

_FLOAT = (*("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"),)
# What rewritings add to the name of the layer that they replace.
_ADDED = re.compile(r"^InsertedPrecisionFreeCast_|(_token_\d+|_nchwc|_nhwc)$")

# The version that first says which provider each node was given; Python 3.10 has none so new.
ASSIGNMENT_SINCE = "1.24.1"


class Node(NamedTuple):
    """A node of a graph, and the provider that it was given."""

    name: str
    operation: str
    provider: str


def tells_assignment(onnxruntime: Any) -> bool:
    """Whether sessions of this version say which provider each node was given."""
    return hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info")


def assigned_nodes(session: Any) -> list[Node]:
    """Every node of a session's graph, as the session itself says."""
    return [
        Node(node.name, node.op_type, subgraph.ep_name)
        for subgraph in session.get_provider_graph_assignment_info()
        for node in subgraph.get_nodes()
    ]


def profiled_nodes(
    onnxruntime: Any, graph: str, options: Any, providers: list[Any], shape: tuple[int, ...]
) -> list[Node]:
    """Every node that ran in one profiled pass over zeros, for versions that tell no assignment.

    The pass is a second session's, because profiling costs time that the timed session must not pay. Its nodes are
    those after all rewritings.

    Args:
        options: settings of the timed session; changed here.
    """
    with tempfile.TemporaryDirectory() as folder:
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
        session.run(None, {session.get_inputs()[0].name: np.zeros(shape, np.float32)})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [
        Node(event["name"].removesuffix("_kernel_time"), event["args"]["op_name"], event["args"]["provider"])
        for event in events
        if event.get("cat") == "Node" and "provider" in event.get("args", {})
    ]


def final_layers(onnxruntime: Any, graph: str, options: Any, providers: list[Any]) -> list[Layer]:
    """Every convolution and matrix product of the graph after ONNX Runtime's rewritings.

    A second session is made for it, because the written copy of the graph costs time and disk that the timed session
    must not pay.

    Args:
        options: settings of the session; changed here.
        providers: as of the timed session; names, or pairs of a name and options.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "final.onnx"
        options.optimized_model_filepath = str(written)
        onnxruntime.InferenceSession(graph, options, providers=providers, enable_fallback=0)
        return layers_of(onnx.load(written))


def layers_of(model: Any) -> list[Layer]:
    """The convolutions and matrix products of a graph of ONNX Runtime's, with what they compute in.

    A float layer computes in the type of its weights, or of its data where both come from other nodes.
    """
    from onnx import TensorProto

    from export.precision.audit import INTEGER

    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    values = (*model.graph.input, *model.graph.value_info)
    found = {value.name: value.type.tensor_type.elem_type for value in values} | types
    layers = []
    for node in model.graph.node:
        if node.op_type in INTEGER:  # ONNX Runtime puts them in the place of a layer between Q/DQ pairs
            type_ = "int8"
        elif node.op_type in _FLOAT:
            known = [found[name] for name in (node.input[1], node.input[0]) if name in found]
            type_ = _TYPE_NAMES.get(TensorProto.DataType.Name(known[0]), "float32") if known else "float32"
        else:
            continue
        layers.append(Layer(_plain(node.name or node.output[0]), node.op_type, type_))
    return layers


_TYPE_NAMES = {"FLOAT16": "float16", "BFLOAT16": "bfloat16", "DOUBLE": "float64"}


def _plain(name: str) -> str:
    while (shorter := _ADDED.sub("", name)) != name:
        name = shorter
    return name
