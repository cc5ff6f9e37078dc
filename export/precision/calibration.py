"""Calibration images, and the ranges of a graph's tensors on them. Memory does not grow with the images."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scarlet.errors import BenchError

Batches = Iterable[NDArray[np.float32]]

# Images that go through the graph at once. A histogram takes every activation of them: about 50 MB an image for a
# mobile network at 224 pixels; minimum and maximum are taken inside the graph.
CHUNK = {"minmax": 8, "entropy": 2, "percentile": 2}

# ONNX Runtime's entropy calibration takes as many bins as levels (128) by default, which leaves it no threshold to
# choose; with these there are 193. Its search is plain Python, and its time grows with the square of the bins.
ENTROPY_BINS = 512
ENTROPY_LEVELS = 128


@dataclass(frozen=True)
class CalibrationSet:
    """Images to calibrate on.

    Attributes:
        batches: float32, ``(n, 3, size, size)``; read more than once, so no generator.
        sha256: digest of all pixels in order, however they are split into batches.
    """

    batches: Batches
    sha256: str
    n_images: int

    @classmethod
    def of(cls, batches: Batches) -> CalibrationSet:
        """Reads the images once for their digest.

        Raises:
            BenchError: there are no images.
            ValueError: the batches can be read only once.
        """
        if iter(batches) is batches:
            raise ValueError("calibration batches are read more than once: give a list, not a generator")
        digest, n_images = hashlib.sha256(), 0
        for batch in batches:
            pixels = np.ascontiguousarray(batch, dtype="<f4")
            if not n_images:
                digest.update(repr(pixels.shape[1:]).encode())
            digest.update(pixels.data)
            n_images += len(pixels)
        if not n_images:
            raise BenchError("there are no images to calibrate on", "Give at least one image.")
        return cls(batches, digest.hexdigest(), n_images)


def chunks(batches: Batches, size: int, whole: bool = False) -> Iterator[NDArray[np.float32]]:
    """The same images in batches of ``size``, the last one smaller, or left out where only ``whole`` ones do."""
    images = (image for batch in batches for image in batch)
    while held := list(islice(images, size)):
        if len(held) == size or not whole:
            yield np.stack(held)


class _Once:
    """One batch, as ONNX Runtime's calibrators ask for data."""

    def __init__(self, feed: dict[str, NDArray[np.float32]]) -> None:
        self._feeds = [feed]

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return self._feeds.pop() if self._feeds else None


def tensor_ranges(
    onnx_path: Path, batches: Batches, method: str, percentile: float = 99.999, fixed_batch: int | None = None
) -> dict[str, tuple[float, float]]:
    """The lowest and highest value to represent of every float tensor, by ONNX Runtime's calibrators.

    Each is given a few images at a time and merges what it finds. (Its own limit on held outputs,
    CalibMaxIntermediateOutputs, throws data away instead of merging it.)

    Args:
        onnx_path: the FP32 graph, one input.
        method: a name in ``export.precision.recipe.CALIBRATIONS``.
        percentile: for ``percentile``: share of values, in percent, inside the range.
        fixed_batch: the only batch that the graph takes, or None.

    Raises:
        BenchError: there are fewer images than one batch of the graph.
    """
    from onnxruntime.quantization import create_calibrator

    kind, options = _calibrator_of(method, percentile)
    # The calibrators tell on standard output what they are about.
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        augmented = Path(folder) / "augmented.onnx"
        calibrator: Any = create_calibrator(
            onnx_path, augmented_model_path=str(augmented), calibrate_method=kind, extra_options=options
        )
        name = calibrator.infer_session.get_inputs()[0].name
        seen = 0
        for chunk in chunks(batches, fixed_batch or CHUNK[method], whole=fixed_batch is not None):
            calibrator.collect_data(_Once({name: chunk}))
            seen += len(chunk)
        if not seen:
            raise BenchError(
                f"the calibration images do not fill one batch of {fixed_batch}, which is all that the graph takes",
                "Give more calibration images.",
            )
        if method == "entropy":
            histograms = calibrator.collector.histogram_dict
            histograms.update({tensor: _merged(histogram) for tensor, histogram in histograms.items()})
        found = calibrator.compute_data()
    return {tensor: (float(np.min(data.lowest)), float(np.max(data.highest))) for tensor, data in sorted(found.items())}


def _calibrator_of(method: str, percentile: float) -> tuple[Any, dict[str, Any]]:
    """ONNX Runtime's name of a calibration method, and its options."""
    from onnxruntime.quantization.calibrate import CalibrationMethod

    if method == "minmax":
        return CalibrationMethod.MinMax, {}
    if method == "entropy":
        return CalibrationMethod.Entropy, {"num_bins": ENTROPY_BINS, "num_quantized_bins": ENTROPY_LEVELS}
    # Both tails are cut, each by half, which suits activations that lie on one side of zero; the calibrator's default
    # is the percentile of absolute values.
    return CalibrationMethod.Percentile, {"percentile": percentile, "symmetric": False}


def _merged(histogram: tuple[Any, ...]) -> tuple[Any, ...]:
    """The collector's histogram in ``ENTROPY_BINS`` bins: it adds bins as larger values come, and one outlier in a
    late image would make the search take minutes for one tensor.

    Args:
        histogram: counts, float32 edges from ``-threshold`` to ``threshold``, lowest, highest value, threshold.
    """
    counts, edges, low, high, threshold = histogram
    factor = -(-len(counts) // ENTROPY_BINS)
    if factor == 1:
        return histogram
    # The collector adds bins in pairs, one at each end: so are those that fill up the last merged ones.
    spare = (factor * ENTROPY_BINS - len(counts)) // 2
    padded = np.pad(counts, spare)
    reach = threshold * len(padded) / len(counts)
    edges = np.linspace(-reach, reach, ENTROPY_BINS + 1, dtype=edges.dtype)
    return padded.reshape(ENTROPY_BINS, factor).sum(axis=1), edges, low, high, threshold


def save_ranges(path: Path, ranges: dict[str, tuple[float, float]]) -> None:
    """Writes ranges as JSON; equal ranges give equal bytes."""
    path.write_text(json.dumps(ranges, sort_keys=True, indent=1), encoding="utf-8")


def load_ranges(path: Path) -> dict[str, tuple[float, float]]:
    """Reads what ``save_ranges`` wrote; every float32 comes back to the bit."""
    return {name: (low, high) for name, (low, high) in json.loads(path.read_text(encoding="utf-8")).items()}
