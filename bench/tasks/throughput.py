"""Throughput: whole passes from JPEG files to top-5, and what their parts take alone."""

from __future__ import annotations

import itertools

from bench import host
from bench.accuracy import top_and_margin
from bench.backends.base import Backend
from bench.bootstrap import MIN_PASSES
from bench.case import Case
from bench.latency import Samples
from bench.tasks.base import (
    Context,
    Outcome,
    Progress,
    bad_images,
    clock_of,
    decode_threads,
    fallback_sentence,
    write_samples,
)
from bench.tasks.overlap import AHEAD, Overlap
from bench.tasks.parts import Parts


class ThroughputTask:
    """Times whole passes from JPEG files to top-5: decoding, preprocessing and inference as they overlap.

    A pass starts with empty queues and ends with the last image's top-5, so that nothing decoded ahead of time
    flatters the figure. One pass is one sample of the stage ``end_to_end``. After each pass its parts are timed
    alone, on fewer images: one sample each of ``decode``, ``preprocess`` and ``compute``.

    Options of the Case, for every backend: ``decode_threads`` (threads of the pipeline; as many as the backend's
    without it) and ``ahead`` (batches that wait decoded for the backend).
    """

    STAGE = "end_to_end"

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        self._case, self._run = case, context.run_folder
        self._overlap = Overlap(backend, int(case.option("ahead", str(AHEAD))))
        self._clock = clock_of(backend)
        images = context.images()
        # A graph of fixed batch gets whole batches only; a set smaller than the pass is repeated.
        count = max(1, context.throughput_images // case.batch) * case.batch
        self._count = count
        self._pipeline = context.open_pipeline(case, list(itertools.islice(itertools.cycle(images), count)))
        self._fixed_batch = context.model_files.fixed_batch
        self._parts = (
            Parts(case, context, self._overlap.infer_all, self._overlap.slots, self._clock)
            if context.time_parts
            else None
        )
        self._samples = Samples()
        self._images: list[int] = []
        self._stages: list[str] = []

    def turn(self, round_: int, slice_ns: int) -> Progress:
        """One pass and its parts; the first, for a negative round, is the warm-up."""
        started = self._clock()
        seen = 0
        for _, logits in self._overlap.whole_pass(self._pipeline, self._fixed_batch):
            top_and_margin(logits)
            seen += len(logits)
        elapsed_ns = self._clock() - started
        if not seen:
            raise RuntimeError("none of the images of a pass could be read")
        self._record(round_, self.STAGE, seen, elapsed_ns)
        if self._parts is not None:
            for stage, part_ns in self._parts.measure().items():
                self._record(round_, stage, self._parts.n_images, part_ns)
        measured = sum(
            not warmup and stage == self.STAGE
            for warmup, stage in zip(self._samples.warmup, self._stages, strict=True)
        )
        return Progress(
            warm=True,
            done=measured >= MIN_PASSES,
            fraction=min(1.0, measured / MIN_PASSES),
            busy_ns=self._clock() - started,
            median_ns=elapsed_ns / seen,
            detail=f"{seen * 1e9 / max(elapsed_ns, 1):.3g} images/s",
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
            "n_warmup": sum(
                warmup and stage == self.STAGE
                for warmup, stage in zip(self._samples.warmup, self._stages, strict=True)
            ),
            "stop_reason": stop_reason,
            "n_bad_images": len(bad),
            "n_pipeline_fallbacks": len(fallbacks),
            "cores": host.allowed_cores(),
            "decode_threads": decode_threads(self._case),
            "slots": self._overlap.slots,
        }
        return Outcome(self.STAGE, metrics, bad, fallback_sentence(self._case, self._pipeline, self._count))

    def close(self) -> None:
        self._pipeline.close()
        if self._parts is not None:
            self._parts.close()
        self._overlap.close()
