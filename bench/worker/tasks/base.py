"""What tasks share: their clock, what they say of odd files, and how samples are written."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from bench.backends.base import Backend
from bench.record.case import Case
from bench.record.run_folder import RunFolder
from bench.worker.messages import Outcome, Progress
from bench.worker.sampling import Samples
from pipelines.base import Pipeline
from scarlet.errors import BenchError

# Real sets hold a few files in a hundred that DALI does not take (CMYK, PNG data); more mean that it did not work.
FALLBACK_SHARE = 0.05


class Task(Protocol):
    """One scenario at work."""

    def turn(self, round_: int, slice_ns: int) -> Progress: ...

    def finish(self, stop_reason: str) -> Outcome: ...

    def close(self) -> None: ...


def clock_of(backend: Backend) -> Callable[[], int]:
    """The machine's clock, unless the backend brings one of its own (the fake one does)."""
    clock: Callable[[], int] = getattr(backend, "clock_ns", time.perf_counter_ns)
    return clock


def bad_images(pipeline: Pipeline) -> tuple[Mapping[str, str], ...]:
    """Each unreadable file once, however often a pass or a stream met it."""
    found = {bad.image_id: bad.reason for bad in pipeline.report.bad}
    return tuple({"image_id": image_id, "reason": reason} for image_id, reason in found.items())


def none_readable(pipeline: Pipeline) -> BenchError:
    """The error of a Case of which no image could be read: it measured nothing."""
    bad = pipeline.report.bad
    first = f" (the first, {bad[0].image_id}: {bad[0].reason})" if bad else ""
    return BenchError(f"none of the {len(bad)} images could be read{first}", "Name another folder with --data.")


def fallback_sentence(case: Case, pipeline: Pipeline, n_images: int) -> str:
    """A sentence where the pipeline handed more than a few odd files to the reference; else nothing."""
    n = len(set(pipeline.report.fallbacks))
    if (times := pipeline.report.taken_apart) and not n:
        return f"{case.pipeline} failed {times} times with no file to blame: those images were decoded one by one"
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
