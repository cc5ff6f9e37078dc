"""A pipeline and a backend at work without end, in slices of time; between slices nothing computes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.analysis.accuracy.top5 import top_and_margin
from bench.worker.tasks.overlap import Overlap
from pipelines.base import Pipeline
from pipelines.imagenet.find import Image

# Batches that are counted in a slice, at least. Before them pass those that were on their way during the pause, and
# these, and as many images as the pipeline made ahead: what was made in the pause took none of the slice's time.
LEAST_BATCHES, WARM_UP_BATCHES = 8, 2
# Threads that compute for nobody (OpenMP's spin before they sleep) are waited for so long at the most.
LONGEST_WAIT_NS = 500_000_000


class Endless(Sequence[Image]):
    """Some images over and over, as one long list."""

    def __init__(self, images: Sequence[Image]) -> None:
        self._images = images

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        return self._images[place % len(self._images)]


class Stream:
    """Finished images of an endless pass, counted in slices.

    Args:
        overlap: hands batches over; its clock tells when each was finished.
        pipeline: of an ``Endless`` list.
        idle: waits until no thread of the process computes.
    """

    def __init__(self, overlap: Overlap, pipeline: Pipeline, idle: Callable[[], object] | None = None) -> None:
        self._overlap, self._idle, self._ahead = overlap, idle or wait_idle, getattr(pipeline, "ahead", 0)
        self._finished = overlap.whole_pass(pipeline)

    def slice(self, least_ns: int) -> list[tuple[int, int]]:
        """Images that were finished in a stretch of time, and nanoseconds: of a warm-up, and of the slice after it.

        The slice takes at least this long and ``LEAST_BATCHES``, of which each slot of the backend has equally many.
        When it is over nothing computes; what is on its way is counted when the stream goes on.
        """
        overlap, began, counted = self._overlap, self._overlap.clock_ns(), []
        warm_up = (0, overlap.most + WARM_UP_BATCHES, self._ahead)
        for least, n_batches, n_images in (warm_up, (least_ns, LEAST_BATCHES, 0)):
            images = batches = 0
            while (
                batches < n_batches
                or images < n_images
                or batches % overlap.slots
                or overlap.finished_ns - began < least
            ):
                _, logits = next(self._finished)
                top_and_margin(logits)
                images, batches = images + len(logits), batches + 1
            counted.append((images, overlap.finished_ns - began))
            began = overlap.finished_ns
        overlap.settle()
        self._idle()
        return counted

    def close(self) -> None:
        """Ends the pass; the pipeline stays open."""
        self._finished.close()


def wait_idle(tasks: Path = Path("/proc/self/task"), sleep: Callable[[float], None] = time.sleep) -> bool:
    """Waits until all other threads of this process sleep, in two looks on end; False where that took too long."""
    began, quiet = time.monotonic_ns(), 0
    while quiet < 2:
        if time.monotonic_ns() - began > LONGEST_WAIT_NS:
            return False
        sleep(0.001)
        quiet = 0 if _computing(tasks) else quiet + 1
    return True


def _computing(tasks: Path) -> bool:
    for task in tasks.iterdir():
        try:
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:  # it has ended
            continue
        if state in "RD" and task.name != str(threading.get_native_id()):
            return True
    return False
