"""One image on the fast path: simplejpeg's decoder and PyTorch's uint8 resize, and no more of either than is needed.

What makes the pixels match (``pipelines.reference.pipeline`` is the measure, tests/pipelines/turbo/test_turbo.py the
proof): simplejpeg is libjpeg-turbo, as Pillow is, and decodes to the same bytes with the slow DCT and the smooth
upsampling of chroma, which are its defaults. PyTorch's uint8 antialiased resize makes Pillow's two passes, each rounded
to whole grey levels, with weights of 16 bits instead of Pillow's 32: 0.17 % of the demo set's values differ, by one
level, and 0.4 % with bicubic, single ones by two; in noise also by two, where an image is hardly shrunk. Pillow's own
resize in its place would be exact and cost a tenth of the speed from files to classes (docs/speed.md).

PyTorch always begins with the pass along rows. Pillow 13 begins with the other one where an image is more than about
twice as tall as wide and shrinks (https://github.com/python-pillow/Pillow/pull/9549): there a quarter of the values
differ, by one level.

What is left out, without any effect on the pixels that are kept:

- rows and columns that the crop does not show, as far as they lie right of it or below it. The resize is told the
  scale of the whole image and a smaller result. It has no way to begin elsewhere than at the first row and column.
- below the last row that the crop needs, the file is not decoded at all: the height in its header is lowered. Columns
  cannot be left out, since simplejpeg decodes whole rows, and little would be gained: decoding to an
  eighth of the size, which is entropy decoding and hardly anything else, takes 72 % of the time.

Memory is reused from image to image. docs/experiments/decode.py measures what each of the savings brings.
"""

from __future__ import annotations

import importlib
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipelines.base import PipelineUnavailable, PipelineUnsupported, Preprocess
from pipelines.reference.pipeline import UnreadableImage, crop_offset, cut, target_size
from scarlet.errors import error_text

Pixels = NDArray[np.uint8]

# Larger pictures get memory of their own, so that one of them does not occupy each thread's for the rest of the pass.
SCRATCH_BYTES_MAX = 16 * 2**20

# Rows of chroma lie half as dense as rows of pixels; the smooth upsampling looks one row of chroma further.
CHROMA_ROWS = 2

# How far a filter reaches beyond a pixel's middle, in steps of the coarser grid.
REACH = {"bilinear": 1.0, "bicubic": 2.0}

_SOS, _PROGRESSIVE = 0xDA, 0xC2
_FRAMES = (0xC0, 0xC1, 0xC2)


class Scratch:
    """Memory that one thread reuses from image to image. What lies in it ends with the next call for the same use."""

    def __init__(self) -> None:
        self._kept: dict[str, Pixels] = {}

    def pixels(self, use: str, height: int, width: int) -> Pixels:
        """uint8, ``(height, width, 3)``, contents undefined."""
        size = height * width * 3
        if size > SCRATCH_BYTES_MAX:
            return np.empty((height, width, 3), np.uint8)
        if use not in self._kept or self._kept[use].size < size:
            self._kept[use] = np.empty(size, np.uint8)
        return self._kept[use][:size].reshape(height, width, 3)


class Span(NamedTuple):
    """How far along one side the resize reads and writes, from the first pixel on.

    Attributes:
        read: pixels of the image.
        written: pixels of the result: as many as the crop's end needs, or one more.
        scale: of the whole image: result per image.
    """

    read: int
    written: int
    scale: float


def rows(height: int, resized: int, end: int, reach: float = 1.0) -> Span:
    """Which rows the resize needs of ``height`` that become ``resized``, of which the first ``end`` are wanted.

    Args:
        reach: of the filter, in steps of the coarser grid beyond the pixel's middle: ``REACH``.
    """
    if height == resized:
        return Span(end, end, 1.0)
    step = height / resized
    # One more for rounding.
    read = min(height, math.ceil(end * step + reach * max(step, 1.0) + 1.0))
    return Span(read + (read == end), end, resized / height) if read < height else columns(height, resized, end)


def columns(width: int, resized: int, end: int) -> Span:
    """As ``rows``, where all are read: to leave out parts of rows would mean to copy the rest."""
    # The resize would take equal lengths for nothing to do, whatever the scale.
    return Span(width, end + (end == width), resized / width)


def rows_needed(height: int, width: int, preprocess: Preprocess) -> int:
    """Rows of an image of this size, from the first on, that have to be decoded for the crop."""
    resized_height, resized_width = target_size(height, width, preprocess)
    top, _ = crop_offset(resized_height, resized_width, preprocess.crop)
    end = min(top + preprocess.crop, resized_height)
    return min(height, rows(height, resized_height, end, REACH[preprocess.interpolation]).read + CHROMA_ROWS)


def shortened(data: bytes, height: int) -> bytes | bytearray:
    """The same JPEG with a lower frame: a decoder stops at its last row.

    Args:
        data: a file with a ``plain_size``.
        height: less than the frame has, in pixels. The last ``CHROMA_ROWS`` rows may differ from those of the
            whole file.

    Returns:
        ``data`` itself where several scans would each have to be cut.
    """
    frame, at = 0, 2
    while data[at + 1] != _SOS:
        if data[at + 1] in _FRAMES:
            frame = at
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if data[frame + 1] == _PROGRESSIVE or data[at + 4] != data[frame + 9]:
        return data
    shorter = bytearray(data)
    shorter[frame + 5 : frame + 7] = height.to_bytes(2, "big")
    return shorter


class TurboImage:
    """Decodes and resizes plain JPEGs (``pipelines.imagenet.jpeg.plain_size``). Safe to use from many threads.

    Raises:
        PipelineUnavailable: simplejpeg or PyTorch is missing.
        PipelineUnsupported: PyTorch's resize would not be the one that was checked.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        if reason := refusal(preprocess):
            raise PipelineUnsupported(f"{reason}; use the pipeline 'reference'")
        self._preprocess = preprocess
        self._decode, self._torch = import_turbo()
        # As called by torch.nn.functional.interpolate, which cannot be told the scale and the size at once.
        self._resize = getattr(self._torch.ops.aten, f"_upsample_{preprocess.interpolation}2d_aa").out

    def decode(self, data: bytes) -> Pixels:
        """All pixels of a plain JPEG: uint8, ``(height, width, 3)``.

        Raises:
            UnreadableImage: simplejpeg finds any fault, also one that Pillow passes over.
        """
        return self._decoded(data, None, strict=True)

    def crop(self, data: bytes, size: tuple[int, int], scratch: Scratch) -> Pixels:
        """From a plain JPEG's bytes to its centre, resized: uint8, ``(crop, crop, 3)``, in the scratch memory.

        Args:
            data: the file's bytes.
            size: its height and width in pixels.
            scratch: the calling thread's own.

        Raises:
            UnreadableImage: simplejpeg cannot decode it.
        """
        height, width = size
        needed = rows_needed(height, width, self._preprocess)
        shorter = shortened(data, needed) if needed < height else data
        out = scratch.pixels("decoded", height if shorter is data else needed, width)
        # Behind the last row of a shortened file follows what the decoder takes for dirt: only a warning.
        pixels = self._decoded(shorter, out, strict=shorter is data)
        return self.cropped(pixels, height, scratch)

    def cropped(self, pixels: Pixels, height: int, scratch: Scratch) -> Pixels:
        """The centre of the resized image: uint8, ``(crop, crop, 3)``, in the scratch memory or in ``pixels``.

        Args:
            pixels: the image's first rows, at least ``rows_needed``.
            height: of the whole image, in pixels.
            scratch: the calling thread's own.
        """
        width, side = pixels.shape[1], self._preprocess.crop
        resized_height, resized_width = target_size(height, width, self._preprocess)
        top, left = crop_offset(resized_height, resized_width, side)
        end, end_of_row = min(top + side, resized_height), min(left + side, resized_width)
        if (height, width) != (resized_height, resized_width):
            down = rows(height, resized_height, end, REACH[self._preprocess.interpolation])
            across = columns(width, resized_width, end_of_row)
            pixels = self._resized(pixels[: down.read], down, across, scratch)
        return cut(pixels[:end, :end_of_row], top, left, self._preprocess)

    def resize(self, pixels: Pixels) -> Pixels:
        """The whole image in its ``target_size``: uint8, ``(height, width, 3)``."""
        height, width, _ = pixels.shape
        resized_height, resized_width = target_size(height, width, self._preprocess)
        if (height, width) == (resized_height, resized_width):
            return pixels
        down = columns(height, resized_height, resized_height)
        across = columns(width, resized_width, resized_width)
        return self._resized(pixels, down, across, Scratch())[:resized_height, :resized_width]

    def _decoded(self, data: bytes | bytearray, out: Pixels | None, strict: bool) -> Pixels:
        try:
            pixels: Pixels = self._decode(data, "RGB", fastdct=False, fastupsample=False, buffer=out, strict=strict)
        except ValueError as error:
            raise UnreadableImage(error_text(error)) from error
        return pixels

    def _resized(self, pixels: Pixels, down: Span, across: Span, scratch: Scratch) -> Pixels:
        out = scratch.pixels("resized", down.written, across.written)
        self._resize(
            self._tensor(pixels), [down.written, across.written], False, down.scale, across.scale, out=self._tensor(out)
        )
        return out

    def _tensor(self, pixels: Pixels) -> Any:
        """A view with axes ``(1, 3, height, width)``: channels last, as the fast resize wants it."""
        return self._torch.from_numpy(pixels).permute(2, 0, 1).unsqueeze(0)


def refusal(preprocess: Preprocess) -> str:
    """Why this path cannot do as the reference does; empty where it can."""
    if preprocess.interpolation in REACH:
        return ""
    return f"the pipeline 'turbo' has no {preprocess.interpolation} filter"


def import_turbo() -> tuple[Any, Any]:
    """``simplejpeg.decode_jpeg`` and ``torch``.

    Raises:
        PipelineUnavailable: one of them is not installed, or cannot be loaded.
        PipelineUnsupported: this processor has no AVX2.
    """
    try:
        decode = importlib.import_module("simplejpeg").decode_jpeg
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise PipelineUnavailable(
            f"the pipeline 'turbo' cannot be loaded ({error}): pip install simplejpeg torch; or use the pipeline "
            "'reference'"
        ) from error
    capability = torch.backends.cpu.get_cpu_capability()
    # With AVX2 the uint8 resize is one loop on the calling thread. Elsewhere PyTorch splits each image among threads
    # of its own, started by each decoding thread: more threads than requested.
    if capability not in ("AVX2", "AVX512"):
        raise PipelineUnsupported(
            f"the pipeline 'turbo' needs AVX2, and PyTorch finds {capability}; use the pipeline 'reference'"
        )
    return decode, torch
