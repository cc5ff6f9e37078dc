"""The reference pipeline's steps, one at a time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.base import Preprocess
from pipelines.reference.pipeline import crop, decode, interpolation_filter, normalise, resized


class ReferenceStages:
    """Pillow's steps; see ``pipelines.base.Stages``. Many images are spread over threads."""

    def __init__(self, preprocess: Preprocess, threads: int = 1) -> None:
        self._resampling = interpolation_filter(preprocess)
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stages")

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        return decode(io.BytesIO(data))

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.array(resized(Image.fromarray(pixels), self._preprocess, self._resampling))

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.array(crop(Image.fromarray(pixels), self._preprocess.crop))

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return normalise(pixels, self._preprocess)

    def decode_all(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        return list(self._pool.map(self.decode, files))

    def preprocess_all(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        cropped = self._pool.map(lambda pixels: self.crop(self.resize(pixels)), images)
        return np.stack([self.normalise(pixels) for pixels in cropped])

    def close(self) -> None:
        self._pool.shutdown()
