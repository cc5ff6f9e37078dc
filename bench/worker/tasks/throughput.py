"""Throughput: a stream from JPEG files to top-5, or whole passes, and what their parts take alone."""

from __future__ import annotations

import itertools
from contextlib import closing

import numpy as np

import pipelines
from bench import host
from bench.analysis.accuracy.top5 import top_and_margin
from bench.analysis.stats.lives import MIN_PASSES
from bench.backends.base import Backend
from bench.record.case import Case
from bench.worker.messages import Context, Outcome, Progress, decode_threads
from bench.worker.sampling import Samples, WarmUpRule
from bench.worker.tasks.base import bad_images, clock_of, fallback_sentence, none_readable, write_samples
from bench.worker.tasks.device_parts import DeviceParts
from bench.worker.tasks.overlap import AHEAD, Overlap
from bench.worker.tasks.parts import Parts
from bench.worker.tasks.stream import Endless, Stream

# A slice of a stream is so many times as long as a latency Case's, 0.3 to 0.6 s: its ends are a batch wide.
SLICES = 6
# The parts are timed alone in every so many turns: what they take is taken from the stream's time.
PARTS_EVERY = 5
# A GPU is through with 256 images in some hundredths of a second, of which filling and draining the queues is much: its
# whole passes have so many times as many.
GPU_PASS_FACTOR = 32


class ThroughputTask:
    """Counts images from JPEG files to top-5: decoding, preprocessing and inference as they overlap.

    A turn is a slice of a stream that never ends (``bench.worker.tasks.stream``): one sample of the stage
    ``end_to_end``, after one of warm-up. With the option ``pass=whole`` it is a whole pass, from empty queues to the
    last image's top-5. In every fifth turn the parts are timed alone afterwards: one sample each of ``decode``,
    ``preprocess`` and ``compute``, or, where a GPU decodes, of ``decode`` and ``compute``
    (``bench.worker.tasks.device_parts``).

    Further options of the Case, for every backend: ``decode_threads`` (threads of the pipeline; as many as the
    backend's without it) and ``ahead`` (batches that wait decoded for the backend).
    """

    STAGE = "end_to_end"

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        self._case, self._run, self._context = case, context.run_folder, context
        self._clock = clock_of(backend)
        size, ahead = context.files.input_size, int(case.option("ahead", str(AHEAD)))
        blank = np.zeros((case.batch, 3, size, size), np.float32)
        self._overlap = Overlap(backend, ahead, case.device, blank, self._clock)
        self._decodes_on_gpu = case.pipeline in pipelines.ON_GPU
        self._whole = case.option("pass", "stream") == "whole"
        self._images = context.images()
        # A graph of fixed batch gets whole batches only; a set smaller than the pass is repeated.
        count = max(1, context.throughput_images // case.batch) * case.batch
        on_gpu = case.device == "cuda" or self._decodes_on_gpu
        endless = Endless(self._images)
        passes = list(itertools.islice(endless, count * GPU_PASS_FACTOR if on_gpu else count))
        self._pipeline = context.open_pipeline(case, passes if self._whole else endless)
        self._stream: Stream | None = None
        self._parts: Parts | None = None
        self._samples, self._counts, self._stages = Samples(), list[int](), list[str]()
        self._rule, self._warming_ns, self._time_ns, self._turns = WarmUpRule(), 0, 0.0, 0

    def turn(self, round_: int, slice_ns: int) -> Progress:
        """One slice or pass, and sometimes its parts; for a negative round, of warm-up."""
        started = self._clock()
        if self._whole:
            seen, elapsed_ns = self._whole_pass()
        else:
            seen, elapsed_ns = self._slice(round_, SLICES * slice_ns)
        time_ns, former_ns = elapsed_ns / seen, self._time_ns
        self._record(round_, self.STAGE, seen, elapsed_ns)
        # The first warm-up has parts too: they are warmed by what is done once.
        if self._context.time_parts and not self._turns % PARTS_EVERY:
            self._time_parts(round_, seen)
        self._turns, self._time_ns = self._turns + 1, time_ns
        busy_ns = self._clock() - started
        if round_ < 0:
            self._warming_ns += busy_ns
            alike = abs(time_ns - former_ns) <= self._rule.tolerance * former_ns
            if alike or self._warming_ns >= self._rule.max_ns:
                self._turns = 0  # the first measured turn has parts
        measured = self._n_samples(warmup=False)
        return Progress(
            warm=round_ >= 0 or not self._turns,
            done=measured >= MIN_PASSES,
            fraction=min(1.0, measured / MIN_PASSES),
            busy_ns=busy_ns,
            median_ns=time_ns,
            detail=f"{1e9 / max(time_ns, 1e-9):.3g} images/s",
        )

    def _whole_pass(self) -> tuple[int, int]:
        """Images of a pass from empty queues to the last one's top-5, and nanoseconds."""
        started, seen = self._clock(), 0
        for _, logits in self._overlap.whole_pass(self._pipeline, self._context.files.fixed_batch):
            top_and_margin(logits)
            seen += len(logits)
        if not seen:
            raise none_readable(self._pipeline)
        return seen, self._clock() - started

    def _slice(self, round_: int, least_ns: int) -> tuple[int, int]:
        """Images finished in a slice of the stream, and nanoseconds; what came before it is a sample of warm-up."""
        if self._stream is None:
            # A stream would look for a readable image for ever.
            with closing(self._context.open_pipeline(self._case, self._images)) as pipeline:
                if next(iter(pipeline), None) is None:
                    raise none_readable(pipeline)
            self._stream = Stream(self._overlap, self._pipeline)
        warm_up, counted = self._stream.slice(least_ns)
        self._record(round_, self.STAGE, *warm_up, warmup=True)
        return counted

    def _time_parts(self, round_: int, seen: int) -> None:
        """Times the parts alone; where a GPU decodes, on as many images as the slice or the pass."""
        if not self._decodes_on_gpu:
            if self._parts is None:
                overlap = self._overlap
                self._parts = Parts(self._case, self._context, overlap.infer_all, overlap.slots, self._clock)
            parts: Parts | DeviceParts = self._parts
        elif self._whole:
            parts = DeviceParts(self._pipeline, self._overlap)
        else:
            pipeline = self._context.open_pipeline(self._case, list(itertools.islice(Endless(self._images), seen)))
            parts = DeviceParts(pipeline, self._overlap, steady=True)
        for stage, part_ns in parts.measure().items():
            self._record(round_, stage, parts.n_images, part_ns)

    def _n_samples(self, warmup: bool) -> int:
        flags = zip(self._samples.warmup, self._stages, strict=True)
        return sum(of_warmup is warmup and stage == self.STAGE for of_warmup, stage in flags)

    def _record(self, round_: int, stage: str, images: int, elapsed_ns: int, warmup: bool = False) -> None:
        self._samples.round.append(round_)
        self._samples.warmup.append(warmup or round_ < 0)
        self._samples.latency_ns.append(elapsed_ns)
        self._counts.append(images)
        self._stages.append(stage)

    def finish(self, stop_reason: str) -> Outcome:
        write_samples(self._run, self._case, self._stages, self._samples, self._counts)
        bad, seen = bad_images(self._pipeline), min(len(self._images), sum(self._counts))
        metrics = {
            "n_warmup": self._n_samples(warmup=True),
            "stop_reason": stop_reason,
            "pass": "whole" if self._whole else "stream",
            "n_bad_images": len(bad),
            "n_pipeline_fallbacks": len(set(self._pipeline.report.fallbacks)),
            "cores": host.allowed_cores(),
            "decode_threads": decode_threads(self._case),
            "decodes_on_gpu": self._decodes_on_gpu,
            "slots": self._overlap.slots,
        }
        return Outcome(self.STAGE, metrics, bad, fallback_sentence(self._case, self._pipeline, seen))

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
        self._pipeline.close()
        if self._parts is not None:
            self._parts.close()
        self._overlap.close()
