"""Small images made to tell faults of preprocessing apart, where a sample of real ones may hold no telling one.

Most photographs of ImageNet are 500 x 375 pixels: resized and cropped they look the same to a crop that floors its
offset and to one that rounds it, and hardly any has an EXIF orientation. A check on a few dozen of them would pass
such a fault, which then changes the predictions of a few images in a thousand.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from pipelines.base import Preprocess
from pipelines.imagenet.find import Image
from pipelines.reference.pipeline import resize_size

ORIENTATION_TAG = 0x0112  # Exif 2.32, 4.6.4
TURNED_BY_90_DEGREES = 6

# The short side over the resized one: enough for antialiasing to matter.
REDUCTION = 1.4

JPEG_QUALITY = 92


def write_probes(folder: Path, preprocess: Preprocess) -> list[Image]:
    """Writes the probes as JPEGs into ``folder``, which must exist.

    By name: ``offset_up`` and ``offset_down``, whose crop begins between two pixels and is rounded up or down (halves
    go to the even one); ``tall``, the former standing; ``truncated``, whose long side ends on a fraction over a half
    that the reference cuts off; ``turned``, with an EXIF orientation; ``gray``, of one channel; ``full_colour``, with
    no chroma subsampling.

    Args:
        preprocess: resize and crop decide on the sizes.

    Returns:
        the probes, with label 0: they are for comparing pixels only.
    """
    down = _landscape(preprocess, lambda margin, fraction: margin % 4 == 1 and fraction < 0.5)
    up = _landscape(preprocess, lambda margin, fraction: margin % 4 == 3 and fraction < 0.5)
    cut = _landscape(preprocess, lambda margin, fraction: margin % 2 == 0 and fraction > 0.6)
    turned = PillowImage.Exif()
    turned[ORIENTATION_TAG] = TURNED_BY_90_DEGREES
    made = {
        "offset_down": _jpeg(_photograph(*down, seed=1)),
        "offset_up": _jpeg(_photograph(*up, seed=2)),
        "tall": _jpeg(_photograph(up[1], up[0], seed=3)),
        "truncated": _jpeg(_photograph(*cut, seed=4)),
        "turned": _jpeg(_photograph(*cut, seed=5), exif=turned),
        "gray": _jpeg(_photograph(*up, seed=6)[:, :, 0]),
        "full_colour": _jpeg(_photograph(*down, seed=7), subsampling="4:4:4"),
    }
    probes = []
    for name, data in made.items():
        path = folder / f"{name}.JPEG"
        path.write_bytes(data)
        probes.append(Image(f"probe {name}", path, 0))
    return probes


def _landscape(preprocess: Preprocess, wanted: Callable[[int, float], bool]) -> tuple[int, int]:
    """Height and width of the least wide image of which ``wanted`` is true.

    ``wanted`` is given the pixels that the crop leaves over of the resized width, and the fraction of a pixel that
    the resized width is cut by.
    """
    height = math.ceil(REDUCTION * max(preprocess.resize, preprocess.crop))
    width = math.ceil(1.2 * height)
    while True:
        exact = preprocess.resize * width / height
        margin = resize_size(height, width, preprocess.resize)[1] - preprocess.crop
        if margin > 0 and wanted(margin, exact - math.floor(exact)):
            return height, width
        width += 1


def _photograph(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Smooth shades, hard edges and noise, as photographs have; uint8, ``(height, width, 3)``."""
    source = np.random.default_rng(seed)
    coarse = PillowImage.fromarray(source.integers(0, 256, (9, 13, 3), dtype=np.uint8))
    shades = np.asarray(coarse.resize((width, height), PillowImage.Resampling.BICUBIC), np.float64)
    rows, columns = np.mgrid[0:height, 0:width]
    edges = 40.0 * (((rows // 11 + columns // 17) % 2) * 2 - 1)
    noise = source.normal(0.0, 12.0, (height, width, 3))
    return np.asarray((shades + edges[:, :, None] + noise).clip(0, 255), np.uint8)


def _jpeg(pixels: NDArray[np.uint8], subsampling: str = "4:2:0", exif: PillowImage.Exif | None = None) -> bytes:
    stream = io.BytesIO()
    options = {"exif": exif} if exif is not None else {}
    image = PillowImage.fromarray(pixels)
    image.save(stream, "JPEG", quality=JPEG_QUALITY, subsampling=subsampling, **options)
    return stream.getvalue()
