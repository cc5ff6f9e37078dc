"""The fast pipeline for CPUs: simplejpeg and PyTorch's resize on threads (``pipelines.turbo.image`` says how)."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.base import Passes, PipelineUnsupported, Planes, Preprocess
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


class TurboPipeline(Passes):
    """simplejpeg and PyTorch for ordinary JPEGs, the reference for whatever else a data set holds.

    As in the pipeline ``dali``, a look at each file's markers (``pipelines.imagenet.jpeg``) settles which. Files that
    simplejpeg refuses go to the reference too, so that both agree on what is bad; ``report.fallbacks`` lists all that
    the reference could read. No more threads than requested are at work: PyTorch's own are not used, nor is their
    number changed, which belongs to the whole process.
    """

    name = "turbo"
    refusal = staticmethod(refusal)

    def __init__(self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> None:
        super().__init__(images, batch, threads, preprocess)
        self._turbo = TurboImage(preprocess)
        self._own = threading.local()

    def _make(self, image: Image, planes: Planes) -> bool:
        pixels = self._fast(image)
        by_reference = pixels is None
        if pixels is None:
            pixels = reference_pixels(image.path, self._preprocess)
        normalise(pixels, self._preprocess, out=planes)
        return by_reference

    def _fast(self, image: Image) -> Pixels | None:
        """The pixels, in the thread's scratch memory; None where the reference has to decide."""
        try:
            data = read_image(image.path)
            size = plain_size(data)
            if size is None or not within_limits(*size, self._preprocess):
                return None
            return self._turbo.crop(data, size, _scratch(self._own))
        except (OSError, UnreadableImage):
            return None  # the reference finds the same, and words the reason


def _scratch(own: threading.local) -> Scratch:
    """The calling thread's memory; it goes with the thread."""
    memory: Scratch = own.__dict__.setdefault("scratch", Scratch())
    return memory


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
