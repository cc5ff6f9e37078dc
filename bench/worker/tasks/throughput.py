"""Throughput: whole passes from JPEG files to top-5, and what their parts take alone."""

from __future__ import annotations

import itertools

import numpy as np

import pipelines
from bench import host
from bench.analysis.accuracy.top5 import top_and_margin
from bench.analysis.stats.lives import MIN_PASSES
from bench.backends.base import Backend
from bench.record.case import Case
from bench.worker.messages import Context, Outcome, Progress, decode_threads
from bench.worker.sampling import Samples
from bench.worker.tasks.base import bad_images, clock_of, fallback_sentence, none_readable, write_samples
from bench.worker.tasks.device_parts import DeviceParts
from bench.worker.tasks.overlap import AHEAD, Overlap
from bench.worker.tasks.parts import Parts
from pipelines.base import Pipeline

# A GPU is through with 256 images in some hundredths of a second, of which filling and draining the queues is much. Its
# passes are made longer during warm-up until they take about this long, by at most this factor.
GPU_PASS_NS = 500_000_000
LONGEST = 32
GPU_WARM_UP_PASSES = 4


class ThroughputTask:
    """Times whole passes from JPEG files to top-5: decoding, preprocessing and inference as they overlap.

    A pass starts with empty queues and ends with the last image's top-5, so that nothing decoded ahead of time
    flatters the figure. One pass is one sample of the stage ``end_to_end``. After each pass its parts are timed
    alone: one sample each of ``decode``, ``preprocess`` and ``compute`` on fewer images, or, where a GPU decodes, of
    ``decode`` and ``compute`` on as many (``bench.worker.tasks.device_parts``).

    Options of the Case, for every backend: ``decode_threads`` (threads of the pipeline; as many as the backend's
    without it) and ``ahead`` (batches that wait decoded for the backend).
    """

    STAGE = "end_to_end"

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        self._case, self._run, self._context = case, context.run_folder, context
        size = context.files.input_size
        blank = np.zeros((case.batch, 3, size, size), np.float32)
        self._overlap = Overlap(backend, int(case.option("ahead", str(AHEAD))), case.device, blank)
        self._clock = clock_of(backend)
        # A graph of fixed batch gets whole batches only; a set smaller than the pass is repeated.
        self._count = max(1, context.throughput_images // case.batch) * case.batch
        self._shortest = self._count
        self._pipeline = self._opened()
        self._fixed_batch = context.files.fixed_batch
        self._decodes_on_gpu = case.pipeline in pipelines.ON_GPU
        self._parts = self._new_parts() if context.time_parts else None
        self._samples = Samples()
        self._images: list[int] = []
        self._stages: list[str] = []

    def _opened(self) -> Pipeline:
        images = itertools.islice(itertools.cycle(self._context.images()), self._count)
        return self._context.open_pipeline(self._case, list(images))

    def _new_parts(self) -> Parts | DeviceParts:
        if self._decodes_on_gpu:
            return DeviceParts(self._pipeline, self._overlap, self._clock)
        return Parts(self._case, self._context, self._overlap.infer_all, self._overlap.slots, self._clock)

    def turn(self, round_: int, slice_ns: int) -> Progress:
        """One pass and its parts; for a negative round, a warm-up: one, or a few on a GPU."""
        started = self._clock()
        seen = 0
        for _, logits in self._overlap.whole_pass(self._pipeline, self._fixed_batch):
            top_and_margin(logits)
            seen += len(logits)
        elapsed_ns = self._clock() - started
        if not seen:
            raise none_readable(self._pipeline)
        self._record(round_, self.STAGE, seen, elapsed_ns)
        if self._parts is not None:
            for stage, part_ns in self._parts.measure().items():
                self._record(round_, stage, self._parts.n_images, part_ns)
        measured = self._passes(warmup=False)
        return Progress(
            warm=round_ >= 0 or not self._lengthened(elapsed_ns),
            done=measured >= MIN_PASSES,
            fraction=min(1.0, measured / MIN_PASSES),
            busy_ns=self._clock() - started,
            median_ns=elapsed_ns / seen,
            detail=f"{seen * 1e9 / max(elapsed_ns, 1):.3g} images/s",
        )

    def _lengthened(self, elapsed_ns: int) -> bool:
        """Makes the passes longer after a warm-up pass that was too short; True where another warm-up is needed."""
        passes = self._passes(warmup=True)
        on_gpu = self._case.device == "cuda" or self._decodes_on_gpu
        if not on_gpu or elapsed_ns <= 0 or passes >= GPU_WARM_UP_PASSES:
            return False
        factor = min(GPU_PASS_NS // elapsed_ns, LONGEST * self._shortest // self._count)
        if factor < 2:
            return passes == 1  # the first is full of what is done once: a second one tells
        self._count *= factor
        self._pipeline.close()
        self._pipeline = self._opened()
        if isinstance(self._parts, DeviceParts):
            self._parts = self._new_parts()
        return True

    def _passes(self, warmup: bool) -> int:
        return sum(
            of_warmup is warmup and stage == self.STAGE
            for of_warmup, stage in zip(self._samples.warmup, self._stages, strict=True)
        )

    def _record(self, round_: int, stage: str, images: int, elapsed_ns: int) -> None:
        self._samples.round.append(round_)
        self._samples.warmup.append(round_ < 0)
        self._samples.latency_ns.append(elapsed_ns)
        self._images.append(images)
        self._stages.append(stage)

    def finish(self, stop_reason: str) -> Outcome:
        write_samples(self._run, self._case, self._stages, self._samples, self._images)
        bad = bad_images(self._pipeline)
        fallbacks = self._pipeline.report.fallbacks
        metrics = {
            "n_warmup": self._passes(warmup=True),
            "stop_reason": stop_reason,
            "n_bad_images": len(bad),
            "n_pipeline_fallbacks": len(fallbacks),
            "cores": host.allowed_cores(),
            "decode_threads": decode_threads(self._case),
            "decodes_on_gpu": self._decodes_on_gpu,
            "slots": self._overlap.slots,
        }
        return Outcome(self.STAGE, metrics, bad, fallback_sentence(self._case, self._pipeline, self._count))

    def close(self) -> None:
        self._pipeline.close()
        if self._parts is not None:
            self._parts.close()
        self._overlap.close()
