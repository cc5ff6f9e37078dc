"""NVIDIA DALI on the CPU, set up to give the reference's pixels (``pipelines.dali.graph`` says how)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pipelines.base import BadImage, Batch, Passes, PipelineReport, Preprocess
from pipelines.dali.chunks import Chunk, driven, failed_alone, once, read_chunks, refusal
from pipelines.dali.graph import QUEUE_DEPTH, Fed, Pixels, build_graph, import_dali
from pipelines.imagenet.find import Image
from pipelines.reference.pipeline import Sample, UnreadableImage, collate, reference_pixels

# Images in one run of the graph. Independent of the batch: small runs stay in the processor's cache and bound
# the memory that decoded photographs take; DALI spreads the images of a run over its threads.
CHUNK_MIN = 8
CHUNK_PER_THREAD = 4


class DaliPipeline(Passes):
    """DALI for ordinary JPEGs, the reference for whatever else a data set holds (``pipelines.dali.chunks``).

    What DALI does not take, CMYK and PNG among it, is decoded by the reference and listed in ``report.fallbacks``, or
    in ``report.bad`` where it cannot either, so that both pipelines agree on what is bad. Building DALI anew after a
    file on which it failed takes a few milliseconds.
    """

    name = "dali"
    refusal = staticmethod(refusal)

    def __init__(self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> None:
        super().__init__(images, batch, threads, preprocess)
        import_dali()
        self._chunk = max(CHUNK_MIN, CHUNK_PER_THREAD * threads)
        self.ahead = (QUEUE_DEPTH + 1) * self._chunk

    def _batches(self, report: PipelineReport) -> Iterator[Batch]:
        return collate(self._samples(report), self._batch, self._preprocess)

    def _samples(self, report: PipelineReport) -> Generator[Sample, None, None]:
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fallback")
        chunks = read_chunks(self._images, self._chunk, self._preprocess, pool)
        decoding = driven(chunks, self._build, _run, _on_host, self._one_by_one, report)
        try:
            for chunk, pixels in decoding:
                yield from self._in_order(chunk, pixels, report)
        finally:
            decoding.close()
            pool.shutdown(wait=True, cancel_futures=True)

    def _build(self, source: Callable[[], Fed]) -> Any:
        return build_graph(source, self._chunk, self._threads, self._preprocess.interpolation)

    def _one_by_one(self, chunk: Chunk) -> dict[int, Pixels]:
        """DALI's pixels for each image that it can decode by itself."""
        pixels: dict[int, Pixels] = {}
        for alone in chunk.singly():
            graph = build_graph(once(alone.fed()), 1, 1, self._preprocess.interpolation)
            try:
                decoded = _run(graph)
            except RuntimeError as error:
                failed_alone(error)
                continue
            pixels |= {index: np.array(made) for index, made in _on_host(alone, decoded).items()}
        return pixels

    def _in_order(self, chunk: Chunk, pixels: dict[int, Pixels], report: PipelineReport) -> Iterator[Sample]:
        for index in chunk.indices:
            if index in pixels:
                yield index, pixels[index]
                continue
            made = from_reference(chunk, index, self._images[index], self._preprocess, report)
            if made is not None:
                yield index, made


def from_reference(
    chunk: Chunk, index: int, image: Image, preprocess: Preprocess, report: PipelineReport
) -> Pixels | None:
    """The reference's pixels of an image that DALI did not decode, noted in ``report``; None where it is bad."""
    try:
        if index in chunk.by_reference:
            pixels = chunk.by_reference[index].result()
        else:
            pixels = reference_pixels(image.path, preprocess)
    except UnreadableImage as error:
        report.bad.append(BadImage(image.image_id, str(error)))
        return None
    report.fallbacks.append(image.image_id)
    return pixels


def _run(graph: Any) -> Any:
    (decoded,) = graph.run()
    return decoded


def _on_host(chunk: Chunk, decoded: Any) -> dict[int, Pixels]:
    """DALI's pixels by index. They lie in DALI's memory: copy before the graph runs again."""
    if not chunk.encoded:
        return {}
    return dict(zip(chunk.encoded, decoded.as_array(), strict=True))
