"""Makes the graphs that Cases need besides the FP32 one. Runs in a process of its own, one graph a message."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pipelines
from bench.backends.base import ModelFiles, Unavailable
from bench.backends.graphs import TypedGraph, Wanted
from bench.worker import channel
from bench.worker.messages import CalibrationImages
from export import convert
from export.precision.calibration import Batches, CalibrationSet
from export.precision.lower import make_typed, missing_packages
from export.precision.recipe import Recipe, default_recipe, read_recipe
from export.store import Store
from pipelines.base import Pipeline, Preprocess
from scarlet.errors import BenchError

PROGRAM = "from bench.worker.lower_precision import main; main()"
BATCH = 32


def prepare_typed(
    onnx: str, onnx_sha256: str, recipe: Recipe, calibration: CalibrationSet | None, fixed_batch: int | None
) -> TypedGraph:
    """Makes one graph in the default store, or finds it there.

    Raises:
        Unavailable: a package is missing.
        BenchError: the graph cannot be made so.
    """
    for package in missing_packages(recipe):
        raise Unavailable(f"the package {package} is not installed; run: pip install {package}")
    made = make_typed(Path(onnx), onnx_sha256, recipe, Store(), calibration, fixed_batch)
    return TypedGraph(str(made.path), made.sha256, made.facts)


def recipe_of(wanted: Wanted) -> Recipe:
    """The user's recipe, or the default one.

    Raises:
        BenchError: the file cannot be read, or is of another precision or dialect than was requested.
    """
    if not wanted.recipe:
        return default_recipe(wanted.precision, wanted.dialect)
    recipe = read_recipe(Path(wanted.recipe).expanduser())
    for field, asked in (("precision", wanted.precision), ("dialect", wanted.dialect)):
        found = getattr(recipe, field)
        if asked and found != asked:
            raise BenchError(
                f"the recipe {wanted.recipe} is of {field} {found or 'none'}, and {asked} was requested",
                f"Leave the {field} out, or give a recipe of {asked}.",
            )
    return recipe


class PipelineBatches:
    """The pixels of a pipeline's batches; each iteration is a new pass."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def __iter__(self) -> Iterator[NDArray[np.float32]]:
        return (batch.pixels for batch in self._pipeline)


def calibration_batches(chosen: CalibrationImages, pipeline: str, threads: int, preprocess: Preprocess) -> Batches:
    """Batches of the calibration images, as the pipeline of the Cases makes them.

    Raises:
        PipelineUnavailable: the pipeline lacks a package.
    """
    return PipelineBatches(pipelines.open_pipeline(pipeline, chosen.images, BATCH, threads, preprocess))


class TypedWorker:
    """Answers requests, one for each graph; reads the calibration images once for all of them."""

    def __init__(self) -> None:
        self._calibration: tuple[str, CalibrationSet] | None = None

    def answer(self, message: channel.Message) -> channel.Message:
        """``{"typed": ...}``."""
        try:
            return {"typed": self._make(message)}
        finally:
            gc.collect()

    def _make(self, message: channel.Message) -> dict[str, Any]:
        files = ModelFiles.from_dict(message["files"])
        wanted = Wanted(**message["wanted"])
        if wanted.converter:
            return self._converted(wanted, message, files)
        recipe = recipe_of(wanted)
        calibration = self._calibrated(message, files) if recipe.precision == "int8" else None
        made = prepare_typed(files.onnx, files.onnx_sha256, recipe, calibration, files.fixed_batch)
        return {"path": made.path, "sha256": made.sha256, "facts": self._with_source(made, message)}

    @staticmethod
    def _converted(wanted: Wanted, message: channel.Message, files: ModelFiles) -> dict[str, Any]:
        """The FP32 graph in a backend's own format, checked on the message's images."""
        for package in convert.missing_packages(wanted.converter):
            raise Unavailable(f"the package {package} is not installed; run: pip install {package}")
        pixels = None
        if message.get("check"):
            images = CalibrationImages.from_dict(message["check"])
            batches = calibration_batches(images, "reference", message["threads"], files.preprocessing)
            pixels = next(iter(batches), None)
        if pixels is not None and files.fixed_batch is not None:
            pixels = pixels[: files.fixed_batch] if len(pixels) >= files.fixed_batch else None
        made = convert.convert(wanted.converter, Path(files.onnx), files.onnx_sha256, Store(), pixels)
        return {"path": str(made.path), "sha256": made.sha256, "facts": dict(made.facts)}

    def _calibrated(self, message: channel.Message, files: ModelFiles) -> CalibrationSet:
        asked = json.dumps([message["calibration"], message["pipeline"]], sort_keys=True)
        if self._calibration is None or self._calibration[0] != asked:
            chosen = CalibrationImages.from_dict(message["calibration"])
            batches = calibration_batches(chosen, message["pipeline"], message["threads"], files.preprocessing)
            self._calibration = asked, CalibrationSet.of(batches)
        return self._calibration[1]

    @staticmethod
    def _with_source(made: TypedGraph, message: channel.Message) -> dict[str, Any]:
        facts = dict(made.facts)
        if "calibration" in facts:
            source = {"source": message["calibration"]["source"], "pipeline": message["pipeline"]}
            facts["calibration"] = {**facts["calibration"], **source}
        return facts


def main() -> None:
    """The main loop; the process ends with it."""
    channel.serve(TypedWorker().answer)


if __name__ == "__main__":
    main()
