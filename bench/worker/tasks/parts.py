"""What the parts of a throughput Case take, each alone: decode, preprocess, compute."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

import pipelines
from bench.record.case import Case
from bench.worker.messages import Context, decode_threads
from pipelines.base import PipelineUnsupported
from pipelines.imagenet.find import Image, read_image
from pipelines.reference.pipeline import UnreadableImage

# Enough to keep all threads busy; a quarter of a pass, so that a round takes a quarter longer. Beside a GPU passes are
# longer and the machine has more cores: a part may be longer too.
PART_IMAGES = 64
PART_IMAGES_BESIDE_GPU = 256

Pixels = NDArray[np.float32]


class Parts:
    """Times the steps of a pass one after the other, on the same threads as the pass and on the same images.

    Nothing overlaps here, so that the sum of the three is what a pass would take whose parts never ran side by
    side: the yardstick for what overlap brought. (Where a GPU computes, the slower of reading and computing is.)
    ``decode`` goes from files to pixels, ``preprocess`` from pixels to the network's input, ``compute`` from there to
    logits.

    Args:
        case: pipeline, batch and threads are used.
        context: of the run.
        infer_all: logits of each batch, with ``slots`` of them at work.
        slots: batches that the backend works on at the same time: all get something to do.
        clock_ns: a monotonic clock in nanoseconds.
    """

    def __init__(
        self,
        case: Case,
        context: Context,
        infer_all: Callable[[Iterable[Pixels]], Iterator[Pixels]],
        slots: int,
        clock_ns: Callable[[], int],
    ) -> None:
        self._stages = pipelines.open_stages(case.pipeline, context.files.preprocessing, decode_threads(case))
        self._batch, self._infer_all, self._clock = case.batch, infer_all, clock_ns
        at_once = case.batch * slots
        most = PART_IMAGES if case.device == "cpu" else PART_IMAGES_BESIDE_GPU
        wanted = max(1, min(most, context.throughput_images) // at_once) * at_once
        own = filter(self._is_readable, context.images())
        readable = [image for image, _ in zip(own, range(wanted), strict=False)]
        # A set smaller than a batch is repeated, as in a pass.
        self._images = [readable[place % len(readable)] for place in range(wanted)] if readable else []

    def _is_readable(self, image: Image) -> bool:
        """Whether this pipeline's own decoder takes the file."""
        try:
            self._stages.decode(read_image(image.path))
        except (OSError, UnreadableImage, PipelineUnsupported):
            return False
        return True

    @property
    def n_images(self) -> int:
        """Images of one measurement; 0 where the pipeline's decoder takes none."""
        return len(self._images)

    def measure(self) -> dict[str, int]:
        """Nanoseconds for all images of each part, by the stage's name; empty where there are no images."""
        if not self._images:
            return {}
        started = self._clock()
        decoded = self._stages.decode_all([read_image(image.path) for image in self._images])
        after_decode = self._clock()
        pixels = self._stages.preprocess_all(decoded)
        after_preprocess = self._clock()
        batches = (pixels[first : first + self._batch] for first in range(0, len(pixels), self._batch))
        for _ in self._infer_all(batches):
            pass
        return {
            "decode": after_decode - started,
            "preprocess": after_preprocess - after_decode,
            "compute": self._clock() - after_preprocess,
        }

    def close(self) -> None:
        self._stages.close()
