"""FP32 ONNX -> INT8 OpenVINO IR (.xml and .bin), by NNCF's post-training quantisation."""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import onnx

from export.precision.audit import requested_by_openvino
from export.precision.calibration import CalibrationSet, chunks
from export.precision.int8 import expand, name_nodes
from export.precision.recipe import Recipe
from scarlet.errors import BenchError


def quantise_openvino(
    onnx_path: Path, xml: Path, recipe: Recipe, calibration: CalibrationSet, fixed_batch: int | None = None
) -> None:
    """Quantises a graph on all calibration images and writes it as OpenVINO IR.

    NNCF takes one image at a time: with larger batches it would average their ranges. Memory holds the statistics,
    not the images.

    Args:
        xml: where to write; the weights go beside it, with the suffix ``.bin``.
        recipe: of dialect ``nncf``; ``exclude`` names ONNX nodes.
        fixed_batch: the only batch that the graph takes, or None.

    Raises:
        BenchError: ``exclude`` fits no node, there are fewer images than one batch of the graph, or NNCF refuses.
        ImportError: openvino or nncf is not installed.
    """
    # It would report its use to its makers' server; nobody asked the user.
    os.environ.setdefault("NNCF_CI", "1")
    import logging

    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    model = openvino.Core().read_model(onnx_path)
    ignored = _operations(model, onnx_path, recipe)
    batch = fixed_batch or 1
    count = calibration.n_images // batch
    if not count:
        raise BenchError(
            f"the {calibration.n_images} calibration images do not fill one batch of {batch}, which is all that "
            "the graph takes",
            "Give more calibration images.",
        )
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        try:
            result = nncf.quantize(
                model,
                nncf.Dataset(_Chunked(calibration, batch)),
                preset=nncf.QuantizationPreset(recipe.preset),
                target_device=nncf.TargetDevice[recipe.target_device],
                subset_size=count,
                fast_bias_correction=recipe.fast_bias_correction,
                model_type=nncf.ModelType(recipe.model_type) if recipe.model_type else None,
                ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
            )
        except (nncf.ValidationError, nncf.InternalError, nncf.UnsupportedModelError) as error:
            raise BenchError(
                f"NNCF cannot quantise the graph: {' '.join(str(error).split())}",
                "Change the recipe, or take another dialect.",
            ) from error
    _number_names(result)
    openvino.save_model(result, xml, compress_to_fp16=False)


def requested(xml: Path) -> dict[str, str]:
    """As ``export.precision.audit.requested_by_openvino``, of a file."""
    import openvino

    return requested_by_openvino(openvino.Core().read_model(xml))


class _Chunked:
    """The images in batches of a size; can be read again and again."""

    def __init__(self, calibration: CalibrationSet, size: int) -> None:
        self._calibration, self._size = calibration, size

    def __iter__(self) -> Any:
        return chunks(self._calibration.batches, self._size, whole=True)


def _operations(model: Any, onnx_path: Path, recipe: Recipe) -> list[str]:
    """The OpenVINO operations that the excluded ONNX nodes became.

    OpenVINO names them after the node, or after its output where that is the graph's; parts of it are named below
    (``stem/Conv/WithoutBiases``).
    """
    if not recipe.exclude:
        return []
    graph = onnx.load(onnx_path, load_external_data=False)
    name_nodes(graph)
    nodes = {node.name: node for node in graph.graph.node}
    names = {name for node in expand(recipe.exclude, nodes) for name in (node, *nodes[node].output)}
    below = tuple(f"{name}/" for name in names)
    operations = [operation.get_friendly_name() for operation in model.get_ordered_ops()]
    found = [name for name in operations if name in names or name.startswith(below)]
    if not found:
        raise BenchError(
            f"OpenVINO has no operation for the excluded nodes {', '.join(recipe.exclude)}",
            "Exclude nodes that compute: convolutions, matrix products, sums.",
        )
    return found


def _number_names(model: Any) -> None:
    """Numbers the names that OpenVINO made up by place in the graph, not by a counter of the process.

    Without it the same inputs give another file each time.
    """
    for index, operation in enumerate(model.get_ordered_ops()):
        name = operation.get_friendly_name()
        if re.fullmatch(rf"{re.escape(operation.get_type_name())}_\d+", name):
            operation.set_friendly_name(f"{operation.get_type_name()}_{index}")
