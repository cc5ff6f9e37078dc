"""The two sides that `bisect` compares, and the images that go through both. Needs torch and onnx."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

import pipelines
from bench import host
from bench.run.images import choose_images
from bench.run.model_files import CHECK_IMAGES
from bench.run.spec import RunSpec
from export.compare.bisect import Compared
from export.compare.pairing import Layer, Paired, pair_graphs, pair_module
from export.compare.values import OnnxValues, TorchValues, Values
from export.compare.weights import WeightDifference, compare_graphs, compare_with_module
from export.network import export_model
from export.store import Store
from pipelines.base import Preprocess
from pipelines.imagenet.find import Image
from scarlet import zoo
from scarlet.errors import BenchError
from scarlet.onnx_file import inspect
from scarlet.zoo import Built, ModelSpec

_CALIBRATION_BATCH = 32  # as of bench.worker.prepare, so that random weights are those of an export


@dataclass(frozen=True)
class Sides:
    """What is compared: ``text`` says so; ``weights_of`` compares a layer's weights on both sides."""

    text: str
    reference: Values
    other: Values
    paired: Paired
    batches: Sequence[NDArray[np.float32]]
    weights_of: Callable[[Layer], tuple[WeightDifference, ...]]

    @property
    def compared(self) -> Compared:
        """What is searched."""
        return Compared(self.reference, self.other, self.paired.layers, self.batches)

    @cached_property
    def suspects(self) -> dict[int, list[WeightDifference]]:
        """The places of layers whose weights differ, with the tensors that do."""
        compared = {place: self.weights_of(layer) for place, layer in enumerate(self.paired.layers)}
        return {
            place: [difference for difference in differences if difference.differing]
            for place, differences in compared.items()
            if any(difference.differing for difference in differences)
        }


def sides(
    model: str,
    checkpoint: str | None,
    onnx: Path | None,
    against: Path | None,
    data: str | None,
    n_images: int,
    console: Console,
) -> Sides:
    """Loads both sides and the images.

    Raises:
        BenchError: the model, a file or the images are at fault, or the sides cannot be matched.
    """
    try:
        spec = zoo.complete(zoo.resolve(model))
    except zoo.ModelUnavailable as missing:
        raise BenchError(str(missing), "Install it, or choose another model.") from missing
    if spec.kind == "onnx":
        if against is None or onnx is not None or checkpoint is not None:
            raise BenchError(
                f"{spec.name} is a graph without a PyTorch network, to be compared with another graph",
                "Give --against FILE.onnx, and neither --onnx nor --checkpoint.",
            )
        onnx = Path(spec.path or "")
    files = [path for path in (onnx, against) if path is not None]
    fixed_batch = _check_files(files, spec)
    if fixed_batch and n_images % fixed_batch:
        raise BenchError(
            f"{n_images} images do not make batches of {fixed_batch}, which a graph wants",
            f"Give --images {-(-n_images // fixed_batch) * fixed_batch}.",
        )
    batches = _pixels(spec, choose_images(data, n_images, console)[1], fixed_batch or n_images)
    if sum(map(len, batches)) < n_images:
        raise BenchError(f"only {sum(map(len, batches))} images can be read", "Give fewer --images.")
    if against is not None and onnx is not None:
        first, second = OnnxValues.load(onnx), OnnxValues.load(against)
        return Sides(
            f"{onnx} against {against}",
            first,
            second,
            pair_graphs(first, second),
            batches,
            lambda layer: compare_graphs(first, second, layer.reference),
        )
    built = _built(spec, checkpoint, data, console)
    graph = OnnxValues.load(onnx or _stored_export(spec, built))
    if against is not None:
        second = OnnxValues.load(against)
        return Sides(
            f"the export of {spec.name} ({built.weights} weights) against {against}",
            graph,
            second,
            pair_graphs(graph, second),
            batches,
            lambda layer: compare_graphs(graph, second, layer.reference),
        )
    values = TorchValues(built.module)
    calls = values.calls(batches[0])
    return Sides(
        f"{spec.name} ({built.weights} weights) in PyTorch against {onnx or 'its export'}",
        values,
        graph,
        pair_module(built.module, graph, calls),
        batches,
        lambda layer: compare_with_module(built.module, calls, layer.reference, graph, layer.other),
    )


def _check_files(files: Sequence[Path], spec: ModelSpec) -> int | None:
    """Whether the graphs can be fed what the model is fed. The one batch that they take, or None."""
    batches = set()
    for path in files:
        if not path.is_file():
            raise BenchError(f"ONNX file '{path}' does not exist", "Check the path.")
        info = inspect(path)
        if info.input_size != spec.input_size:
            raise BenchError(
                f"'{path}' takes images of {info.input_size} pixels, {spec.name} of {spec.input_size}",
                "Compare graphs of the same input size.",
            )
        batches.add(info.fixed_batch)
    batches.discard(None)
    if len(batches) > 1:
        raise BenchError(
            f"the two graphs take batches of {' and '.join(map(str, sorted(filter(None, batches))))} only",
            "Export one of them with the other's batch, or a dynamic one.",
        )
    return batches.pop() if batches else None


def _pixels(spec: ModelSpec, images: Sequence[Image], batch: int) -> list[NDArray[np.float32]]:
    """The images as the reference pipeline makes them."""
    preprocess = Preprocess(spec.resize, spec.crop, spec.interpolation, spec.mean, spec.std)
    with closing(
        pipelines.open_pipeline("reference", images, batch, host.allowed_cores(), preprocess)
    ) as pipeline:
        return [made.pixels for made in pipeline]


def _built(spec: ModelSpec, checkpoint: str | None, data: str | None, console: Console) -> Built:
    """The network, with the weights that `export` gives it on the same images."""
    torch.set_num_threads(host.allowed_cores())
    calibration = None
    if RunSpec(model=spec.name, checkpoint=checkpoint).weights == "random":
        calibration = _pixels(spec, choose_images(data, CHECK_IMAGES, console)[1], _CALIBRATION_BATCH)
    return zoo.build(spec, checkpoint, calibration_batches=calibration)


def _stored_export(spec: ModelSpec, built: Built) -> Path:
    """The graph that runs use. Not checked against PyTorch: what is wrong with it is the question here."""
    return export_model(spec, built, Store(), None).onnx_path
