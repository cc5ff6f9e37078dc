"""A user's ONNX file -> the graph that every backend runs: float32 ``(n, 3, size, size)`` to float32 ``(n, classes)``.

What is of another layout or type gets nodes before or behind it, once, in the store. A file that fits is run as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.parity import can_check
from export.store import Store, recorded_sha256
from scarlet.errors import error_text
from scarlet.files import file_sha256
from scarlet.foreign.onnx_file import LEAST_OPSET, OnnxInfo, embedded, graph_sha256, inspect

_OPSET, _IR = 13, 8  # of a graph that is adapted
_PIXELS, _LOGITS = "scarlet_bench_pixels", "scarlet_bench_logits"


@dataclass(frozen=True)
class TakenIn:
    """A user's graph, ready for the backends.

    Attributes:
        info: of the user's file; ``fixed_batch`` is what was tried.
        source_sha256: of the user's file: see ``scarlet.foreign.onnx_file.graph_sha256``.
        path: the graph to run: the user's file or one in the store.
        sha256: of that graph.
        notes: sentences on what was changed or assumed, and what to look out for.
    """

    info: OnnxInfo
    source_sha256: str
    path: Path
    sha256: str
    notes: tuple[str, ...]


def take_in(path: Path, store: Store, output: str | None = None) -> TakenIn:
    """Reads a user's file and adapts it where that is needed.

    Raises:
        BenchError: it is no classifier; see ``scarlet.foreign.onnx_file.inspect``.
    """
    info, source_sha256 = inspect(path, output), graph_sha256(path)
    parts = {
        "artefact": "adapted",
        "source": source_sha256,
        "output": info.output,
        "code": file_sha256(Path(__file__)),
        "onnx": onnx.__version__,
    }
    graph, sha256, notes = path.absolute(), source_sha256, list(info.notes)
    if info.changes:
        made = store.with_facts(parts, ".onnx", lambda target: {"notes": _adapt(path, info, target)})
        graph, sha256, notes = made.path, recorded_sha256(made.path), notes + made.facts["notes"]
        notes.append(f"the file was adapted: {'; '.join(info.changes)}")
    if info.fixed_batch is None and can_check():
        parts["artefact"] = "tried"
        tried = store.get_or_make(parts, ".txt", lambda target: _try_batches(graph, info, target))
        if reason := tried.read_text(encoding="utf-8"):
            info = replace(info, fixed_batch=1)
            notes.append(f"the graph takes batches of 1 only, whatever its input says: {reason}")
    return TakenIn(info, source_sha256, graph, sha256, tuple(notes))


def _adapt(path: Path, info: OnnxInfo, target: Path) -> list[str]:
    """Writes the graph with float32 ``(n, 3, size, size)`` pixels and logits; returns what could not be done."""
    model, notes = embedded(path), []
    weights = {tensor.name for tensor in model.graph.initializer}
    if info.opset < LEAST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _OPSET)
        except Exception as error:  # of its C++ side, whatever the cause
            reason = re.sub(r"^.*?: ", "", error_text(error))[:200]
            notes = [f"its opset {info.opset} could not be converted ({reason}); ONNX Runtime needs {LEAST_OPSET}"]
    if len(model.graph.output) > 1:
        inputs = [value.name for value in model.graph.input if value.name not in weights]
        model = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model)).extract_model(inputs, [info.output])
    model.ir_version = max(model.ir_version, _IR)
    graph = model.graph
    (entry,) = [value for value in graph.input if value.name not in weights]
    type_ = TensorProto.DataType.Value(info.input_type)
    before = _chain(
        [
            # So it is rounded: a cast alone would cut off.
            *([("Add", [f"{_PIXELS}_half"], dict[str, Any]())] if info.input_type == "UINT8" else []),
            *([("Cast", [], {"to": type_})] if info.input_type != "FLOAT" else []),
            *([("Transpose", [], {"perm": [0, 2, 3, 1]})] if info.channels_last else []),
        ],
        _PIXELS,
        entry.name,
    )
    if before:
        dims = entry.type.tensor_type.shape.dim
        height, width = dims[1:3] if info.channels_last else dims[2:]
        sides = [int(height.dim_value) or "height", int(width.dim_value) or "width"]
        entry = helper.make_tensor_value_info(_PIXELS, TensorProto.FLOAT, [_batch(entry), 3, *sides])
    cast = [("Cast", list[str](), {"to": TensorProto.FLOAT})] if info.output_type != "FLOAT" else []
    flat = [("Flatten", list[str](), {"axis": 1})] if info.output_rank > 2 else []
    behind = _chain([*cast, *flat], info.output, _LOGITS)
    if behind:
        batch = _batch(graph.output[0])
        graph.output[0].CopyFrom(helper.make_tensor_value_info(_LOGITS, TensorProto.FLOAT, [batch, info.classes]))
    if info.input_type == "UINT8":
        graph.initializer.append(numpy_helper.from_array(np.array(0.5, np.float32), f"{_PIXELS}_half"))
    kept = onnx.NodeProto.FromString
    nodes = [*before, *(kept(node.SerializeToString()) for node in graph.node), *behind]
    del graph.input[:], graph.node[:]
    graph.input.append(entry)
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    target.write_bytes(model.SerializeToString(deterministic=True))
    return notes


def _batch(value: Any) -> int | str:
    dim = value.type.tensor_type.shape.dim[0]
    return int(dim.dim_value) or dim.dim_param or "batch"


def _chain(steps: Sequence[tuple[str, list[str], dict[str, Any]]], first: str, last: str) -> list[Any]:
    """Nodes one after the other, from one name to another: the kind of each, its further inputs, its attributes."""
    names = [first, *(f"{first}_{index}" for index in range(1, len(steps))), last]
    return [
        helper.make_node(kind, [source, *more], [target], f"{target}/{kind}", **attributes)
        for (kind, more, attributes), source, target in zip(steps, names, names[1:], strict=False)
    ]


def _try_batches(graph: Path, info: OnnxInfo, target: Path) -> None:
    """Writes why a graph whose batch is open takes one image only; nothing where it takes two, or none at all."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4

    def answer(batch: int) -> str:
        pixels = np.zeros((batch, 3, info.input_size, info.input_size), np.float32)
        try:
            logits = session.run(None, {session.get_inputs()[0].name: pixels})[0]
        except Exception as error:  # whatever the runtime says of the graph
            return error_text(error)[-200:]
        return "" if logits.shape == (batch, info.classes) else f"of {batch} images it makes {list(logits.shape)}"

    reason = ""
    with suppress(Exception):  # its rows say why
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        reason = answer(2)
        reason = reason if reason and not answer(1) else ""
    target.write_text(reason, encoding="utf-8")
