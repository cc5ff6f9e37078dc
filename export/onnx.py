"""torch -> ONNX: the dynamo exporter, then the few rewrites that runtimes need to be fast."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from scarlet.errors import BenchError

INPUT = "input"
OUTPUT = "logits"
BATCH = "batch"

# 18 is what the exporter writes itself, so that nothing is converted; from 22 on, ONNX Runtime's CUDA provider
# leaves MaxPool to the CPU.
OPSET = 18
# Goes up when a change here alters the graph's meaning for its readers; it is written into the file.
REVISION = 1

_EXAMPLE_BATCH = 2  # the exporter would take 0 and 1 for constants
_NAME_SCOPES = "pkg.torch.onnx.name_scopes"


def versions() -> dict[str, str]:
    """The packages whose versions decide what the exporter writes."""
    import onnx_ir
    import onnxscript

    return {
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxscript": onnxscript.__version__,
        "onnx_ir": onnx_ir.__version__,
    }


def export_onnx(module: nn.Module, path: Path, input_size: int, metadata: Mapping[str, str]) -> None:
    """Writes a network as an ONNX file that was checked, with a dynamic batch.

    The input ``input`` is float32, ``(batch, 3, input_size, input_size)``; the output ``logits`` is
    ``(batch, classes)``. BatchNorm is folded into convolutions, global means are GlobalAveragePool, flattening is
    Flatten (no chain of Shape and Gather, which would keep a graph off an accelerator), nodes are named after
    the module they come from. The file holds ``metadata``, the opset and versions as metadata, and nothing of
    the machine it was made on. Equal networks give equal bytes.

    Args:
        module: takes one image batch; put into eval mode for the export and back afterwards.
        input_size: height and width in pixels; fixed in the graph.
        metadata: what to write into the file besides (model, weights, weights_sha256).

    Raises:
        BenchError: the exporter cannot express the network.
        OSError: the file cannot be written.
    """
    model = _exported(module, input_size)
    _use_global_average_pool(model.graph)
    _use_flatten(model.graph)
    _drop_unused(model.graph)
    _rename(model.graph)
    _strip(model)
    entries = {
        **metadata,
        "input_size": str(input_size),
        "opset": str(OPSET),
        **{f"{name}_version": version for name, version in versions().items()},
        "exporter_revision": str(REVISION),
    }
    onnx.helper.set_model_props(model, dict(sorted(entries.items())))
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _exported(module: nn.Module, size: int) -> Any:
    example = torch.zeros(_EXAMPLE_BATCH, 3, size, size)
    training = module.training
    module.eval()
    names: dict[str, Any] = {"verbose": False, "input_names": [INPUT], "output_names": [OUTPUT]}
    try:
        with _quiet(), torch.no_grad():
            if isinstance(module, torch.jit.ScriptModule):  # which the newer exporter does not take
                axes = {INPUT: {0: BATCH}, OUTPUT: {0: BATCH}}
                file: Any = io.BytesIO()
                names |= {"dynamic_axes": axes, "dynamo": False, "opset_version": OPSET}
                torch.onnx.export(module, (example,), file, **names)
                return onnx.shape_inference.infer_shapes(onnx.load_from_string(file.getvalue()))
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=({0: torch.export.Dim(BATCH)},),
                **names,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        cause = error.__cause__ or error
        reason = next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
        raise BenchError(
            f"{type(module).__name__} cannot be exported to ONNX: {reason}",
            "Use --backends pytorch for this model.",
            stage="export",
        ) from error
    finally:
        module.train(training)
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's notes (absent torchvision, deprecations inside torch) off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _shapes(graph: Any) -> dict[str, list[int | str]]:
    """The shape of each value that has one: numbers, or names of open dimensions ("" where it has no name)."""
    return {
        value.name: [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in value.type.tensor_type.shape.dim
        ]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }


def _use_global_average_pool(graph: Any) -> None:
    """ReduceMean over height and width -> GlobalAveragePool, which keeps ONNX Runtime's blocked layout."""
    shapes, constants = _shapes(graph), {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "ReduceMean" or len(node.input) != 2 or node.input[1] not in constants:
            nodes.append(node)
            continue
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
        rank = len(shapes.get(node.input[0], []))
        if rank != 4 or sorted(axis % 4 for axis in np.atleast_1d(axes)) != [2, 3]:
            nodes.append(node)
            continue
        keepdims = next((item.i for item in node.attribute if item.name == "keepdims"), 1)
        result = node.output[0]
        pooled = result if keepdims else f"{result}_pooled"
        pool = onnx.helper.make_node("GlobalAveragePool", [node.input[0]], [pooled])
        pool.metadata_props.extend(node.metadata_props)
        nodes.append(pool)
        if not keepdims:
            flatten = onnx.helper.make_node("Flatten", [pooled], [result], axis=1)
            flatten.metadata_props.extend(node.metadata_props)
            nodes.append(flatten)
    _replace_nodes(graph, nodes)


def _use_flatten(graph: Any) -> None:
    """A Reshape of ``(batch, a, b, ...)`` to ``(batch, a * b * ...)`` -> Flatten, whose shape needs no input."""
    shapes = _shapes(graph)
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        before, after = shapes.get(node.input[0], []), shapes.get(node.output[0], [])
        if len(before) < 2 or len(after) != 2 or not before[0] or before[0] != after[0]:
            continue
        if all(isinstance(dim, int) for dim in (*before[1:], after[1])):
            del node.input[1:]
            del node.attribute[:]
            node.op_type = "Flatten"
            node.attribute.append(onnx.helper.make_attribute("axis", 1))


def _drop_unused(graph: Any) -> None:
    """Removes nodes and constants that no longer lead to an output."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output) or any(_has_subgraph(item) for item in node.attribute):
            needed.update(node.input)
            kept.append(node)
    _replace_nodes(graph, kept[::-1])
    produced = {name for node in graph.node for name in node.output}
    if any(_has_subgraph(item) for node in graph.node for item in node.attribute):
        return  # a subgraph may read any constant
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    values = [value for value in graph.value_info if value.name in produced]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(tensors)
    graph.value_info.extend(values)


def _rename(graph: Any) -> None:
    """Names nodes and values after their module (``mb_module.0.conv1/Conv``), the same in every export.

    The exporter's own names hold counters (``mul_4346``) that say nothing to a reader.
    """
    if any(_has_subgraph(item) for node in graph.node for item in node.attribute):
        return  # names inside of subgraphs may refer to outer ones
    fixed = {value.name for value in (*graph.input, *graph.output)}
    new_names: dict[str, str] = {}
    used: Counter[str] = Counter()
    for node in graph.node:
        scope = noted_module(node)
        base = f"{scope}/{node.op_type}" if scope else node.op_type
        used[base] += 1
        node.name = base if used[base] == 1 else f"{base}_{used[base]}"
        for index, name in enumerate(node.output):
            if name and name not in fixed:
                new_names[name] = node.name if index == 0 else f"{node.name}:{index}"
    for node in graph.node:
        node.input[:] = [new_names.get(name, name) for name in node.input]
        node.output[:] = [new_names.get(name, name) for name in node.output]
    for value in graph.value_info:
        value.name = new_names.get(value.name, value.name)


def noted_module(node: Any) -> str | None:
    """The dotted name of the module that a node comes from, as the exporter noted it; None where it did not."""
    for entry in node.metadata_props:
        if entry.key == _NAME_SCOPES:
            scopes = [part.strip(" '\"") for part in entry.value.strip("[]").split(",")]
            return scopes[-2] if len(scopes) > 1 else ""
    return None


def _strip(model: Any) -> None:
    """Takes off doc strings and the exporter's notes: these hold source paths of the machine."""
    graph, functions = model.graph, model.functions
    noted = (*graph.node, *graph.value_info, *graph.initializer, *graph.input, *graph.output)
    inner = (node for function in functions for node in function.node)
    for item in (model, graph, *noted, *functions, *inner):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    graph.name = "main"


def _has_subgraph(attribute: Any) -> bool:
    return attribute.HasField("g") or bool(attribute.graphs)


def _replace_nodes(graph: Any, nodes: list[Any]) -> None:
    # Copied first: clearing the repeated field would empty the nodes that the list points to.
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
