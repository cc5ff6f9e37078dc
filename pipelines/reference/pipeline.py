"""The definition of the right pixels: Pillow alone, to torchvision's evaluation transform.

Resize of the short side with antialiasing, centre crop, mean and standard deviation, with the arithmetic of
``torchvision.transforms`` (``Resize``, ``CenterCrop``, ``ToTensor``, ``Normalize``). EXIF orientation and ICC
profiles are ignored, as ``torchvision.datasets.ImageFolder`` does.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError

from pipelines.base import Passes, Planes, Preprocess
from pipelines.base import UnreadableImage as UnreadableImage
from pipelines.imagenet.find import Image, read_image
from scarlet.errors import error_text, unknown_name
from scarlet.preprocess import INTERPOLATIONS

FILTERS = {name: PillowImage.Resampling[name.upper()] for name in INTERPOLATIONS}

# Of a decoded or resized image: resizing the short side of a 65000 x 1 image makes 17 million columns. With it
# a thread that decodes holds half a gigabyte at most.
PIXELS_MAX = 2**26

# What a data set holds. Pillow opens forty more, one of them (EPS) by starting another program.
FORMATS = ("JPEG", "PNG")


def resize_size(height: int, width: int, short: int) -> tuple[int, int]:
    """Height and width in pixels after the short side becomes ``short``.

    The long side is truncated, not rounded, as in torchvision's ``_compute_resized_output_size``.
    """
    if width <= height:
        return int(short * height / width), short
    return short, int(short * width / height)


def target_size(height: int, width: int, preprocess: Preprocess) -> tuple[int, int]:
    """Height and width in pixels after resizing: as torchvision does, or timm's ``crop_mode`` squash and border.

    Source: timm 1.0, ``data.transforms_factory.transforms_imagenet_eval`` and ``data.transforms.ResizeKeepRatio``.
    """
    side = preprocess.resize
    if preprocess.crop_mode == "squash":
        return side, side
    if preprocess.crop_mode == "border":
        ratio = max(height / side, width / side)
        return max(1, round(height / ratio)), max(1, round(width / ratio))
    return resize_size(height, width, side)


def crop_offset(height: int, width: int, crop: int) -> tuple[int, int]:
    """Top and left of the central square of side ``crop``, in pixels.

    Halves go to the even number, as in torchvision's ``center_crop``, which rounds with Python's ``round``.
    An image smaller than the crop has a negative offset: that many black pixels come before it.
    """
    return _offset(height, crop), _offset(width, crop)


def _offset(side: int, crop: int) -> int:
    return round((side - crop) / 2.0) if side >= crop else -((crop - side) // 2)


def cut(pixels: NDArray[np.uint8], top: int, left: int, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The square of side ``crop`` that begins at ``top`` and ``left``, filled up where the image is smaller.

    Returns:
        uint8, ``(crop, crop, 3)``: a part of ``pixels`` where nothing is filled up.
    """
    side = preprocess.crop
    part = pixels[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)]
    if part.shape == (side, side, 3):
        return part
    whole = np.empty((side, side, 3), np.uint8)
    whole[...] = preprocess.fill
    whole[max(-top, 0) :, max(-left, 0) :][: part.shape[0], : part.shape[1]] = part
    return whole


def centre(pixels: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """The central square of side ``crop``: see ``cut``."""
    return cut(pixels, *crop_offset(pixels.shape[0], pixels.shape[1], preprocess.crop), preprocess)


def fits_memory(height: int, width: int, preprocess: Preprocess) -> bool:
    """Whether the resized image stays under ``PIXELS_MAX``; only absurdly thin images do not."""
    resized_height, resized_width = target_size(height, width, preprocess)
    return resized_height * resized_width <= PIXELS_MAX


def within_limits(height: int, width: int, preprocess: Preprocess) -> bool:
    """Whether the reference does not reject an image for its size."""
    return height * width <= PIXELS_MAX and fits_memory(height, width, preprocess)


def opened(data: bytes) -> PillowImage.Image:
    """An image of which the header is read, and nothing else.

    Raises:
        UnreadableImage: it has more than ``PIXELS_MAX`` pixels.
        Exception: whatever Pillow raises for a damaged file.
    """
    image = PillowImage.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > PIXELS_MAX:
        size = f"{image.width} x {image.height}"
        raise UnreadableImage(f"more than {PIXELS_MAX / 1e6:.0f} million pixels ({size})")
    return image


def _open_rgb(data: bytes) -> PillowImage.Image:
    try:
        with opened(data) as image:
            image.load()
            return image if image.mode == "RGB" else image.convert("RGB")
    except (MemoryError, UnreadableImage):
        raise
    except Exception as error:  # a damaged file can make Pillow's decoders raise almost anything
        raise UnreadableImage(_reason(data, error)) from error


def _reason(data: bytes, error: Exception) -> str:
    """One line without paths or addresses, so that equal faults read equal."""
    if isinstance(error, UnidentifiedImageError):
        return "not a JPEG or PNG" if data else "the file is empty"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    return error_text(error)


def decode(data: bytes) -> NDArray[np.uint8]:
    """All pixels of an encoded image, RGB, before any resizing.

    Gray, palette, alpha and CMYK images are converted as ``PIL.Image.convert("RGB")`` does.

    Returns:
        uint8, ``(height, width, 3)``.

    Raises:
        UnreadableImage: the file is empty, damaged, too large or no image.
    """
    return np.array(_open_rgb(data))


def reference_pixels(path: Path, preprocess: Preprocess) -> NDArray[np.uint8]:
    """The pixels that a network should see, before normalisation.

    Returns:
        uint8, ``(crop, crop, 3)``, RGB.

    Raises:
        UnreadableImage: the file is missing, empty, damaged or no image.
        BenchError: ``preprocess.interpolation`` is not known.
    """
    resampling = interpolation_filter(preprocess)
    try:
        data = read_image(path)
    except OSError as error:
        raise UnreadableImage(_reason(b"", error)) from error
    pixels = np.asarray(resized(_open_rgb(data), preprocess, resampling))
    return centre(pixels, preprocess)


def resized(image: PillowImage.Image, preprocess: Preprocess, resampling: PillowImage.Resampling) -> PillowImage.Image:
    """The whole image in its ``target_size``.

    First along rows, then along columns, in two calls: in one call Pillow 13 takes the columns of tall images first
    (python-pillow/Pillow#9549), which turns a quarter of noise's values by a level, and older ones never do.

    Raises:
        UnreadableImage: its long side would be absurdly long.
    """
    if not fits_memory(image.height, image.width, preprocess):
        raise UnreadableImage(f"too thin to resize ({image.width} x {image.height} pixels)")
    height, width = target_size(image.height, image.width, preprocess)
    return image.resize((width, image.height), resampling).resize((width, height), resampling)


def interpolation_filter(preprocess: Preprocess) -> PillowImage.Resampling:
    """Pillow's filter for ``preprocess.interpolation``, or a ``BenchError``."""
    if preprocess.interpolation not in FILTERS:
        raise unknown_name("interpolation", preprocess.interpolation, FILTERS)
    return FILTERS[preprocess.interpolation]


def normalise(
    pixels: NDArray[np.uint8], preprocess: Preprocess, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """``(pixels / 255 - mean) / std`` in float32, as ``ToTensor`` and ``Normalize`` compute it.

    Three plain passes over each plane: faster than a table of 256 values (140 against 190 microseconds for
    224 x 224), and bit-equal to it.

    Args:
        pixels: uint8, ``(height, width, 3)``.
        preprocess: mean, std and the order of the channels are used.
        out: float32, ``(3, height, width)``: where to write, instead of to new memory.

    Returns:
        float32, ``(3, height, width)``.
    """
    height, width, channels = pixels.shape
    planes = np.empty((channels, height, width), np.float32) if out is None else out
    scale = np.float32(255)
    mean, std = np.asarray(preprocess.mean, np.float32), np.asarray(preprocess.std, np.float32)
    for channel, plane in enumerate(planes[:: preprocess.step]):
        plane[...] = pixels[:, :, channel]
        np.divide(plane, scale, out=plane)
        np.subtract(plane, mean[channel], out=plane)
        np.divide(plane, std[channel], out=plane)
    return planes


class ReferencePipeline(Passes):
    """Pillow on ``threads`` threads: it releases the interpreter's lock while it decodes and resizes."""

    name = "reference"

    def __init__(self, images: Sequence[Image], batch: int, threads: int, preprocess: Preprocess) -> None:
        interpolation_filter(preprocess)
        super().__init__(images, batch, threads, preprocess)

    def _make(self, image: Image, planes: Planes) -> bool:
        normalise(reference_pixels(image.path, self._preprocess), self._preprocess, out=planes)
        return False


class ReferenceStages:
    """Pillow's steps; see ``pipelines.base.Stages``. Many images are spread over threads."""

    def __init__(self, preprocess: Preprocess, threads: int = 1) -> None:
        self._resampling = interpolation_filter(preprocess)
        self._preprocess = preprocess
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="stages")

    def decode(self, data: bytes) -> NDArray[np.uint8]:
        return decode(data)

    def resize(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.array(resized(PillowImage.fromarray(pixels), self._preprocess, self._resampling))

    def crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return centre(pixels, self._preprocess).copy()

    def normalise(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        return normalise(pixels, self._preprocess)

    def decode_all(self, files: Sequence[bytes]) -> list[NDArray[np.uint8]]:
        return list(self._pool.map(self.decode, files))

    def preprocess_all(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        cropped = self._pool.map(lambda pixels: self.crop(self.resize(pixels)), images)
        return np.stack([self.normalise(pixels) for pixels in cropped])

    def close(self) -> None:
        self._pool.shutdown()
