"""The turbo pipeline's steps, one at a time, from the pieces of its passes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipelines.base import PipelineUnsupported, Preprocess
from pipelines.imagenet.jpeg import plain_size
from pipelines.reference.pipeline import crop_offset, normalise
from pipelines.turbo.image import Scratch, TurboImage


class TurboStages:
    """simplejpeg's and PyTorch's steps; see ``pipelines.base.Stages``. Many images are spread over threads.

    A pass decodes no rows below the crop; ``decode`` and ``decode_all`` give the whole image. ``preprocess_all``
    resizes what the crop needs, as a pass does; ``resize`` the whole image.
    """

    def __init__(self, preprocess: Preprocess, threads: int = 1) -> None:
        self._turbo = TurboImage(preprocess)
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stages")
        self._own = threading.local()

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        if not plain_size(data):
            raise PipelineUnsupported("turbo leaves files that are no plain JPEG to the reference")
        return self._turbo.decode(data)

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._turbo.resize(pixels)

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        side = self._preprocess.crop
        top, left = crop_offset(pixels.shape[0], pixels.shape[1], side)
        return pixels[top : top + side, left : left + side].copy()

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return normalise(pixels, self._preprocess)

    def decode_all(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        return list(self._pool.map(self.decode, files))

    def preprocess_all(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        side = self._preprocess.crop
        planes = np.empty((len(images), 3, side, side), np.float32)

        def one(pixels: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
            scratch = self._own.__dict__.setdefault("scratch", Scratch())
            normalise(self._turbo.cropped(pixels, pixels.shape[0], scratch), self._preprocess, out=out)

        list(self._pool.map(one, images, planes))
        return planes

    def close(self) -> None:
        self._pool.shutdown()
