"""Turns a model's name and checkpoint into the files that backends load. Runs in a worker's process."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pipelines
from bench.backends import package_versions
from bench.backends.base import ModelFiles, Unavailable
from bench.worker.channel import own_home
from export.store import Store, is_whole
from pipelines.imagenet.find import Image
from scarlet import zoo
from scarlet.errors import BenchError, ModelUnavailable
from scarlet.files import file_of, file_sha256
from scarlet.preprocess import ModelSpec, checked, described

BATCH = 32
PACKAGES = ("export", "pipelines", "scarlet")  # whose code decides what a network's files hold


@dataclass(frozen=True)
class Request:
    """What to prepare.

    Attributes:
        checkpoint: a file, ``demo``, ``random`` or None for the default.
        data: folder that image ids are relative to, or None where there are no images.
        images: ``(image_id, label)`` of real images: BatchNorm statistics of random weights are calibrated on
            them, and the exported graph is compared with PyTorch on the first batch of them.
        threads: of PyTorch and of the decoding.
        preprocess: as given (``describe``), or all differences from the model's own (``prepare``).
    """

    model: str
    checkpoint: str | None = None
    data: str | None = None
    images: Sequence[tuple[str, int]] = ()
    threads: int = 1
    preprocess: Mapping[str, Any] = field(default_factory=dict)


def describe(request: Request) -> dict[str, Any]:
    """How a model's input is made, as its file and ``request.preprocess`` say; nothing is prepared.

    Returns:
        ``preprocess``; ``differences`` of it from what ``prepare`` would take by itself; ``source``: in words, empty
        where nothing is stated.

    Raises:
        BenchError: the model cannot be read, or has no such size.
        Unavailable: a package that the model needs is missing.
    """
    try:
        spec = zoo.complete(zoo.resolve(request.model))
    except ModelUnavailable as missing:
        raise Unavailable(str(missing)) from missing
    made = zoo.fed(zoo.fed(spec, spec.stated), request.preprocess).preprocess
    sources = [", ".join(request.preprocess) + " as given"] if request.preprocess else []
    sources += [spec.source or "the rest as usual for ImageNet"] if sources or spec.source else []
    differences = made.differences(spec.preprocess)
    return {"preprocess": asdict(made), "differences": differences, "source": "; ".join(sources)}


def prepare(request: Request) -> ModelFiles:
    """Loads or makes the weights, exports and checks the graph. A store keeps all that, so that the same request needs
    neither a framework nor images the next time.

    Raises:
        BenchError: model, checkpoint or graph is at fault.
        Unavailable: a package that the model needs is missing.
    """
    try:
        spec = zoo.resolve(request.model)
        if spec.kind == "onnx":
            return _onnx_files(spec, request)
        if spec.path and not Path(spec.path).is_file():  # a callable may depend on any file
            return _network_files(_complete(spec, request), request, Store())
        return _stored(spec, request)
    except ModelUnavailable as missing:
        raise Unavailable(str(missing)) from missing


def _complete(spec: ModelSpec, request: Request) -> ModelSpec:
    return zoo.fed(zoo.complete(spec), checked(request.preprocess))


def _stored(spec: ModelSpec, request: Request) -> ModelFiles:
    """A network's files as an earlier request of this kind left them, where they are whole; else made anew."""
    store, parts = Store(), _key_parts(spec, request)

    def make(path: Path) -> None:
        path.write_text(json.dumps(_network_files(_complete(spec, request), request, store).to_dict()))

    while True:
        path = store.get_or_make(parts, ".model.json", make)
        files = ModelFiles.from_dict(json.loads(path.read_text()))
        if all(is_whole(Path(file)) for file in (files.onnx, files.state or "")):
            return files
        path.unlink(missing_ok=True)


def _key_parts(spec: ModelSpec, request: Request) -> dict[str, str]:
    """All that a network's files depend on: its weights, the code of ours that makes them, versions of packages."""
    choice = request.checkpoint or zoo.default_weights(spec)
    demo = importlib.import_module("scarlet.demo")
    weights, key = (Path(demo.path_of(spec.name)), "") if choice == "demo" else file_of(choice)
    sources = sorted(path for package in PACKAGES for path in (own_home() / package).rglob("*.py"))
    # Random weights are calibrated on the images; others are only checked on some.
    images = [name for name, _ in request.images]
    read = [Path(request.data or "") / name for name in images] if choice == "random" else []
    return {
        "artefact": "model",
        "model": spec.name,
        "weights": _digest([weights]) + key if weights.is_file() else choice,
        "file": _digest([Path(spec.path)] if spec.path else []),
        "images": f"{bool(images)} {_digest(read)}",
        "threads": str(request.threads),
        "preprocess": described(request.preprocess),
        "sources": _digest([*sources, Path(__file__)]),
        "packages": json.dumps(package_versions()),
    }


def _digest(paths: Iterable[Path]) -> str:
    """Of the files' bytes, in this order; a file that cannot be read is as good as an empty one."""
    digest = hashlib.sha256()
    for path in paths:
        with suppress(OSError):
            digest.update(file_sha256(path).encode())
    return digest.hexdigest()


def _network_files(spec: ModelSpec, request: Request, store: Store) -> ModelFiles:
    import torch

    from export.network import export_model
    from export.parity import can_check
    from scarlet.cost import measure_cost
    from scarlet.random_weights import noise_batches

    torch.set_num_threads(request.threads)
    # Where no image can be read the rows say so.
    batches = _batches(spec, request) or list(noise_batches(spec.input_size, seed=0))
    built = zoo.build(spec, request.checkpoint, calibration_batches=batches)
    # A graph that cannot be checked here is not run here either; other backends are measured all the same.
    exported = export_model(spec, built, store, batches[:1] if can_check() else None)
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
        preprocess=asdict(spec.preprocess),
        classes=exported.classes,
        parity=exported.parity,
        parameters=total.parameters,
        multiply_adds=total.multiply_adds or None,  # TorchScript and exported programs have no layers to ask
        notes=built.notes,
    )


def _onnx_files(spec: ModelSpec, request: Request) -> ModelFiles:
    from export.intake import take_in

    if request.checkpoint:
        raise BenchError(
            f"{spec.name} holds its own weights, and --checkpoint {request.checkpoint} was given too",
            "Leave --checkpoint out.",
        )
    taken = take_in(Path(spec.path or ""), Store(), spec.output)
    info = taken.info
    spec = zoo.fed(zoo.complete(spec, info), checked(request.preprocess))
    return ModelFiles(
        model=spec.name,
        weights="user",
        weights_sha256=taken.source_sha256,
        onnx=str(taken.path),
        onnx_sha256=taken.sha256,
        input_size=spec.input_size,
        preprocess=asdict(spec.preprocess),
        fixed_batch=info.fixed_batch,
        classes=info.classes,
        notes=taken.notes,
    )


def _batches(spec: ModelSpec, request: Request) -> list[NDArray[np.float32]]:
    """The request's images as the reference pipeline makes them, in batches of ``BATCH``."""
    if request.data is None or not request.images:
        return []
    root = Path(request.data)
    images = [Image(image_id, root / image_id, label) for image_id, label in request.images]
    with closing(pipelines.open_pipeline("reference", images, BATCH, request.threads, spec.preprocess)) as pipeline:
        return [batch.pixels for batch in pipeline]
