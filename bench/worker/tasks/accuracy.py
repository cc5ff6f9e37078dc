"""Accuracy: one pass over all images."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.accuracy.top5 import Predictions
from bench.backends.base import Backend, Unsupported
from bench.backends.cuda import infer
from bench.record.case import Case
from bench.worker.messages import Context, Outcome, Progress
from bench.worker.tasks.base import bad_images, fallback_sentence, none_readable
from bench.worker.tasks.overlap import work_for
from pipelines.base import Batch


class AccuracyTask:
    """One pass over all images; keeps the predictions and a digest of every pixel that went in."""

    def __init__(self, case: Case, backend: Backend, context: Context) -> None:
        files = context.files
        self._images = context.images()
        highest = max(image.label for image in self._images)
        if highest >= files.classes:
            raise Unsupported(
                f"the network has {files.classes} classes and the images' labels go up to {highest}: "
                "name the network's classes with --classes FILE, or use --scenarios latency"
            )
        self._case, self._backend, self._run = case, backend, context.run_folder
        self._pipeline = context.open_pipeline(case, self._images)
        self._batches: Iterator[Batch] = iter(self._pipeline)
        self._fixed_batch = files.fixed_batch
        self._predictions = Predictions([image.image_id for image in self._images], context.among)
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
                self._predictions.add(batch.indices, self._logits(batch))
        seen = self._predictions.n_images
        return Progress(
            warm=True,
            done=self._ended,
            fraction=1.0 if self._ended else seen / len(self._images),
            busy_ns=time.perf_counter_ns() - started,
            detail=f"{seen} images",
        )

    def _logits(self, batch: Batch) -> NDArray[np.float32]:
        """Logits of the batch, handed over as in a timed pass.

        A graph of fixed batch gets the last, smaller batch filled up with zeros.
        """
        n, pixels = len(batch.indices), batch.pixels
        if self._fixed_batch is not None and n < self._fixed_batch:
            filling = np.zeros((self._fixed_batch - n, *pixels.shape[1:]), dtype=pixels.dtype)
            return self._backend.infer(np.concatenate([pixels, filling]))[:n]
        return infer(self._backend, work_for(self._backend, self._case.device, batch))

    def finish(self, stop_reason: str) -> Outcome:
        index, top, margin = self._predictions.columns()
        bad = bad_images(self._pipeline)
        if len(bad) == len(self._images):
            raise none_readable(self._pipeline)
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
            "are_probabilities": self._predictions.are_probabilities,
        }
        return Outcome("end_to_end", metrics, bad, fallback_sentence(self._case, self._pipeline, len(self._images)))

    def close(self) -> None:
        self._pipeline.close()
