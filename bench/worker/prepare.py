"""Turns a model's name and checkpoint into the files that backends load. Runs in a worker's process."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pipelines
from bench.backends.base import ModelFiles, Unavailable
from pipelines.base import Preprocess
from pipelines.imagenet.find import Image
from scarlet import zoo
from scarlet.errors import BenchError

BATCH = 32


@dataclass(frozen=True)
class Request:
    """What to prepare.

    Attributes:
        model: the model's name.
        checkpoint: a file, ``demo``, ``random`` or None for the default.
        data: folder that image ids are relative to, or None where there are no images.
        images: ``(image_id, label)`` of real images: BatchNorm statistics of random weights are calibrated on
            them, and the exported graph is compared with PyTorch on the first batch of them.
        threads: of PyTorch and of the decoding.
    """

    model: str
    checkpoint: str | None = None
    data: str | None = None
    images: Sequence[tuple[str, int]] = ()
    threads: int = 1


def prepare(request: Request) -> ModelFiles:
    """Loads or makes the weights, exports and checks the graph; a store keeps both for the next time.

    Raises:
        BenchError: model, checkpoint or graph is at fault.
        Unavailable: a package that the model needs is missing.
    """
    try:
        spec = zoo.complete(zoo.resolve(request.model))
        if spec.kind == "onnx":
            return _onnx_files(spec, request)
        return _network_files(spec, request)
    except zoo.ModelUnavailable as missing:
        raise Unavailable(str(missing)) from missing


def _network_files(spec: zoo.ModelSpec, request: Request) -> ModelFiles:
    import torch

    from export.network import export_model
    from export.parity import can_check
    from export.store import Store
    from scarlet.cost import measure_cost

    torch.set_num_threads(request.threads)
    batches = _batches(spec, request)
    built = zoo.build(spec, request.checkpoint, calibration_batches=batches or None)
    # A graph that cannot be checked here is not run here either; other backends are measured all the same.
    exported = export_model(spec, built, Store(), batches[:1] if can_check() else None)
    size = spec.input_size
    total = measure_cost(built.module, size)
    return ModelFiles(
        model=spec.name,
        weights=built.weights,
        weights_sha256=built.weights_sha256,
        onnx=str(exported.onnx_path),
        onnx_sha256=exported.onnx_sha256,
        state=str(exported.state_path),
        input_size=size,
        preprocess=_preprocess(spec),
        classes=exported.classes,
        parity=exported.parity,
        parameters=total.parameters,
        multiply_adds=total.multiply_adds,
    )


def _onnx_files(spec: zoo.ModelSpec, request: Request) -> ModelFiles:
    from scarlet.onnx_file import inspect

    if request.checkpoint:
        raise BenchError(
            f"{spec.name} holds its own weights, and --checkpoint {request.checkpoint} was given too",
            "Leave --checkpoint out.",
        )
    info = inspect(Path(spec.path or ""))
    return ModelFiles(
        model=spec.name,
        weights="user",
        weights_sha256=info.sha256,
        onnx=str(Path(info.path).resolve()),
        onnx_sha256=info.sha256,
        input_size=info.input_size,
        preprocess=_preprocess(spec),
        fixed_batch=info.fixed_batch,
        classes=info.classes,
    )


def _preprocess(spec: zoo.ModelSpec) -> dict[str, Any]:
    """The model's preprocessing numbers as the keywords of ``pipelines.base.Preprocess``."""
    return {name: getattr(spec, name) for name in ("resize", "crop", "interpolation", "mean", "std")}


def _batches(spec: zoo.ModelSpec, request: Request) -> list[NDArray[np.float32]]:
    """The request's images as the reference pipeline makes them, in batches of ``BATCH``."""
    if request.data is None or not request.images:
        return []
    root = Path(request.data)
    images = [Image(image_id, root / image_id, label) for image_id, label in request.images]
    preprocess = Preprocess(**_preprocess(spec))
    with closing(
        pipelines.open_pipeline("reference", images, BATCH, request.threads, preprocess)
    ) as pipeline:
        return [batch.pixels for batch in pipeline]
