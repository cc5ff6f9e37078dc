"""`bisect`: the first layer where two computations of a model part. Needs torch and onnx."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

import pipelines
from bench import host
from bench.record.files import plain
from bench.report.document import Column, Document, Head, notes, rounded_cell, table_of
from bench.run.images import choose_images, working
from bench.run.model_files import CHECK_IMAGES
from bench.run.spec import RunSpec
from export.compare.bisect import RTOL, Bisection, Compared, Difference, error_table
from export.compare.bisect import bisect as search
from export.compare.pairing import Layer, pair_graphs, pair_module
from export.compare.values import OnnxValues, TorchValues
from export.compare.weights import WeightDifference, compare_graphs, compare_with_module
from export.network import export_model
from export.store import Store
from pipelines.imagenet.find import Image
from scarlet import zoo
from scarlet.errors import BenchError, ModelUnavailable
from scarlet.foreign.onnx_file import inspect
from scarlet.preprocess import ModelSpec
from scarlet.zoo import Built

_CALIBRATION_BATCH = 32  # as of bench.worker.prepare, so that random weights are those of an export


@dataclass(frozen=True)
class Sides:
    """What is compared: ``text`` says so; ``weights_of`` compares a layer's weights on both sides."""

    text: str
    compared: Compared
    weights_of: Callable[[Layer], tuple[WeightDifference, ...]]


def sides(spec: RunSpec, onnx: Path | None, against: Path | None, console: Console) -> Sides:
    """Loads both sides and the images.

    Args:
        spec: of it the model, its weights and the images.
        onnx: a graph of the model; the export that runs use where None.
        against: another graph, to be compared with the first instead of PyTorch.

    Raises:
        BenchError: the model, a file or the images are at fault, or the sides cannot be matched.
    """
    try:
        network = zoo.complete(spec.network)
        network = zoo.fed(zoo.fed(network, network.stated), spec.preprocess)
    except ModelUnavailable as missing:
        raise BenchError(str(missing), "Install it, or choose another model.") from missing
    if network.kind == "onnx":
        if against is None or onnx is not None or spec.checkpoint is not None:
            raise BenchError(
                f"{network.name} is a graph without a PyTorch network, to be compared with another graph",
                "Give --against FILE.onnx, and neither --onnx nor --checkpoint.",
            )
        onnx = Path(network.path or "")
    batches = _batches(spec, network, [path for path in (onnx, against) if path is not None], console)
    if against is not None and onnx is not None:
        return _two_graphs(f"{onnx} against {against}", onnx, against, batches)
    built = _built(spec, network, console)
    # Not checked against PyTorch: what is wrong with it is the question here.
    graph = onnx or export_model(network, built, Store(), None).onnx_path
    whose = f"{network.name} ({built.weights} weights)"
    if against is not None:
        return _two_graphs(f"the export of {whose} against {against}", graph, against, batches)
    values, other = TorchValues(built.module), OnnxValues.load(graph)
    layers = pair_module(built.module, other, values.calls(batches[0]))
    return Sides(
        f"{whose} in PyTorch against {onnx or 'its export'}",
        Compared(values, other, layers, batches),
        partial(compare_with_module, built.module, other),
    )


def _two_graphs(text: str, onnx: Path, against: Path, batches: Sequence[NDArray[np.float32]]) -> Sides:
    first, second = OnnxValues.load(onnx), OnnxValues.load(against)
    compared = Compared(first, second, pair_graphs(first, second), batches)
    return Sides(text, compared, partial(compare_graphs, first, second))


def _batches(spec: RunSpec, network: ModelSpec, graphs: Sequence[Path], console: Console) -> list[NDArray[np.float32]]:
    """The images as the reference pipeline makes them, in batches that the graphs take."""
    fixed_batch, n_images = _check_files(graphs, network), int(spec.images)
    if fixed_batch and n_images % fixed_batch:
        raise BenchError(
            f"{n_images} images do not make batches of {fixed_batch}, which a graph wants",
            f"Give --images {-(-n_images // fixed_batch) * fixed_batch}.",
        )
    images = choose_images(spec.data, n_images, console, spec.labelling)[1]
    batches = _pixels(network, images, fixed_batch or n_images)
    if sum(map(len, batches)) < n_images:
        raise BenchError(f"only {sum(map(len, batches))} images can be read", "Give fewer --images.")
    return batches


def _check_files(files: Sequence[Path], spec: ModelSpec) -> int | None:
    """Whether the graphs can be fed what the model is fed. The one batch that they take, or None."""
    batches = set()
    for path in files:
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
    with closing(
        pipelines.open_pipeline("reference", images, batch, host.allowed_cores(), spec.preprocess)
    ) as pipeline:
        return [made.pixels for made in pipeline]


def _built(spec: RunSpec, network: ModelSpec, console: Console) -> Built:
    """The network, with the weights that `export` gives it on the same images."""
    torch.set_num_threads(host.allowed_cores())
    calibration = None
    if spec.weights == "random":
        images = choose_images(spec.data, CHECK_IMAGES, console, spec.labelling)[1]
        calibration = _pixels(network, images, _CALIBRATION_BATCH)
    return zoo.build(network, spec.checkpoint, calibration_batches=calibration)


_ELSEWHERE = 5  # differing weights of other layers that are listed


@dataclass(frozen=True)
class Outcome:
    """What a bisection ended with.

    Attributes:
        weights: of the first diverging layer.
        elsewhere: weights of other layers that differ.
        rows: layers to list, the lowest signal-to-noise ratio first.
    """

    sides: Sides
    found: Bisection
    weights: Sequence[WeightDifference]
    elsewhere: Sequence[WeightDifference]
    rtol: float
    rows: Sequence[tuple[Layer, Difference]]


def bisect(sides: Sides, rtol: float | None, every_layer: bool, n_rows: int, console: Console) -> Outcome:
    """Searches for the first layer where the sides part.

    Args:
        rtol: what is accepted, as a share of a layer's spread; ``RTOL`` where None.
        n_rows: so many layers are listed besides.

    Raises:
        BenchError: ``rtol`` is no number of 0 or more.
    """
    if rtol is not None and not rtol >= 0:
        raise BenchError(f"--rtol {rtol:g} is not a number of 0 or more", "Write for example --rtol 0.01.")
    compared, rtol = sides.compared, RTOL if rtol is None else rtol
    n_images = sum(map(len, compared.batches))
    with working(console, f"{sides.text}, {n_images} images; {len(compared.layers)} values exist on both sides"):
        weights = {layer: sides.weights_of(layer) for layer in compared.layers}
        suspects = [place for place, layer in enumerate(compared.layers) if any(w.differing for w in weights[layer])]
        found = search(compared, rtol, suspects, every_layer)
        rows = error_table(compared)[:n_rows] if n_rows > 0 else []
    first = weights.pop(found.first) if found.first is not None else ()
    elsewhere = [difference for each in weights.values() for difference in each if difference.differing]
    return Outcome(sides, found, first, elsewhere, rtol, rows)


def document(outcome: Outcome) -> Document:
    """Where the sides part, and what may be the cause."""
    columns: list[Column[tuple[Layer, Difference]]] = [
        Column(Head("layer", folds=True), lambda row: row[0].name),
        Column(Head("kind"), lambda row: row[0].kind),
        Column(Head("SQNR, dB", True), lambda row: rounded_cell(row[1].sqnr_db, ".1f")),
        Column(Head("largest difference", True), lambda row: rounded_cell(row[1].max_abs, ".3g")),
        Column(Head("of the spread", True), lambda row: rounded_cell(row[1].relative, ".3g")),
        Column(Head("channel", True), lambda row: rounded_cell(row[1].worst_channel, "d")),
    ]
    rows = outcome.rows
    tables = [table_of("signal to noise, the lowest first", columns, rows)] if rows else []
    return Document(outcome.sides.text, [*notes(_verdict(outcome)), *tables], _as_dict(outcome))


def _verdict(outcome: Outcome) -> list[str]:
    """What was found, a line each."""
    found, layer = outcome.found, outcome.found.first
    effort = f"{found.looked_at} of {found.layers} layers were compared"
    lines = [f"one by one: {found.scanned}"] if found.scanned else []
    if layer is None or found.difference is None:
        lines.append(f"nothing diverges beyond {outcome.rtol:g} of a layer's spread; {effort}")
        return lines + _elsewhere_text(outcome.elsewhere)
    lines += [
        f"first diverging layer: {layer.name} ({layer.kind})",
        f"  ONNX node: {layer.node or layer.other} ({layer.op})",
        f"  {_difference_text(found.difference)}; accepted are {outcome.rtol:g} of the spread",
        *(f"  {difference.text()}" for difference in outcome.weights),
    ]
    if not outcome.weights:
        lines.append("  no weights to compare there")
    return [*lines, *_elsewhere_text(outcome.elsewhere), effort]


def _elsewhere_text(elsewhere: Sequence[WeightDifference]) -> list[str]:
    lines = [f"besides: {difference.text()}" for difference in elsewhere[:_ELSEWHERE]]
    more = len(elsewhere) - len(lines)
    return lines + ([f"{more} more tensors of weights differ"] if more else [])


def _difference_text(difference: Difference) -> str:
    if difference.shapes is not None:
        mine, theirs = (" x ".join(map(str, shape)) for shape in difference.shapes)
        return f"shapes differ: {mine} against {theirs}"
    text = f"largest difference {difference.max_abs:.3g}, {difference.relative:.3g} of"
    text += f" the spread {difference.spread:.3g}"
    return text if difference.worst_channel is None else f"{text}, in channel {difference.worst_channel}"


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    """The same for machines; numbers that JSON does not know (infinite, NaN) as null."""

    def layer_dict(layer: Layer, difference: Difference | None) -> dict[str, Any]:
        names = {name: getattr(layer, name) for name in ("name", "kind", "node", "op", "reference", "other")}
        return names | (asdict(difference) if difference is not None else {})

    found = outcome.found
    told: dict[str, Any] = plain(
        {
            "compared": outcome.sides.text,
            "images": sum(map(len, outcome.sides.compared.batches)),
            "rtol": outcome.rtol,
            "layers": found.layers,
            "looked_at": found.looked_at,
            "scanned": found.scanned,
            "first": layer_dict(found.first, found.difference) if found.first is not None else None,
            "weights": outcome.weights,
            "weights_elsewhere": outcome.elsewhere,
            "table": [layer_dict(layer, difference) for layer, difference in outcome.rows],
        }
    )
    return told
