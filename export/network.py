"""A network with its weights -> the files that backends load, made once and kept in the store."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export import onnx as onnx_export
from export import parity as parity_check
from export.store import Store, recorded_sha256
from scarlet.files import file_sha256
from scarlet.preprocess import ModelSpec
from scarlet.zoo import Built

Batches = Iterable[NDArray[np.float32]]


@dataclass(frozen=True)
class Exported:
    """Files of one network with one set of weights. Paths point into the store.

    Attributes:
        onnx_path: the FP32 graph, dynamic batch.
        parity: ``export.parity.Parity`` as a dict, from the check made when this graph was first exported; empty
            where it has not been checked.
        classes: length of the logits.
    """

    onnx_path: Path
    onnx_sha256: str
    state_path: Path
    parity: dict[str, Any]
    classes: int


def export_model(spec: ModelSpec, built: Built, store: Store, check_batches: Batches | None) -> Exported:
    """Exports a network, checks the graph against PyTorch, and saves its weights; or finds all that in the store.

    Args:
        check_batches: float32 images, ``(n, 3, size, size)``, on which the logits are compared. Read only where
            the store has no passed check of this graph. For random weights: the images they were calibrated on.
            None leaves the check out, for where there is no onnxruntime to run the graph.

    Raises:
        BenchError: the network cannot be exported, the graph's logits differ from PyTorch's by more than
            ``export.parity.TOLERANCE`` of their spread, onnxruntime is missing, or the store cannot be written.
    """
    metadata = {"model": spec.name, "weights": built.weights, "weights_sha256": built.weights_sha256}
    key_parts = {
        **metadata,
        **onnx_export.versions(),
        "artefact": "onnx",
        "architecture": architecture_sha256(built.module, spec.path),
        "options": json.dumps({"input_size": spec.input_size, "opset": onnx_export.OPSET}),
        "exporter": file_sha256(Path(onnx_export.__file__)),
    }
    onnx_path = store.get_or_make(
        key_parts, ".onnx", lambda path: onnx_export.export_onnx(built.module, path, spec.input_size, metadata)
    )
    onnx_sha256 = recorded_sha256(onnx_path)
    parity: dict[str, Any] = {}
    if check_batches is not None:
        parity = parity_check.stored_check(
            store,
            {
                "onnx_sha256": onnx_sha256,
                "weights_sha256": built.weights_sha256,
                "architecture": key_parts["architecture"],
            },
            lambda: parity_check.logits_parity(built.module, onnx_path, check_batches),
        )
    classes = parity["classes"] if parity else _classes(built.module, spec.input_size)
    return Exported(onnx_path, onnx_sha256, save_state(built, store), parity, classes)


def _classes(module: nn.Module, input_size: int) -> int:
    """Length of the logits, by asking for those of a blank image."""
    with torch.inference_mode():
        return int(module(torch.zeros(1, 3, input_size, input_size)).shape[1])


def save_state(built: Built, store: Store) -> Path:
    """The network's state dict as a safetensors file in the store; BenchError where the store cannot be written."""

    def make(path: Path) -> None:
        from safetensors.torch import save

        # Cloned, because safetensors refuses tensors that share memory (tied weights).
        state = {name: tensor.detach().clone().contiguous() for name, tensor in built.module.state_dict().items()}
        path.write_bytes(save(state))

    parts = {"artefact": "state", "weights_sha256": built.weights_sha256}
    return store.get_or_make(parts, ".safetensors", make)


def architecture_sha256(module: nn.Module, file: str | None = None) -> str:
    """A digest of what a network computes, apart from its weights' values.

    Taken over the printed module (layers and their settings), names and shapes of all tensors, and the source
    files of its classes (``forward`` is in neither of the others), torch's own excepted; and over the file that it was
    read from, where there is one.
    """
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    classes = {type(layer) for layer in module.modules() if not type(layer).__module__.startswith("torch.")}
    sources = sorted({inspect.getfile(class_) for class_ in classes})
    # Not the files' paths: the same code in another folder makes the same graph.
    parts = [str(module), json.dumps(shapes, sort_keys=True)]
    sources += [file] if file and Path(file).is_file() else []
    parts += sorted(file_sha256(Path(source)) for source in sources)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
