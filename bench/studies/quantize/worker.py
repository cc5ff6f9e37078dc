"""Makes and judges candidates in a process of its own. Images are decoded once, and kept as bytes."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import pipelines
from bench.analysis.accuracy.top5 import top_and_margin
from bench.analysis.stats.paired import wins_and_losses
from bench.backends import make_backend
from bench.backends.base import ModelFiles
from bench.record.case import Case
from bench.studies.quantize.groups import nodes_of
from bench.worker import channel
from bench.worker.lower_precision import BATCH, calibration_batches
from bench.worker.messages import CalibrationImages
from export.precision.calibration import CalibrationSet
from export.precision.int8 import name_nodes
from export.precision.lower import make_typed
from export.precision.recipe import Recipe
from export.store import Store
from pipelines.base import Preprocess
from pipelines.reference.pipeline import normalise
from scarlet.errors import BenchError

PROGRAM = "from bench.studies.quantize.worker import main; main()"

# How the worker's own graph is called among the prepared ones.
_CANDIDATE = "candidate"


class CandidateStore(Store):
    """Keeps ranges where runs keep them, and graphs in a folder that is soon gone: a search makes dozens."""

    def get_or_make(
        self, key_parts: Mapping[str, str], suffix: str, make: Callable[[Path], None], companions: Sequence[str] = ()
    ) -> Path:
        """As ``Store`` does."""
        if key_parts["artefact"] == "ranges":
            return Store().get_or_make(key_parts, suffix, make, companions)
        return super().get_or_make(key_parts, suffix, make, companions)


class Pixels:
    """The images of a set, before normalisation, in a file: 150 kB an image of 224 pixels.

    Args:
        path: the file, an array of uint8 ``(n, 3, size, size)`` with their places beside it; made where it is missing.
        pipeline: what makes their pixels. Its own normalisation is undone: bytes are recovered exactly.
    """

    def __init__(
        self, path: Path, chosen: CalibrationImages, pipeline: str, threads: int, preprocess: Preprocess
    ) -> None:
        self._preprocess = preprocess
        stored = path.with_suffix(".places.npy")
        if not stored.exists():
            indices, levels = [], []
            opened = pipelines.open_pipeline(pipeline, chosen.images, BATCH, threads, preprocess)
            with closing(opened):
                for batch in opened:
                    indices.append(batch.indices)
                    levels.append(_levels(batch.pixels, preprocess))
            if not levels:
                raise BenchError(f"no image of {chosen.root} can be read", "Check --data.")
            np.save(path, np.concatenate(levels))
            np.save(stored, np.concatenate(indices))
        self._levels: NDArray[np.uint8] = np.load(path, mmap_mode="r")
        images = [chosen.images[place] for place in np.load(stored)]
        self.labels: NDArray[np.int64] = np.array([image.label for image in images])
        self.ids = [image.image_id for image in images]

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, start: int, size: int) -> NDArray[np.float32]:
        """``size`` images from ``start`` on as a network takes them; where they end, the last one is repeated."""
        places = np.minimum(np.arange(start, start + size), len(self) - 1)
        return np.stack([normalise(self._levels[place].transpose(1, 2, 0), self._preprocess) for place in places])

    def ids_of(self, start: int, size: int) -> list[str]:
        """The ids of the images of ``batch``."""
        return [self.ids[min(place, len(self) - 1)] for place in range(start, start + size)]


def _levels(pixels: NDArray[np.float32], preprocess: Preprocess) -> NDArray[np.uint8]:
    """The grey levels that were normalised: rounding error is far below half a level."""
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (preprocess.mean, preprocess.std))
    levels: NDArray[np.uint8] = (
        np.rint((pixels[:, :: preprocess.step] * std + mean) * 255).clip(0, 255).astype(np.uint8)
    )
    return levels


class QuantizeWorker:
    """Answers ``open``, then any number of ``evaluate``."""

    def answer(self, message: channel.Message) -> channel.Message:
        """The nodes of the graph, or the figures of a recipe."""
        try:
            return {"open": self._open, "evaluate": self._evaluate}[message["do"]](message)
        finally:
            gc.collect()

    def _open(self, message: channel.Message) -> dict[str, Any]:
        files = ModelFiles.from_dict(message["files"])
        self._files, self._backend, self._threads = files, message["backend"], message["threads"]
        self._batch = files.fixed_batch or message["batch"]
        preprocess, pipeline = files.preprocessing, message["pipeline"]
        self._sets = {
            name: Pixels(
                Path(given["pixels"]), CalibrationImages.from_dict(given["images"]), pipeline, self._threads, preprocess
            )
            for name, given in message["sets"].items()
        }
        chosen = CalibrationImages.from_dict(message["calibration"])
        self._calibration = CalibrationSet.of(calibration_batches(chosen, pipeline, self._threads, preprocess))
        case = self._case("fp32")
        self._fp32 = {name: self._predict(case, files, name)[0] for name in self._sets}
        model = onnx.load(files.onnx)
        name_nodes(model)
        return {
            "nodes": [asdict(node) for node in nodes_of(model)],
            "calibration": {"images": self._calibration.n_images, "sha256": self._calibration.sha256},
            "images": {name: len(pixels) for name, pixels in self._sets.items()},
        }

    def _evaluate(self, message: channel.Message) -> dict[str, Any]:
        started = time.monotonic()
        recipe, name = Recipe.from_dict(message["recipe"]), message["set"]
        with tempfile.TemporaryDirectory() as folder:
            made = make_typed(
                Path(self._files.onnx),
                self._files.onnx_sha256,
                recipe,
                CandidateStore(Path(folder)),
                self._calibration,
                self._files.fixed_batch,
            )
            entry = {"path": str(made.path), "sha256": made.sha256, "facts": {"recipe": made.facts["recipe"]}}
            typed = {f"int8@{_CANDIDATE}": entry}
            files = replace(self._files, typed=typed)
            (first, margin), proof = self._predict(self._case("int8"), files, name)
        labels, (fp32_first, fp32_margin) = self._sets[name].labels, self._fp32[name]
        right, fp32_right = first == labels, fp32_first == labels
        wins, losses = wins_and_losses(fp32_right, right)
        counts = proof["asked_counts"]
        figures = {
            "n": len(labels),
            "fp32_right": int(fp32_right.sum()),
            "wins": wins,
            "losses": losses,
            "changed": int((first != fp32_first).sum()),
            "margin_shift": float(np.abs(margin - fp32_margin).mean()),
            "asked": counts.get("int8", 0),
            "layers": sum(counts.values()),
            "not_as_asked": sorted(proof["not_as_asked"]),
            "seconds": time.monotonic() - started,
        }
        return {"figures": figures}

    def _case(self, precision: str) -> Case:
        options = (("recipe", _CANDIDATE),) if precision == "int8" else ()
        return Case(
            self._files.model,
            self._files.weights,
            self._backend,
            precision=precision,
            batch=self._batch,
            threads=self._threads,
            options=options,
        )

    def _predict(
        self, case: Case, files: ModelFiles, name: str
    ) -> tuple[tuple[NDArray[np.int16], NDArray[np.float32]], dict[str, Any]]:
        """First class and margin of every image of a set, ``(n,)`` each, and the backend's proof."""
        backend, pixels = make_backend(case.backend), self._sets[name]
        backend.load(case, files)
        with closing(backend):
            found = [
                top_and_margin(backend.infer(pixels.batch(start, case.batch)), pixels.ids_of(start, case.batch))
                for start in range(0, len(pixels), case.batch)
            ]
            proof = backend.proof()
        first = np.concatenate([top[:, 0] for top, _ in found])[: len(pixels)]
        return (first, np.concatenate([margin for _, margin in found])[: len(pixels)]), proof


def main() -> None:
    """The main loop; the process ends with it."""
    channel.serve(QuantizeWorker().answer)
