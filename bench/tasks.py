"""What a worker does with its Case, one class a scenario. Each works in turns and writes its own files."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import pipelines
from bench.accuracy import Predictions, top_and_margin
from bench.backends.base import Backend, ModelFiles, Unsupported
from bench.bootstrap import MIN_PASSES
from bench.case import Case
from bench.instances import Instances
from bench.latency import STAGE, LatencySampler, Samples
from bench.results import RunFolder
from pipelines.base import Batch, Pipeline
from pipelines.imagenet import Image

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
    """

    run: str
    data: str
    files: Mapping[str, Any]
    throughput_images: int = 256

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
            case.pipeline, images, case.batch, case.threads, self.model_files.preprocessing
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


def make_task(case: Case, backend: Backend, context: Context) -> Task:
    """The task of the Case's scenario, with the backend already loaded."""
    return TASKS[case.scenario](case, backend, context)


def _clock(backend: Backend) -> Callable[[], int]:
    """The machine's clock, unless the backend brings one of its own (the fake one does)."""
    clock: Callable[[], int] = getattr(backend, "clock_ns", time.perf_counter_ns)
    return clock


def _bad(pipeline: Pipeline) -> tuple[Mapping[str, str], ...]:
    return tuple({"image_id": bad.image_id, "reason": bad.reason} for bad in pipeline.report.bad)


def _fallback(case: Case, pipeline: Pipeline, n_images: int) -> str:
    """A sentence where the pipeline handed more than a few odd files to the reference; else nothing."""
    n = len(pipeline.report.fallbacks)
    if n <= FALLBACK_SHARE * n_images:
        return ""
    return f"{n} of {n_images} images were decoded by the reference pipeline instead of {case.pipeline}"


class AccuracyTask:
    """One pass over all images; keeps the predictions and a digest of every pixel that went in."""

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        files = context.model_files
        self._images = context.images()
        highest = max(image.label for image in self._images)
        if highest >= files.classes:
            raise Unsupported(
                f"the network has {files.classes} classes and the images' labels go up to {highest}: "
                "accuracy needs a network trained on these classes; use --scenarios latency"
            )
        self._case, self._infer, self._run = case, backend.infer, context.run_folder
        self._pipeline = context.open_pipeline(case, self._images)
        self._batches: Iterator[Batch] = iter(self._pipeline)
        self._fixed_batch = files.fixed_batch
        self._predictions = Predictions()
        self._digest = hashlib.sha256()
        self._ended = False

    def turn(self, round_: int, slice_ns: int) -> Progress:
        """Works on whole batches until the slice is over."""
        started = time.perf_counter_ns()
        while not self._ended and time.perf_counter_ns() - started < slice_ns:
            batch = next(self._batches, None)
            if batch is None:
                self._ended = True
            else:
                self._digest.update(np.ascontiguousarray(batch.pixels).data)
                self._predictions.add(batch.indices, self._logits(batch.pixels))
        seen = self._predictions.n_images
        return Progress(
            warm=True,
            done=self._ended,
            fraction=1.0 if self._ended else seen / len(self._images),
            busy_ns=time.perf_counter_ns() - started,
            detail=f"{seen} images",
        )

    def _logits(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits of the batch; a graph of fixed batch gets the last, smaller batch filled up with zeros."""
        n = len(pixels)
        if self._fixed_batch is not None and n < self._fixed_batch:
            filling = np.zeros((self._fixed_batch - n, *pixels.shape[1:]), dtype=pixels.dtype)
            return self._infer(np.concatenate([pixels, filling]))[:n]
        return self._infer(pixels)

    def finish(self, stop_reason: str) -> Outcome:
        index, top, margin = self._predictions.columns()
        bad = _bad(self._pipeline)
        if len(index) + len(bad) != len(self._images) or len(np.unique(index)) != len(index):
            raise RuntimeError(
                f"{len(self._images)} images went in; {len(index)} predictions for {len(np.unique(index))} images "
                f"and {len(bad)} unreadable files came out"
            )
        self._run.write_predictions_part(
            self._case.case_id,
            image_id=[self._images[place].image_id for place in index],
            label=np.array([self._images[place].label for place in index], dtype=np.int16),
            top=top,
            margin=margin,
        )
        metrics: dict[str, Any] = {
            "n_bad_images": len(bad),
            "n_pipeline_fallbacks": len(self._pipeline.report.fallbacks),
            "input_sha256": self._digest.hexdigest(),
        }
        return Outcome("end_to_end", metrics, bad, _fallback(self._case, self._pipeline, len(self._images)))

    def close(self) -> None:
        self._pipeline.close()


class LatencyTask:
    """Times one call after another on the first batch of real images, held in memory."""

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        self._case, self._run = case, context.run_folder
        pixels = first_batch(case, context)
        self._input_sha256 = hashlib.sha256(pixels.data).hexdigest()
        self._sampler = LatencySampler(lambda: backend.infer(pixels), _clock(backend))
        self._clock = _clock(backend)

    def turn(self, round_: int, slice_ns: int) -> Progress:
        """One slice: of warm-up for a negative round, else of measurement."""
        started = self._clock()
        sampler = self._sampler
        if round_ < 0:
            sampler.warm_up_turn(slice_ns)
        else:
            sampler.turn(round_, slice_ns)
        samples = sampler.samples
        return Progress(
            warm=sampler.warm,
            done=bool(sampler.stop_reason),
            fraction=0.0,
            busy_ns=self._clock() - started,
            median_ns=sampler.turn_median_ns,
            detail=f"{len(samples.latency_ns)} samples, last {samples.latency_ns[-1] / 1e6:.3g} ms",
        )

    def finish(self, stop_reason: str) -> Outcome:
        images = self._case.batch * self._case.instances
        write_samples(self._run, self._case, STAGE, self._sampler.samples, images)
        return Outcome(
            stage=STAGE,
            metrics={
                "n_warmup": self._sampler.n_warmup,
                "warmup_settled": self._sampler.settled,
                "stop_reason": stop_reason,
                "input_sha256": self._input_sha256,
            },
        )

    def close(self) -> None:
        """Nothing is held open."""


class ThroughputTask:
    """Times whole passes from JPEG files to top-5: decoding, preprocessing and inference as they overlap.

    A pass starts with empty queues and ends with the last image's top-5, so that nothing decoded ahead of time
    flatters the figure. One pass is one sample.
    """

    STAGE = "end_to_end"

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        self._case, self._run, self._backend = case, context.run_folder, backend
        self._clock = _clock(backend)
        images = context.images()
        # A graph of fixed batch gets whole batches only; a set smaller than the pass is repeated.
        count = max(1, context.throughput_images // case.batch) * case.batch
        self._count = count
        self._pipeline = context.open_pipeline(case, list(itertools.islice(itertools.cycle(images), count)))
        self._fixed_batch = context.model_files.fixed_batch
        self._samples = Samples()
        self._images: list[int] = []

    def turn(self, round_: int, slice_ns: int) -> Progress:
        """One pass; the first, for a negative round, is the warm-up."""
        started = self._clock()
        seen = 0
        for logits in self._logits():
            top_and_margin(logits)
            seen += len(logits)
        elapsed_ns = self._clock() - started
        if not seen:
            raise RuntimeError("none of the images of a pass could be read")
        self._samples.round.append(round_)
        self._samples.warmup.append(round_ < 0)
        self._samples.latency_ns.append(elapsed_ns)
        self._images.append(seen)
        measured = self._samples.warmup.count(False)
        return Progress(
            warm=True,
            done=measured >= MIN_PASSES,
            fraction=min(1.0, measured / MIN_PASSES),
            busy_ns=elapsed_ns,
            median_ns=elapsed_ns / seen,
            detail=f"{seen * 1e9 / max(elapsed_ns, 1):.3g} images/s",
        )

    def _logits(self) -> Iterator[NDArray[np.float32]]:
        """The logits of each batch of a pass, in order; with several instances as many batches are at work."""
        batches = (b.pixels for b in self._pipeline if self._fixed_batch in (None, len(b.pixels)))
        if not isinstance(self._backend, Instances):
            yield from map(self._backend.infer, batches)
            return
        at_work: deque[Future[NDArray[np.float32]]] = deque()
        for pixels in batches:
            at_work.append(self._backend.submit(pixels))
            if len(at_work) > self._case.instances:  # one waits, so that no instance does
                yield at_work.popleft().result()
        while at_work:
            yield at_work.popleft().result()

    def finish(self, stop_reason: str) -> Outcome:
        write_samples(self._run, self._case, self.STAGE, self._samples, self._images)
        bad = _bad(self._pipeline)
        fallbacks = self._pipeline.report.fallbacks
        metrics = {
            "n_warmup": self._samples.warmup.count(True),
            "stop_reason": stop_reason,
            "n_bad_images": len(bad),
            "n_pipeline_fallbacks": len(fallbacks),
        }
        return Outcome(self.STAGE, metrics, bad, _fallback(self._case, self._pipeline, self._count))

    def close(self) -> None:
        self._pipeline.close()


TASKS: dict[str, Callable[[Case, Backend, Context], Task]] = {
    "accuracy": AccuracyTask,
    "latency": LatencyTask,
    "throughput": ThroughputTask,
}


def write_samples(run: RunFolder, case: Case, stage: str, samples: Samples, images: int | list[int]) -> None:
    """Writes a Case's samples; ``images`` is how many each sample worked on."""
    n = len(samples.latency_ns)
    run.write_samples_part(
        case.case_id,
        round=np.array(samples.round, dtype=np.int32),
        stage=stage,
        images=np.full(n, images, dtype=np.int32)
        if isinstance(images, int)
        else np.array(images, dtype=np.int32),
        warmup=np.array(samples.warmup, dtype=bool),
        latency_ns=np.array(samples.latency_ns, dtype=np.int64),
    )


def first_batch(case: Case, context: Context) -> NDArray[np.float32]:
    """The first ``case.batch`` readable images as pixels, the same for every backend; repeated where there are fewer.

    Returns:
        float32, ``(case.batch, 3, size, size)``, C-contiguous.
    """
    images = context.images()
    # Some spare files stand in for unreadable ones; decoding the whole set for one batch would be a waste.
    with closing(context.open_pipeline(case, images[: case.batch + 16])) as pipeline:
        batch = next(iter(pipeline), None)
    if batch is None:
        raise RuntimeError("none of the first images could be read")
    repeats = -(-case.batch // len(batch.pixels))
    tiled = np.concatenate([batch.pixels] * repeats)[: case.batch]
    return np.ascontiguousarray(tiled, dtype=np.float32)
