"""What the two sides of a pass take alone, where a pipeline makes its batches on a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from bench.backends.cuda import Work
from bench.worker.tasks.overlap import Overlap
from pipelines.base import DevicePixels, Pipeline

# Images of the batches that are kept for timing the backend alone: they are inferred over and over. At 224 x 224 they
# take 0.3 GB of the GPU's memory.
RESIDENT_IMAGES = 512


class DeviceParts:
    """Times the two sides of a pass one after the other, each over as many images as the pass.

    ``decode`` is the pipeline by itself, from files to the network's input where the backend takes it: decoding,
    resizing and normalising are one graph on the GPU, which runs ahead of itself, so that its stages have no times of
    their own. ``compute`` goes from there to logits. A pass whose sides overlap perfectly takes as long as the slower
    one.

    Both are taken as in the pass: with the same queues, from empty ones, so that what a pass loses at its ends the
    sides lose too. A stream loses nothing there, and beside it both are timed from their first batch on.

    Args:
        pipeline: each measurement is a pass of its own over its images.
        overlap: of the pass.
        steady: leave out the first batch, and what is done before it.
    """

    def __init__(self, pipeline: Pipeline, overlap: Overlap, steady: bool = False) -> None:
        self._pipeline, self._overlap, self._clock, self._steady = pipeline, overlap, overlap.clock_ns, steady
        self.n_images = 0

    def measure(self) -> dict[str, int]:
        """Nanoseconds for all images of each side, by the stage's name; empty where there are no images."""
        resident: list[Work] = []
        sizes: list[int] = []
        kept = 0
        last: Work | None = None
        started = self._clock()
        for batch in self._pipeline:
            last = self._overlap.work(batch)
            if self._steady and not sizes:
                started = self._clock()
            sizes.append(len(batch.indices))
            if kept < RESIDENT_IMAGES and sizes[-1] == sizes[0]:
                resident.append(last)
                kept += sizes[-1]
        if isinstance(last, DevicePixels):
            last.synchronize()  # one stream writes all batches, in order
        decode_ns = self._clock() - started
        self.n_images = sum(sizes[int(self._steady) :])
        if not self.n_images:
            return {}
        started = self._clock()
        for number, _ in enumerate(self._overlap.infer_all(_cycled(resident, len(sizes)))):
            if self._steady and not number:
                started = self._overlap.finished_ns
        return {"decode": decode_ns, "compute": self._overlap.finished_ns - started}


def _cycled(resident: list[Work], n_batches: int) -> Iterator[Work]:
    """The batches in turn, as many as the pass had; whole ones stand in for a smaller last one."""
    return itertools.islice(itertools.cycle(resident), n_batches)
