"""What tasks share: their context, what they report, and how samples are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

import pipelines
from bench.backends.base import Backend, ModelFiles
from bench.record.case import Case
from bench.record.run_folder import RunFolder
from bench.worker.sampling import Samples
from pipelines.base import Pipeline
from pipelines.imagenet.find import Image

# Real sets hold a few files in a hundred that DALI does not take (CMYK, PNG data); more mean that it did not work.
FALLBACK_SHARE = 0.05


@dataclass(frozen=True)
class Context:
    """What a worker needs besides its Case. All paths are absolute.

    Attributes:
        run: the run's folder.
        data: the folder that image ids are relative to.
        files: the model's files.
        throughput_images: images in one timed pass of a throughput Case.
        stop: a name in ``bench.worker.sampling.STOPS``: when the samples of a latency Case are enough.
        time_parts: time the parts of a throughput Case too, after each pass.
    """

    run: str
    data: str
    files: Mapping[str, Any]
    throughput_images: int = 256
    stop: str = "precision"
    time_parts: bool = True

    @property
    def model_files(self) -> ModelFiles:
        return ModelFiles(**self.files)

    @property
    def run_folder(self) -> RunFolder:
        return RunFolder.open(Path(self.run))

    def images(self) -> list[Image]:
        """The images of this run, in order."""
        root = Path(self.data)
        return [Image(image_id, root / image_id, label) for image_id, label in self.run_folder.read_images()]

    def open_pipeline(self, case: Case, images: list[Image]) -> Pipeline:
        return pipelines.open_pipeline(
            case.pipeline, images, case.batch, decode_threads(case), self.model_files.preprocessing
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
        detail: a few words for people.
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
        stage: what its samples timed.
        metrics: see ``CaseResult``.
        bad_images: files that could not be decoded.
        fallback: where much of the work was done by something else than the pipeline asked for: a sentence on it.
    """

    stage: str
    metrics: Mapping[str, Any]
    bad_images: tuple[Mapping[str, str], ...] = ()
    fallback: str = ""


class Task(Protocol):
    """One scenario at work."""

    def turn(self, round_: int, slice_ns: int) -> Progress: ...

    def finish(self, stop_reason: str) -> Outcome: ...

    def close(self) -> None: ...


def decode_threads(case: Case) -> int:
    """Threads of the Case's pipeline: as many as its backend's, unless the option ``decode_threads`` says otherwise."""
    return int(case.option("decode_threads", str(case.threads)))


def clock_of(backend: Backend) -> Callable[[], int]:
    """The machine's clock, unless the backend brings one of its own (the fake one does)."""
    clock: Callable[[], int] = getattr(backend, "clock_ns", time.perf_counter_ns)
    return clock


def bad_images(pipeline: Pipeline) -> tuple[Mapping[str, str], ...]:
    return tuple({"image_id": bad.image_id, "reason": bad.reason} for bad in pipeline.report.bad)


def fallback_sentence(case: Case, pipeline: Pipeline, n_images: int) -> str:
    """A sentence where the pipeline handed more than a few odd files to the reference; else nothing."""
    n = len(pipeline.report.fallbacks)
    if n <= FALLBACK_SHARE * n_images:
        return ""
    return f"{n} of {n_images} images were decoded by the reference pipeline instead of {case.pipeline}"


def write_samples(
    run: RunFolder, case: Case, stage: str | list[str], samples: Samples, images: int | list[int]
) -> None:
    """Writes a Case's samples; ``stage`` is what each timed, ``images`` how many it worked on.

    Where the calls timed further stages, each of those is a sample of its own in the same round, after the others.
    """
    n = len(samples.latency_ns)
    copies = 1 + len(samples.stages)
    stages = [stage] * n if isinstance(stage, str) else list(stage)
    further = [name for name in samples.stages for _ in range(n)]
    times = [samples.latency_ns, *samples.stages.values()]
    run.write_samples_part(
        case.case_id,
        round=np.tile(np.array(samples.round, dtype=np.int32), copies),
        stage=stages + further if further else stage,
        images=np.full(n * copies, images, dtype=np.int32)
        if isinstance(images, int)
        else np.tile(np.array(images, dtype=np.int32), copies),
        warmup=np.tile(np.array(samples.warmup, dtype=bool), copies),
        latency_ns=np.concatenate([np.array(values, dtype=np.int64) for values in times]),
    )
