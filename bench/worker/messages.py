"""What runner and worker send each other, besides a Case: the context of a run, how far a turn came, what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pipelines
from bench.backends.base import ModelFiles
from bench.record.case import Case
from bench.record.run_folder import RunFolder
from pipelines.base import Pipeline
from pipelines.imagenet.find import Image


@dataclass(frozen=True)
class CalibrationImages:
    """Images to calibrate on.

    Attributes:
        root: the folder that their ids are relative to.
        images: in order of their ids.
        source: in a few words, where they come from.
    """

    root: Path
    images: tuple[Image, ...]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``from_dict`` reads it back."""
        pairs = [(image.image_id, image.label) for image in self.images]
        return {"root": str(self.root), "images": pairs, "source": self.source}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CalibrationImages:
        """Reads what ``to_dict`` wrote."""
        root = Path(data["root"])
        images = tuple(Image(name, root / name, label) for name, label in data["images"])
        return cls(root, images, str(data["source"]))


@dataclass(frozen=True)
class Context:
    """What a worker needs besides its Case. All paths are absolute.

    Attributes:
        data: the folder that image ids are relative to.
        throughput_images: images in a whole pass of a throughput Case, where it is timed by passes.
        time_parts: time the parts of a throughput Case too.
        load_seconds: least duration of one test of LoadGen's.
        among: the classes that predictions are chosen from; empty for all.
    """

    run: str
    data: str
    files: ModelFiles
    throughput_images: int = 256
    time_parts: bool = True
    load_seconds: float = 1.0
    among: Sequence[int] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; ``from_dict`` reads it back."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | {"files": self.files.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Context:
        """Reads what ``to_dict`` wrote."""
        return cls(**{**data, "files": ModelFiles.from_dict(data["files"])})

    @property
    def run_folder(self) -> RunFolder:
        return RunFolder.open(Path(self.run))

    def images(self) -> list[Image]:
        """The images of this run, in order."""
        return list(self._images)

    @cached_property
    def _images(self) -> tuple[Image, ...]:
        # Read once: a worker asks for them when it decodes, when it looks for a decoded batch, and in its task.
        root = Path(self.data)
        return tuple(Image(image_id, root / image_id, label) for image_id, label in self.run_folder.read_images())

    def open_pipeline(self, case: Case, images: Sequence[Image]) -> Pipeline:
        return pipelines.open_pipeline(
            case.pipeline, images, case.batch, decode_threads(case), self.files.preprocessing
        )


@dataclass(frozen=True)
class Progress:
    """What a turn tells the runner.

    Attributes:
        warm: warm-up is over (always True where there is none).
        done: the aim is reached; further turns are welcome but not needed.
        fraction: how far, 0..1, for people.
        busy_ns: how long the turn took, on the backend's clock.
        median_ns: of the samples that the turn measured; 0 where it measured none.
    """

    warm: bool
    done: bool
    fraction: float
    busy_ns: int
    median_ns: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """What a finished Case leaves for its row besides the files.

    Attributes:
        metrics: see ``CaseResult``.
        fallback: where much of the work was done by something else than the requested pipeline: a sentence on it.
    """

    stage: str
    metrics: Mapping[str, Any]
    bad_images: tuple[Mapping[str, str], ...] = ()
    fallback: str = ""


def decode_threads(case: Case) -> int:
    """Threads of the Case's pipeline: as many as its backend's, unless the option ``decode_threads`` says otherwise."""
    return int(case.option("decode_threads", str(case.threads)))
