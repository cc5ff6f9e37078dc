"""NVIDIA DALI on the CPU, set up to give the reference's pixels (``pipelines.dali_graph`` says how)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from pipelines.base import BadImage, Batch, PipelineReport, PipelineUnsupported, Preprocess
from pipelines.dali_graph import Fed, Pixels, Region, build_graph, import_dali, region
from pipelines.imagenet import Image
from pipelines.jpeg import plain_size
from pipelines.reference import (
    Sample,
    UnreadableImage,
    check_counts,
    collate,
    interpolation_filter,
    reference_pixels,
    within_limits,
)

# Pixels that resizing must leave outside of the crop, on both sides together. At the border DALI weighs the pixels that
# the filter finds otherwise than Pillow: up to 3 grey levels on demo images and 14 on noise, where nothing is cropped.
BORDER = 8

# Images in one run of the graph. Independent of the batch: small runs stay in the processor's cache and bound
# the memory that decoded photographs take; DALI spreads the images of a run over its threads.
CHUNK_MIN = 8
CHUNK_PER_THREAD = 4


@dataclass
class _Chunk:
    """Consecutive images: some for DALI, the others handed to the reference at once.

    Attributes:
        indices: places in the pipeline's list of images.
        encoded: by index, for DALI: the file's bytes and the region that becomes the crop.
        by_reference: by index, for the reference: the pixels to come.
    """

    indices: range
    encoded: dict[int, tuple[Pixels, Region]] = field(default_factory=dict)
    by_reference: dict[int, Future[Pixels]] = field(default_factory=dict)

    def fed(self) -> Fed:
        files, regions = zip(*self.encoded.values(), strict=True)
        return Fed(list(files), list(regions))


class DaliPipeline:
    """DALI for ordinary JPEGs, the reference for whatever else a data set holds.

    A look at each file's markers (``pipelines.jpeg``) settles which: only whole 8-bit grayscale or
    three-component JPEGs go to DALI. The rest, CMYK and PNG among them, are decoded by the reference and
    listed in ``report.fallbacks``, or in ``report.bad`` where it cannot either, so that both pipelines agree
    on what is bad. Should DALI fail on a file all the same, its pipeline is dead: the images of that run are
    then decoded one by one, the one at fault by the reference, and DALI is built anew for the rest (a few
    milliseconds).
    """

    name: ClassVar[str] = "dali"

    def __init__(self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> None:
        check_counts(batch, threads)
        interpolation_filter(preprocess)
        if preprocess.interpolation != "bilinear":
            raise PipelineUnsupported(
                f"DALI's {preprocess.interpolation} filter is up to 2 grey levels off the reference's; "
                "use the pipeline 'reference'"
            )
        if preprocess.resize - preprocess.crop < BORDER:
            raise PipelineUnsupported(
                f"a crop of {preprocess.crop} from a short side of {preprocess.resize} reaches the image's border, "
                "where DALI's filter differs from the reference's; use the pipeline 'turbo' or 'reference'"
            )
        import_dali()
        self.report = PipelineReport()
        self._images = images
        self._batch = batch
        self._threads = threads
        self._preprocess = preprocess
        self._chunk = max(CHUNK_MIN, CHUNK_PER_THREAD * threads)
        self._pass: Iterator[Batch] = iter(())

    def __iter__(self) -> Iterator[Batch]:
        self.close()
        self.report = PipelineReport()
        self._pass = collate(self._samples(self.report), self._batch, self._preprocess)
        return self._pass

    def close(self) -> None:
        """Ends the pass that is running, if any, and frees DALI's threads and memory."""
        if isinstance(self._pass, Generator):
            self._pass.close()
        self._pass = iter(())

    def _samples(self, report: PipelineReport) -> Generator[Sample, None, None]:
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="fallback")
        unread = self._chunks(pool)
        again: deque[_Chunk] = deque()  # were on their way through a graph that died
        waiting: deque[_Chunk] = deque()  # handed to DALI, or to be passed on in their turn

        def source() -> Fed:
            while True:
                chunk = again.popleft() if again else next(unread)
                waiting.append(chunk)
                if chunk.encoded:
                    return chunk.fed()

        graph = self._build(source)
        try:
            while True:
                decoded: Any = None
                ended = failed = False
                try:
                    (decoded,) = graph.run()
                except StopIteration:
                    ended = True
                except RuntimeError:
                    # Which run failed is not told reliably; the oldest is taken apart, the others go again.
                    if not any(chunk.encoded for chunk in waiting):
                        raise
                    failed = True
                while waiting:
                    chunk = waiting.popleft()
                    pixels = self._one_by_one(chunk) if failed else _on_host(chunk, decoded)
                    yield from self._in_order(chunk, pixels, report)
                    if chunk.encoded:
                        break
                if ended:
                    return
                if failed:
                    again.extendleft(reversed(waiting))
                    waiting.clear()
                    graph = self._build(source)
        finally:
            del graph
            pool.shutdown(wait=True, cancel_futures=True)

    def _build(self, source: Callable[[], Fed]) -> Any:
        return build_graph(source, self._chunk, self._threads)

    def _chunks(self, pool: ThreadPoolExecutor) -> Iterator[_Chunk]:
        """Reads the files, a chunk at a time, and settles who decodes each."""
        for first in range(0, len(self._images), self._chunk):
            chunk = _Chunk(range(first, min(first + self._chunk, len(self._images))))
            for index in chunk.indices:
                path = self._images[index].path
                try:
                    data = path.read_bytes()
                except OSError:
                    data = b""  # the reference finds the same, and words the reason
                size = plain_size(data)
                if size and within_limits(*size, self._preprocess):
                    chunk.encoded[index] = np.frombuffer(data, np.uint8), region(*size, self._preprocess)
                else:
                    chunk.by_reference[index] = pool.submit(reference_pixels, path, self._preprocess)
            yield chunk

    def _one_by_one(self, chunk: _Chunk) -> dict[int, Pixels]:
        """DALI's pixels for each image that it can decode by itself."""
        pixels: dict[int, Pixels] = {}
        for index, item in chunk.encoded.items():
            alone = _Chunk(range(index, index + 1), {index: item})
            graph = build_graph(_once(alone.fed()), 1, 1)
            try:
                (decoded,) = graph.run()
            except RuntimeError:
                continue
            pixels[index] = np.array(_on_host(alone, decoded)[index])
        return pixels

    def _in_order(self, chunk: _Chunk, pixels: dict[int, Pixels], report: PipelineReport) -> Iterator[Sample]:
        for index in chunk.indices:
            if index in pixels:
                yield index, pixels[index]
                continue
            image = self._images[index]
            try:
                if index in chunk.by_reference:
                    from_reference = chunk.by_reference[index].result()
                else:
                    from_reference = reference_pixels(image.path, self._preprocess)
            except UnreadableImage as error:
                report.bad.append(BadImage(image.image_id, str(error)))
                continue
            report.fallbacks.append(image.image_id)
            yield index, from_reference


def _once(fed: Fed) -> Callable[[], Fed]:
    """A source with a single run. A real function: DALI reads the signature of what it is given."""
    runs = iter([fed])

    def source() -> Fed:
        return next(runs)

    return source


def _on_host(chunk: _Chunk, decoded: Any) -> dict[int, Pixels]:
    """DALI's pixels by index. They lie in DALI's memory: copy before the graph runs again."""
    if not chunk.encoded:
        return {}
    return dict(zip(chunk.encoded, decoded.as_array(), strict=True))
