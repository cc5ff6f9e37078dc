"""The DALI pipelines' steps, one at a time, from the operators of their full graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.base import PipelineUnsupported, Planes, Preprocess
from pipelines.dali.chunks import failed_alone
from pipelines.dali.graph import CPU, STEPS, Fed, Load, Pixels, Place, built, graph_of, import_dali, region, whole
from pipelines.device import usable_gpu
from pipelines.imagenet.jpeg import plain_size
from pipelines.reference.pipeline import normalise
from scarlet.errors import error_text

# As in the full pipeline: small runs stay in the processor's cache.
CHUNK_PER_THREAD = 4


class DaliStages:
    """DALI's steps; see ``pipelines.base.Stages``.

    Each step is a graph that answers what it was fed, with no prefetching. The full graph resizes and crops in one
    step, through the region of interest; ``crop`` here is that step on an image that has its final size already.
    """

    def __init__(self, preprocess: Preprocess, threads: int = 1, place: Place = CPU) -> None:
        self._preprocess = preprocess
        self._chunk = CHUNK_PER_THREAD * threads
        self._decoder, self._resizer, self._normaliser = (
            Graph(step, Load(self._chunk, threads), preprocess, place) for step in STEPS
        )

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        return self.decode_all([data])[0]

    def decode_all(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        for data in files:
            if not plain_size(data):
                raise PipelineUnsupported("DALI leaves files that are no plain JPEG to the reference")
        decoded = []
        for some in self._chunks(files):
            encoded = [np.frombuffer(data, np.uint8) for data in some]
            try:
                found = self._decoder.run(Fed(encoded, []))
                decoded += [np.array(found.at(index)) for index in range(len(encoded))]
            except RuntimeError as error:
                failed_alone(error)
                # A pass leaves it to the reference, which may read it.
                raise PipelineUnsupported(f"DALI cannot decode it: {error_text(error)}") from error
        return decoded

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        fed = Fed([pixels], [whole(pixels.shape[0], pixels.shape[1], self._preprocess)])
        return np.array(self._resizer.run(fed).at(0))

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        cropped: Pixels = self._cropped([pixels])[0]
        return cropped

    def normalise(self, pixels: NDArray[np.uint8]) -> Planes:
        planes = np.empty((1, 3, *pixels.shape[:2]), np.float32)
        self._normalise(pixels[None], planes)
        return np.asarray(planes[0])

    def preprocess_all(self, images: Sequence[NDArray[np.uint8]]) -> Planes:
        side, size = self._preprocess.crop, self._chunk
        planes = np.empty((len(images), 3, side, side), np.float32)
        for number, some in enumerate(self._chunks(images)):
            self._normalise(self._cropped(some), planes[number * size : (number + 1) * size])
        return planes

    def _normalise(self, images: Pixels, planes: Planes) -> None:
        for pixels, out in zip(images, planes, strict=True):
            normalise(pixels, self._preprocess, out=out)

    def _cropped(self, images: Sequence[Pixels]) -> Pixels:
        """uint8, ``(n, crop, crop, 3)``, of at most a chunk of images."""
        regions = [region(pixels.shape[0], pixels.shape[1], self._preprocess) for pixels in images]
        return np.array(self._resizer.run(Fed(list(images), regions)).as_array())

    def _chunks(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        for first in range(0, len(items), self._chunk):
            yield items[first : first + self._chunk]

    def close(self) -> None:
        for graph in (self._decoder, self._resizer, self._normaliser):
            graph.close()


class Graph:
    """A DALI graph of one step, run by calls. It is built with the first, and built anew after one that failed."""

    def __init__(self, step: str, *how: Any) -> None:
        self._step, self._how = step, how
        self._graph: Any = None
        self._fed: list[Fed] = []

    def run(self, fed: Fed) -> Any:
        """DALI's result on the host, which lies in DALI's own memory until the next run.

        Raises:
            RuntimeError: DALI cannot.
        """
        self._fed = [fed]
        if self._graph is None:
            self._graph = built(graph_of([self._step], lambda: self._fed.pop(), *self._how))
        try:
            (result,) = self._graph.run()
        except RuntimeError:
            self.close()
            raise
        return result.as_cpu()

    def close(self) -> None:
        self._graph = None


class DaliGpuStages(DaliStages):
    """As ``DaliStages``, on the GPU: to compare with the reference, not to time (the copies would be timed too)."""

    def __init__(self, preprocess: Preprocess, threads: int = 1, engine_share: float = 0.0) -> None:
        import_dali()
        super().__init__(preprocess, threads, Place(usable_gpu().index, engine_share))

    def _normalise(self, images: Pixels, planes: Planes) -> None:
        planes[...] = self._normaliser.run(Fed(list(images), [])).as_array()


def engine_stages(preprocess: Preprocess, threads: int = 1) -> DaliGpuStages:
    """The steps of ``dali_gpu_engine``: all images go to the engine, so that its pixels are what is compared."""
    return DaliGpuStages(preprocess, threads, engine_share=1.0)
