"""What every pipeline promises: the same batches, each image exactly once, no image lost in silence."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from pipelines.imagenet.find import Image
from scarlet.preprocess import Preprocess as Preprocess

if TYPE_CHECKING:
    import torch

Planes = NDArray[np.float32]

# The steps of every pipeline, in order: methods of ``Stages``.
STAGES = ("decode", "resize", "crop", "normalise")


@dataclass(frozen=True)
class DevicePixels:
    """A batch on a device, perhaps still being written.

    Attributes:
        tensor: float32, ``(n, 3, crop, crop)``, C-contiguous; memory of its own, that no later batch is written to.
        written: marks the end of the work that writes it; None where that is over.
    """

    tensor: torch.Tensor
    written: torch.cuda.Event | None = None

    def wait(self, stream: torch.cuda.Stream) -> torch.Tensor:
        """The tensor, for work on a stream, which waits until it is written.

        The host does not wait. The memory is given to no other tensor before that work is done, even where the reader
        lets go of this one earlier.
        """
        if self.written is not None:
            stream.wait_event(self.written)
            self.tensor.record_stream(stream)
        return self.tensor

    def synchronize(self) -> None:
        """Waits, on the host, until it is written."""
        if self.written is not None:
            self.written.synchronize()

    def to_host(self) -> NDArray[np.float32]:
        """A copy in the host's memory, float32, ``(n, 3, crop, crop)``, owned by the receiver."""
        import torch

        self.synchronize()
        host = np.empty(tuple(self.tensor.shape), np.float32)
        torch.from_numpy(host).copy_(self.tensor)
        return host


@dataclass(frozen=True)
class Batch:
    """Some images, ready for a network.

    Attributes:
        indices: int64, shape ``(n,)``: places in the list of images that the pipeline was given.
        pixels: float32, shape ``(n, 3, crop, crop)``, RGB planes, normalised, C-contiguous, owned by the receiver.
        on_device: the same pixels where a pipeline made them on a GPU; ``pixels`` are then copied from there when they
            are first asked for.
    """

    indices: NDArray[np.int64]
    pixels: NDArray[np.float32]
    on_device: ClassVar[DevicePixels | None] = None


@dataclass(frozen=True)
class BadImage:
    """A file that could not be decoded: it is skipped, counted and listed, never dropped in silence."""

    image_id: str
    reason: str


@dataclass
class PipelineReport:
    """What a pass over the images left behind besides its batches.

    Attributes:
        bad: files that no pipeline can decode, in the order of the images.
        fallbacks: ids of images that this pipeline left to the reference's decoder, in the order of the
            images. Their pixels are the reference's own; always empty for the reference.
        taken_apart: runs of DALI that failed, whose images were then decoded one by one, many times slower.
    """

    bad: list[BadImage] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)
    taken_apart: int = 0


class UnreadableImage(Exception):
    """A file that cannot be decoded. The text is the reason, the same on every machine."""


class PipelineUnavailable(Exception):
    """The pipeline could run, but a package is missing here. The text says which and how to get it."""


class PipelineUnsupported(Exception):
    """The pipeline can never do what was requested. The text says why."""


class Pipeline(Protocol):
    """One way of reading images. Constructed as ``cls(images, batch, threads, preprocess)``.

    Iterating makes one pass, in the order of ``images``: every readable image exactly once, the last batch
    possibly smaller, never padded. A file that cannot be decoded leaves no gap: batches are filled with the
    next readable image, so that all pipelines form the same batches. Each new iteration is a new pass: it
    ends the former one and starts with empty prefetch queues. After (or during) a pass, ``report.bad`` lists
    that pass's unreadable files.
    """

    name: str
    report: PipelineReport

    def __init__(self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> None: ...

    def __iter__(self) -> Iterator[Batch]: ...

    def close(self) -> None: ...


class Passes:
    """What all pipelines do about their passes: one at a time, each with a report of its own.

    By itself a thread takes an image from its file to its normalised planes, which it writes to their row of a batch:
    the caller's thread only waits. One batch, and two images a thread, are made ahead.

    Attributes:
        ahead: images that it may have ready before they are asked for.
    """

    name = ""

    def __init__(self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> None:
        if batch < 1 or threads < 1:
            raise ValueError(f"batch and threads must be at least 1, not {batch} and {threads}")
        if reason := self.refusal(preprocess):
            raise PipelineUnsupported(f"{reason}; use the pipeline 'reference'")
        self.report = PipelineReport()
        self.ahead = batch + 2 * threads
        self._images = images
        self._batch = batch
        self._threads = threads
        self._preprocess = preprocess
        self._pass: Iterator[Batch] = iter(())

    @staticmethod
    def refusal(preprocess: Preprocess) -> str:
        """Why this pipeline can never make such pixels as the reference does; empty where it can."""
        return ""

    def __iter__(self) -> Iterator[Batch]:
        self.close()
        self.report = PipelineReport()
        self._pass = self._batches(self.report)
        return self._pass

    def close(self) -> None:
        """Ends the pass that is running, if any, and frees its threads and memory."""
        if isinstance(self._pass, Generator):
            self._pass.close()
        self._pass = iter(())

    def _make(self, image: Image, planes: Planes) -> bool:
        """Writes an image's float32 ``(3, crop, crop)``; returns whether the reference had to. May raise
        ``UnreadableImage``.
        """
        raise NotImplementedError

    def _batches(self, report: PipelineReport) -> Generator[Batch, None, None]:
        images, n, side = self._images, len(self._images), self._preprocess.crop
        waiting: deque[tuple[int, Planes, Future[bool]]] = deque()
        ready: list[tuple[int, Planes]] = []
        block = np.empty((0, 3, side, side), np.float32)

        def next_one() -> Iterator[Batch]:
            index, its_block, made = waiting.popleft()
            try:
                if made.result():
                    report.fallbacks.append(images[index].image_id)
            except UnreadableImage as error:
                report.bad.append(BadImage(images[index].image_id, str(error)))
            else:
                ready.append((index, its_block))
                if len(ready) == self._batch:
                    yield self._joined(ready)
                    ready.clear()

        pool = ThreadPoolExecutor(self._threads, thread_name_prefix=self.name)
        try:
            for index, image in enumerate(images):
                row = index % self._batch
                if row == 0:
                    block = np.empty((min(self._batch, n - index), 3, side, side), np.float32)
                waiting.append((index, block, pool.submit(self._make, image, block[row])))
                if len(waiting) == self.ahead:
                    yield from next_one()
            while waiting:
                yield from next_one()
            if ready:
                yield self._joined(ready)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _joined(self, ready: Sequence[tuple[int, Planes]]) -> Batch:
        """Images as one batch: the block that they were written to, or a copy where a bad image came before them."""
        block = ready[0][1]
        is_whole = len(ready) == len(block) and all(each is block for _, each in ready)
        rows = block if is_whole else np.stack([each[index % self._batch] for index, each in ready])
        return Batch(np.array([index for index, _ in ready], np.int64), rows)


class Stages(Protocol):
    """A pipeline's steps one at a time, made of the same pieces as its passes: to compare, and to time, each alone.

    Arrays are uint8 RGB of shape ``(height, width, 3)`` until ``normalise`` (one) and ``preprocess_all`` (many), which
    give float32 ``([n,] 3, crop, crop)``. ``decode`` takes an encoded file, ``resize`` all of its pixels, ``crop`` the
    resized image, ``normalise`` its centre; ``decode_all`` and ``preprocess_all`` (the other three) use all threads.

    Raises:
        UnreadableImage: a file cannot be decoded.
        PipelineUnsupported: this pipeline leaves such a file to the reference.
    """

    def decode(self, data: bytes) -> NDArray[np.uint8]: ...

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]: ...

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]: ...

    def normalise(self, pixels: NDArray[np.uint8]) -> Planes: ...

    def decode_all(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]: ...

    def preprocess_all(self, images: Sequence[NDArray[np.uint8]]) -> Planes: ...

    def close(self) -> None: ...
