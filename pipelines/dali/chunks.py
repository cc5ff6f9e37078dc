"""What DALI's pipelines share: files read in chunks, sorted by who can decode them, and chunks driven through a graph.

A look at each file's markers (``pipelines.imagenet.jpeg``) settles who decodes it: only whole 8-bit grayscale or
three-component JPEGs go to DALI. Should DALI fail on a file all the same, its graph is dead: the images of that run are
then decoded one by one, and the graph is built anew for the rest.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pipelines.base import PipelineReport, Preprocess
from pipelines.dali.graph import DEVICE_FAULT, Fed, Pixels, Region, Source, region
from pipelines.imagenet.find import Image, read_image
from pipelines.imagenet.jpeg import plain_size
from pipelines.reference.pipeline import reference_pixels, within_limits

# Pixels that resizing must leave outside of the crop, on both sides together. At the border DALI weighs the pixels
# that the filter finds in another way than Pillow: up to 3 grey levels on demo images and 14 on noise, where nothing
# is cropped.
BORDER = 8

# Files that one task of a thread reads: a task of its own for each would cost about as much as the reading.
FILES_PER_TASK = 8

# Pixels of the images that one run decodes, at most: 0.8 GB as bytes, twice that while the next run is under way. Fewer
# than a chunk's usual number are large photographs.
MOST_PIXELS = 256_000_000


class Encoded(NamedTuple):
    """A file for DALI, the region of it that becomes the crop, and how many pixels it has."""

    data: Pixels
    region: Region
    n_pixels: int


@dataclass
class Chunk:
    """Consecutive images: some for DALI, the others handed to the reference at once.

    Attributes:
        indices: places in the pipeline's list of images.
        encoded: by index, for DALI.
        by_reference: by index, for the reference: the pixels to come.
    """

    indices: range
    encoded: dict[int, Encoded] = field(default_factory=dict)
    by_reference: dict[int, Future[Pixels]] = field(default_factory=dict)

    def fed(self) -> Fed:
        """What a run of the graph takes."""
        return Fed([item.data for item in self.encoded.values()], [item.region for item in self.encoded.values()])

    def bounded(self) -> Iterator[Chunk]:
        """Itself, or where its images have too many pixels for one run, consecutive parts of it."""
        first, n_pixels = self.indices.start, 0
        for index in self.indices:
            more = self.encoded[index].n_pixels if index in self.encoded else 0
            if n_pixels and n_pixels + more > MOST_PIXELS:
                yield self._part(range(first, index))
                first, n_pixels = index, 0
            n_pixels += more
        yield self._part(range(first, self.indices.stop))

    def _part(self, indices: range) -> Chunk:
        encoded = {index: self.encoded[index] for index in indices if index in self.encoded}
        by_reference = {index: self.by_reference[index] for index in indices if index in self.by_reference}
        return Chunk(indices, encoded, by_reference)


def refusal(preprocess: Preprocess) -> str:
    """What DALI's filters do in another way than the reference; empty where they do not."""
    if preprocess.interpolation not in ("bilinear", "bicubic"):
        return f"DALI was not matched with the reference for the filter {preprocess.interpolation}"
    if preprocess.resize - preprocess.crop < BORDER or preprocess.crop_mode == "border":
        return (
            f"a crop of {preprocess.crop} from a side of {preprocess.resize} ({preprocess.crop_mode}) reaches the "
            "image's border, where DALI's filter differs from the reference's"
        )
    return ""


def read(image: Image, preprocess: Preprocess) -> Encoded | None:
    """The file and its region, for DALI; None where the reference has to decide.

    A file that cannot be read is the reference's too: it finds the same, and words the reason.
    """
    try:
        data = read_image(image.path)
    except OSError:
        return None
    size = plain_size(data)
    if size is None or not within_limits(*size, preprocess):
        return None
    return Encoded(np.frombuffer(data, np.uint8), region(*size, preprocess), size[0] * size[1])


def read_chunks(
    images: Sequence[Image], size: int, preprocess: Preprocess, pool: ThreadPoolExecutor, ahead: int = 0
) -> Iterator[Chunk]:
    """Reads the files, ``size`` of them at a time, and settles who decodes each.

    Args:
        pool: decodes what the reference has to, and reads where ``ahead`` is above 0.
        ahead: chunks that the pool reads before they are asked for; with 0 the caller's thread reads.
    """

    def read_some(some: Sequence[Image]) -> list[Encoded | None]:
        return [read(image, preprocess) for image in some]

    waiting: deque[tuple[range, list[Any]]] = deque()
    for start in itertools.chain(range(0, len(images), size), [None] * ahead):
        if start is not None:
            indices = range(start, min(start + size, len(images)))
            some = [images[index] for index in indices]
            parts = [some[k : k + FILES_PER_TASK] for k in range(0, len(some), FILES_PER_TASK)]
            later = [pool.submit(read_some, part).result if ahead else partial(read_some, part) for part in parts]
            waiting.append((indices, later))
        if waiting and (start is None or len(waiting) > ahead):
            indices, later = waiting.popleft()
            chunk = Chunk(indices)
            for index, item in zip(indices, itertools.chain.from_iterable(part() for part in later), strict=True):
                if item is not None:
                    chunk.encoded[index] = item
                else:
                    chunk.by_reference[index] = pool.submit(reference_pixels, images[index].path, preprocess)
            yield from chunk.bounded()


def driven(
    unread: Iterator[Chunk], build: Callable[[Source, bool], Any], run: Callable[[Any], Any], report: PipelineReport
) -> Generator[tuple[Chunk, Sequence[int], Any], None, None]:
    """Drives unread chunks, in order, through a graph that is always a few of them ahead.

    Args:
        build: builds the graph on a source, for chunks or (True) for one image alone; called again after a failure.
        run: one run of the graph: a row for each image for DALI of the oldest chunk fed that has any.

    Yields:
        all images in order: chunk, indices, and DALI's rows, which the next run may write over; None: the reference's.

    Raises:
        RuntimeError: memory ran out, or the GPU failed; ``DEVICE_FAULT`` tells these from a bad file.
    """
    again: deque[Chunk] = deque()  # were on their way through a graph that died
    waiting: deque[Chunk] = deque()  # handed to DALI, or to be passed on in their turn

    def source() -> Fed:
        while True:
            chunk = again.popleft() if again else next(unread)
            waiting.append(chunk)
            if chunk.encoded:
                return chunk.fed()

    graph = build(source, False)

    def alone(item: Encoded) -> Any:
        nonlocal graph  # its memory holds the row
        graph = build(_once(item), True)
        try:
            return run(graph)
        except RuntimeError as error:
            failed_alone(error)
            return None

    try:
        while True:
            rows: Any = None
            try:
                rows = run(graph)
            except StopIteration:  # what still waits is the reference's
                for chunk in waiting:
                    yield from _passed_on(chunk, None, alone)
                return
            except RuntimeError as error:
                if DEVICE_FAULT.search(str(error)) or not any(chunk.encoded for chunk in waiting):
                    raise
                report.taken_apart += 1  # which run failed is not told: the oldest is, the others go again
            while waiting:
                chunk = waiting.popleft()
                yield from _passed_on(chunk, rows, alone)
                if chunk.encoded:
                    break
            if rows is None:
                again.extendleft(reversed(waiting))
                waiting.clear()
                graph = build(source, False)
    finally:
        del graph


def _once(item: Encoded) -> Source:
    runs = iter([Fed([item.data], [item.region])])

    def once() -> Fed:  # a real function: DALI reads the signature of what it is given
        return next(runs)

    return once


def _passed_on(chunk: Chunk, rows: Any, alone: Callable[[Encoded], Any]) -> Iterator[tuple[Chunk, Sequence[int], Any]]:
    """A chunk's images in order, with DALI's rows of those that it decoded; without rows ``alone`` decodes each."""
    n_taken = 0
    for is_dalis, group in itertools.groupby(chunk.indices, chunk.encoded.__contains__):
        indices = list(group)
        if not is_dalis:
            yield chunk, indices, None
        elif rows is None:
            for index in indices:
                yield chunk, [index], alone(chunk.encoded[index])
        else:
            yield chunk, indices, rows[n_taken : n_taken + len(indices)]
            n_taken += len(indices)


def failed_alone(error: RuntimeError) -> None:
    """Lets an image on which DALI fails by itself pass; raises what is no file's fault."""
    if DEVICE_FAULT.search(str(error)):
        raise error
