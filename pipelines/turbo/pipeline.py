"""The fast pipeline for CPUs: simplejpeg and PyTorch's resize on threads (``pipelines.turbo.image`` says how)."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.base import BadImage, Batch, Passes, PipelineReport, PipelineUnsupported, Preprocess
from pipelines.imagenet.find import Image, read_image
from pipelines.imagenet.jpeg import plain_size
from pipelines.reference.pipeline import (
    ReferenceStages,
    UnreadableImage,
    crop_offset,
    cut,
    normalise,
    reference_pixels,
    within_limits,
)
from pipelines.turbo.image import Pixels, Scratch, TurboImage, refusal

# Images in the making beyond one batch, for each thread: so that none waits while the caller takes a batch.
AHEAD_PER_THREAD = 2

Planes = NDArray[np.float32]


class TurboPipeline(Passes):
    """simplejpeg and PyTorch for ordinary JPEGs, the reference for whatever else a data set holds.

    As in the pipeline ``dali``, a look at each file's markers (``pipelines.imagenet.jpeg``) settles which. Files that
    simplejpeg refuses go to the reference too, so that both agree on what is bad; ``report.fallbacks`` lists all that
    the reference could read.

    A thread takes one image from the file to its normalised planes, which it writes to their place in the batch. So the
    caller's thread only waits, and no more threads than requested are at work: PyTorch's own threads are not used, nor
    is their number changed, which belongs to the whole process. One batch, and two images a thread, are made ahead.
    """

    name = "turbo"
    refusal = staticmethod(refusal)

    def __init__(self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> None:
        super().__init__(images, batch, threads, preprocess)
        self.ahead = batch + AHEAD_PER_THREAD * threads
        self._turbo = TurboImage(preprocess)
        self._own = threading.local()

    def _batches(self, report: PipelineReport) -> Generator[Batch, None, None]:
        places = Places(self._batch, len(self._images), self._preprocess.crop)
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="turbo")
        waiting: deque[tuple[int, Place, Future[_Made]]] = deque()
        try:
            for index, image in enumerate(self._images):
                place = places.plan()
                waiting.append((index, place, pool.submit(self._make, image, place.planes)))
                if len(waiting) == self.ahead:
                    yield from self._next(waiting, places, report)
            while waiting:
                yield from self._next(waiting, places, report)
            yield from places.rest()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _next(
        self, waiting: deque[tuple[int, Place, Future[_Made]]], places: Places, report: PipelineReport
    ) -> Iterator[Batch]:
        index, place, future = waiting.popleft()
        made = future.result()
        image_id = self._images[index].image_id
        if made.bad:
            report.bad.append(BadImage(image_id, made.bad))
            places.drop()
            return
        if made.by_reference:
            report.fallbacks.append(image_id)
        yield from places.keep(index, place)

    def _make(self, image: Image, planes: Planes) -> _Made:
        """Reads one image into its place, on a thread of the pool."""
        try:
            pixels = self._fast(image)
            by_reference = pixels is None
            if pixels is None:
                pixels = reference_pixels(image.path, self._preprocess)
        except UnreadableImage as error:
            return _Made(bad=str(error))
        normalise(pixels, self._preprocess, out=planes)
        return _Made(by_reference=by_reference)

    def _fast(self, image: Image) -> Pixels | None:
        """The pixels, in the thread's scratch memory; None where the reference has to decide."""
        try:
            data = read_image(image.path)
        except OSError:
            return None  # the reference finds the same, and words the reason
        size = plain_size(data)
        if size is None or not within_limits(*size, self._preprocess):
            return None
        try:
            return self._turbo.crop(data, size, _scratch(self._own))
        except UnreadableImage:
            return None


def _scratch(own: threading.local) -> Scratch:
    """The calling thread's memory; it goes with the thread."""
    memory: Scratch = own.__dict__.setdefault("scratch", Scratch())
    return memory


class _Made(NamedTuple):
    """What became of an image.

    Attributes:
        by_reference: the reference read it.
        bad: why nobody can; else empty.
    """

    by_reference: bool = False
    bad: str = ""


class Place(NamedTuple):
    """Where an image's planes are written.

    Attributes:
        position: among all images of the pass that come out, if those before it can all be read; None: nowhere yet.
        planes: float32, ``(3, crop, crop)``.
    """

    position: int | None
    planes: Planes


class Places:
    """The batches' memory, given out before it is known which images can be read.

    Each image is planned to follow those that are kept or on their way. If one of these turns out bad, the images
    behind it move up: they are copied, and the next ones are made in memory of their own until they no longer meet
    places that are in use. Without bad images nothing is copied. The batches are those of
    ``pipelines.reference.pipeline.collate``.

    Args:
        batch: images a batch.
        n_images: of the pass.
        crop: side of an image, in pixels.
    """

    def __init__(self, batch: int, n_images: int, crop: int) -> None:
        self._batch = batch
        self._n_images = n_images
        self._crop = crop
        self._memory: dict[int, Planes] = {}  # by number of the batch
        self._free = 0  # the first position that was never planned
        self._kept = 0
        self._on_their_way = 0
        self._indices: list[int] = []

    def plan(self) -> Place:
        """The next image's place."""
        position = self._kept + self._on_their_way
        self._on_their_way += 1
        if position < self._free:
            return Place(None, np.empty((3, self._crop, self._crop), np.float32))
        self._free = position + 1
        return Place(position, self._planes(position))

    def drop(self) -> None:
        """The oldest planned image is bad."""
        self._on_their_way -= 1

    def keep(self, index: int, place: Place) -> Iterator[Batch]:
        """The oldest planned image is ready; gives the batch that it fills, if it does.

        Args:
            index: its place in the list of images.
            place: as planned.
        """
        self._on_their_way -= 1
        if place.position != self._kept:
            self._planes(self._kept)[...] = place.planes
        self._kept += 1
        self._indices.append(index)
        if len(self._indices) == self._batch:
            yield self._taken()

    def rest(self) -> Iterator[Batch]:
        """The last, smaller batch, if there is one."""
        if self._indices:
            yield self._taken()

    def _taken(self) -> Batch:
        planes = self._memory.pop((self._kept - 1) // self._batch)
        indices, self._indices = np.array(self._indices, np.int64), []
        return Batch(indices, planes if len(planes) == len(indices) else planes[: len(indices)].copy())

    def _planes(self, position: int) -> Planes:
        number, row = divmod(position, self._batch)
        if number not in self._memory:
            most = min(self._batch, self._n_images - number * self._batch)
            self._memory[number] = np.empty((most, 3, self._crop, self._crop), np.float32)
        planes: Planes = self._memory[number][row]
        return planes


class TurboStages(ReferenceStages):
    """simplejpeg's and PyTorch's steps; see ``pipelines.base.Stages``. Many images are spread over threads.

    A pass decodes no rows below the crop; ``decode`` and ``decode_all`` give the whole image. ``preprocess_all``
    resizes what the crop needs, as a pass does; ``resize`` the whole image.
    """

    def __init__(self, preprocess: Preprocess, threads: int = 1) -> None:
        super().__init__(preprocess, threads)
        self._turbo = TurboImage(preprocess)
        self._own = threading.local()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        if not plain_size(data):
            raise PipelineUnsupported("turbo leaves files that are no plain JPEG to the reference")
        try:
            return self._turbo.decode(data)
        except UnreadableImage as error:  # also what Pillow passes over, and a pass leaves to the reference
            raise PipelineUnsupported(f"turbo leaves what it cannot decode to the reference: {error}") from error

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._turbo.resize(pixels)

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        top, left = crop_offset(pixels.shape[0], pixels.shape[1], self._preprocess.crop)
        return cut(pixels, top, left, self._preprocess).copy()

    def preprocess_all(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        side = self._preprocess.crop
        planes = np.empty((len(images), 3, side, side), np.float32)

        def one(pixels: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
            cropped = self._turbo.cropped(pixels, pixels.shape[0], _scratch(self._own))
            normalise(cropped, self._preprocess, out=out)

        list(self._pool.map(one, images, planes))
        return planes
