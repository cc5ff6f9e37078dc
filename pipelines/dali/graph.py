"""The DALI operators that give the reference's pixels, and the numbers that they are fed with.

What makes them match (``pipelines.reference.pipeline`` is the measure, tests/pipelines/test_matched.py the proof):
EXIF orientation ignored; the target size computed here, truncated as torchvision does (DALI's own
``resize_shorter`` rounds); a triangular filter with antialiasing and no sub-pixel scaling; the crop's offset
rounded half to even; and the two passes that Pillow makes, first along rows, then along columns, each rounded
to whole grey levels, halves up. In one go DALI keeps fractions between the passes: 17 % of the demo set's pixels
then differ by one level, which changed 6 predictions in 2,000. With two passes 0.13 % do, by one level; by two in
single pixels, where both passes met a tie that float32 and Pillow's integers round differently. The price: 5.9
instead of 2.4 ms of processor time an image, decoding (1.4 ms) included; the pipeline ``turbo`` is the fast one on
a CPU.

Only what the crop needs is resized: the region of interest of each pass covers exactly the crop's pixels, which
gives the same values as resizing all and cropping.

On a GPU the operators and numbers are the same, down to the network's input. What matches them to the CPU's there is
``jpeg_fancy_upsampling``, which makes nvJPEG interpolate the chroma as libjpeg-turbo does (without it edges are tens of
levels off). There is no decoder cache, which would measure memory instead of decoding. Decoder threads are left to the
system instead of tied to cores 0, 1, 2 and on, where other workers' threads are too. The functions are the same for
both (``Place``): tests run them on the CPU.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.base import PipelineUnavailable, Preprocess
from pipelines.reference.pipeline import crop_offset, target_size
from scarlet.errors import error_text

QUEUE_DEPTH = 2

# What DALI, and nvJPEG under it, say where memory ran out or a GPU failed: no file's fault.
NO_MEMORY = r"(?i)CUDA allocation failed|(can't|failed to) allocate|out of memory|ALLOCATOR_FAILURE|bad_alloc"
DEVICE_FAULT = re.compile(rf"{NO_MEMORY}|CUDA (runtime|driver) API error|NVJPEG_STATUS_EXECUTION_FAILED")

# Added before rounding, in grey levels: Pillow rounds exact halves up, and the sum in float32 may end just below one.
# Tried on the demo set: 1/4096 leaves 0.13 % of pixels different, 1/16384 0.19 %, 1/256 1.7 %, none 0.5 % (and 25 %
# of the pixels of an image that is halved or quartered).
TIE = np.float32(1 / 4096)

Pixels = NDArray[np.uint8]
Numbers = NDArray[np.float32]


class Region(NamedTuple):
    """Which part of a decoded image becomes the result, for the two passes: float32 pairs of rows and columns.

    Attributes:
        start: of what the first pass reads, in pixels of the image. Its rows are whole numbers.
        end: where that ends.
        size: of the first pass's result: its rows are as many as were read.
        start_rows: where what the second pass reads begins in the first pass's result.
        end_rows: where it ends.
        size_rows: of the second pass's result.
    """

    start: Numbers
    end: Numbers
    size: Numbers
    start_rows: Numbers
    end_rows: Numbers
    size_rows: Numbers


def region(height: int, width: int, preprocess: Preprocess) -> Region:
    """What both passes read, and write, of an image of this size in pixels."""
    side = preprocess.crop
    resized_height, resized_width = target_size(height, width, preprocess)
    top, left = crop_offset(resized_height, resized_width, side)
    down, across = height / resized_height, width / resized_width
    # The filter of the second pass reaches so many steps of the coarser grid beyond the crop's edges.
    reach = (2.0 if preprocess.interpolation == "bicubic" else 1.0) * max(down, 1.0) + 1.0
    first = max(0, math.floor(top * down - reach))
    last = min(height, math.ceil((top + side) * down + reach))
    return Region(
        start=_pair(first, left * across),
        end=_pair(last, (left + side) * across),
        size=_pair(last - first, side),
        start_rows=_pair(top * down - first, 0),
        end_rows=_pair((top + side) * down - first, side),
        size_rows=_pair(side, side),
    )


def whole(height: int, width: int, preprocess: Preprocess) -> Region:
    """As ``region``, of the whole image: what resizing without a crop gives."""
    resized_height, resized_width = target_size(height, width, preprocess)
    return Region(
        start=_pair(0, 0),
        end=_pair(height, width),
        size=_pair(height, resized_width),
        start_rows=_pair(0, 0),
        end_rows=_pair(height, resized_width),
        size_rows=_pair(resized_height, resized_width),
    )


def _pair(rows: float, columns: float) -> Numbers:
    return np.array([rows, columns], np.float32)


@dataclass(frozen=True)
class Fed:
    """What one run of a graph takes: each image's file or pixels, and its region (none where it only decodes)."""

    images: list[Pixels]
    regions: list[Region]

    def columns(self) -> tuple[list[Any], ...]:
        """One list for each input of the graph."""
        return (self.images, *(list(numbers) for numbers in zip(*self.regions, strict=True)))


Source = Callable[[], Fed]


@dataclass(frozen=True)
class Place:
    """Where a graph runs.

    Attributes:
        gpu: CUDA's number of the GPU; None for the CPU.
        engine_share: share (0..1) of the images that the GPU's JPEG engine decodes, where it has one; its other
            multiprocessors and the CPU decode the rest. NVIDIA's Ampere (A100) and Hopper have engines.
    """

    gpu: int | None
    engine_share: float = 0.0


CPU = Place(None)


# What a graph may do, in order; a graph's steps follow each other.
STEPS = ("decode", "resize", "normalise")


class Load(NamedTuple):
    """How much a graph takes at a time.

    Attributes:
        chunk: most images in one run.
        threads: DALI's worker threads: even on a GPU the CPU does the Huffman decoding, unless the engine does.
        ahead: runs are prepared before they are asked for; else one answers what it was fed. What ends with
            ``normalise`` is then allocated anew for each run, so that a batch that somebody still holds is not written
            over (with ``exec_dynamic=False`` it is).
    """

    chunk: int
    threads: int
    ahead: bool = False


def graph_of(steps: Sequence[str], source: Source, load: Load, preprocess: Preprocess, place: Place = CPU) -> Any:
    """A DALI pipeline, not built yet.

    Args:
        steps: of ``STEPS``. After ``decode`` pixels are uint8 ``(n, height, width, 3)``, after ``resize`` ``(n, crop,
            crop, 3)``, after ``normalise`` float32 ``(n, 3, crop, crop)``.
        source: gives encoded files (or pixels on the host, where nothing is decoded) and, to resize, their regions, for
            at most ``load.chunk`` images a call; raises StopIteration at the end.
        preprocess: interpolation, mean and std are used; the regions are the source's.
    """
    dali, _, _ = import_dali()
    pipeline = partial(dali.Pipeline, batch_size=load.chunk, num_threads=load.threads, device_id=place.gpu)
    if load.ahead:
        dynamic = True if "normalise" in steps else None
        graph = pipeline(prefetch_queue_depth=QUEUE_DEPTH, exec_dynamic=dynamic)
    else:
        graph = pipeline(prefetch_queue_depth=1, exec_pipelined=False, exec_async=False)
    decodes = "decode" in steps
    with graph:
        pixels, *numbers = inputs(source, dimensions=1 if decodes else 3, regions="resize" in steps)
        pixels = decoded(pixels, place) if decodes else pixels if place.gpu is None else pixels.gpu()
        if "resize" in steps:
            pixels = resized(pixels, numbers, preprocess.interpolation)
        graph.set_outputs(normalised(pixels, preprocess) if "normalise" in steps else pixels)
    return graph


def built(graph: Any) -> Any:
    """Builds a graph.

    Raises:
        PipelineUnavailable: it cannot be built here; the text has DALI's reason.
        RuntimeError: for want of memory.
    """
    try:
        graph.build()
    except RuntimeError as error:
        if re.search(NO_MEMORY, str(error)):
            raise
        reason = error_text(error)
        raise PipelineUnavailable(
            f"DALI cannot build its graph ({reason}); `scarlet-bench doctor` tells of driver and versions, "
            "or name another --pipeline"
        ) from error
    return graph


def inputs(source: Source, dimensions: int, regions: bool = True) -> list[Any]:
    """The nodes of a graph that ``source`` feeds: encoded files (1 dimension) or pixels (3), then the regions."""
    _, fn, types = import_dali()
    n_numbers = len(Region._fields) if regions else 0
    layout = {1: None, 3: "HWC"}[dimensions]

    def columns() -> tuple[list[Any], ...]:
        fed = source()
        return fed.columns() if regions else (fed.images,)

    return list(
        fn.external_source(
            source=columns,
            num_outputs=1 + n_numbers,
            dtype=[types.UINT8, *[types.FLOAT] * n_numbers],
            ndim=[dimensions, *[1] * n_numbers],
            layout=[layout, *[None] * n_numbers] if layout else None,
        )
    )


def decoded(encoded: Any, place: Place) -> Any:
    """Pixels as the reference decodes them: RGB, EXIF orientation ignored."""
    _, fn, types = import_dali()
    decode = partial(fn.decoders.image, encoded, output_type=types.RGB, adjust_orientation=False)
    if place.gpu is None:
        return decode(device="cpu")
    return decode(
        device="mixed",
        jpeg_fancy_upsampling=True,
        hw_decoder_load=place.engine_share,
        use_fast_idct=False,
        cache_size=0,
        affine=False,
    )


def resized(pixels: Any, numbers: list[Any], interpolation: str) -> Any:
    """Pillow's two passes, each to whole grey levels: along rows, then along columns."""
    _, fn, types = import_dali()
    start, end, size, start_rows, end_rows, size_rows = numbers
    filter_ = types.INTERP_CUBIC if interpolation == "bicubic" else types.INTERP_LINEAR
    how = {"interp_type": filter_, "antialias": True, "subpixel_scale": False}
    across = fn.resize(pixels, size=size, roi_start=start, roi_end=end, dtype=types.FLOAT, **how)
    levels = fn.cast(across + TIE, dtype=types.UINT8)
    down = fn.resize(levels, size=size_rows, roi_start=start_rows, roi_end=end_rows, dtype=types.FLOAT, **how)
    return fn.cast(down + TIE, dtype=types.UINT8)


def normalised(levels: Any, preprocess: Preprocess) -> Any:
    """``(levels / 255 - mean) / std`` as float32 planes; the last digits may differ from the reference's."""
    _, fn, types = import_dali()
    return fn.crop_mirror_normalize(
        levels,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=[255.0 * value for value in preprocess.mean],
        std=[255.0 * value for value in preprocess.std],
    )


def import_dali() -> tuple[Any, Any, Any]:
    """``nvidia.dali``, its ``fn`` and its ``types``.

    Raises:
        PipelineUnavailable: it is not installed, or cannot be loaded.
    """
    try:
        return tuple(importlib.import_module(f"nvidia.dali{part}") for part in ("", ".fn", ".types"))  # type: ignore[return-value]
    except ImportError as error:
        raise PipelineUnavailable(
            f"NVIDIA DALI cannot be imported ({error}): on Linux, pip install nvidia-dali-cuda130 "
            "(it runs without a GPU); elsewhere use the pipeline 'reference'"
        ) from error
