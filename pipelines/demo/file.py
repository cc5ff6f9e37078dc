"""Writes one demo picture as a JPEG file, with the variety of sizes, samplings and oddities of a real set."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipelines.demo.picture import draw

CLASSES = 1000
# A number per split goes into every image's random stream, so no two splits share an image at any seed.
SPLITS = {"val": 0, "train": 1, "tune": 2, "calib": 3}
TRAIN_SHORT_SIDE = 128
# Small training pictures stand for large ones that were reduced, which averages most of their grain away.
TRAIN_GRAIN_SCALE = 0.35
# Each picture's hardness is spread evenly from 0 to this. Small clear pictures are learned from in fewer steps. On
# hard ones a network is undecided, so that one grey level changes its mind: they are for training, not for judging.
HARDNESS = {"val": 0.65, "train": 0.6, "tune": 1.0, "calib": 0.65}
# Validation files weigh about what ImageNet's do, because decoding time goes with their size.
_HEAVY = (75, 85, 90, 92, 94, 95, 96, 97, 98)
QUALITIES = {"val": _HEAVY, "train": range(70, 97), "tune": range(70, 97), "calib": _HEAVY}
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class FileKind:
    """How one picture is stored.

    Attributes:
        width: in pixels.
        height: in pixels.
        quality: JPEG quality, 1..100.
        subsampling: of the chroma planes, in Pillow's notation.
        mode: ``RGB``, ``L`` (grayscale) or ``CMYK``.
        orientation: the EXIF orientation, or None for no EXIF. The pixels are upright when it is ignored, as
            the published evaluation of SCARLET does. 0 is invalid, and occurs in real sets.
        progressive: a progressive file.
    """

    width: int
    height: int
    quality: int
    subsampling: str = "4:2:0"
    mode: str = "RGB"
    orientation: int | None = None
    progressive: bool = False


def class_of(index: int) -> int:
    """The class of a set's image: a permutation of 0..999, repeated.

    Every 10 images in a row hold each shape, each texture and each hue once, and every 100 hold each pair of
    shape and texture and each pair of shape and hue once, so that small sets are balanced too.
    """
    a, b, c = index % 10, index // 10 % 10, index // 100 % 10
    return 100 * a + 10 * ((a + b) % 10) + (a + 3 * b + c) % 10


def relative_path(wnid: str, split: str, index: int) -> str:
    """Where an image goes under the set's folder, with forward slashes."""
    return f"valid/{wnid}/demo_{split}_{index:06d}.JPEG"


def write_image(out: Path, relative: str, split: str, seed: int, index: int) -> None:
    """Makes one image and writes it whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    path = out / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_bytes(image_bytes(split, seed, index))
    temporary.replace(path)


def image_bytes(split: str, seed: int, index: int) -> bytes:
    """The JPEG file of one image; nothing but the arguments and the versions of Pillow and NumPy matters."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, SPLITS[split], index])))
    kind = choose_kind(rng, split)
    label = class_of(index)
    grain_scale = TRAIN_GRAIN_SCALE if split == "train" else 1.0
    hardness = float(rng.random()) * HARDNESS[split]
    picture = draw(
        rng, label // 100, label // 10 % 10, label % 10, kind.width, kind.height, hardness, grain_scale
    )
    return encode(picture, kind)


def choose_kind(rng: np.random.Generator, split: str) -> FileKind:
    """Draws a size and a way of storing; ``train`` gets small pictures, other splits ImageNet's spread."""
    width, height = _train_size(rng) if split == "train" else _imagenet_size(rng)
    if rng.random() < 0.25:
        width, height = height, width
    oddity = rng.random()
    return FileKind(
        width=width,
        height=height,
        quality=QUALITIES[split][int(rng.integers(len(QUALITIES[split])))],
        subsampling=("4:2:0", "4:2:0", "4:2:0", "4:4:4", "4:4:4", "4:2:2")[int(rng.integers(6))],
        mode="L" if oddity < 0.015 else "CMYK" if oddity < 0.025 else "RGB",
        orientation=(0, 3, 6, 8)[int(rng.integers(4))] if 0.025 <= oddity < 0.055 else None,
        progressive=bool(rng.random() < 0.05),
    )


def _train_size(rng: np.random.Generator) -> tuple[int, int]:
    return TRAIN_SHORT_SIDE + int(rng.integers(0, 65)), TRAIN_SHORT_SIDE


def _imagenet_size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height of a landscape picture."""
    which = rng.random()
    if which < 0.70:
        return 500, int(rng.integers(330, 401)) if which < 0.35 else (375, 333)[int(rng.integers(2))]
    if which < 0.93:
        height = int(rng.integers(240, 481))
        return height + int(rng.integers(0, 161)), height
    if which < 0.94:
        return 75, 56
    if which < 0.97:
        height = int(rng.integers(80, 224))
        return height + int(rng.integers(0, 81)), height
    if which < 0.995:
        height = int(rng.integers(600, 901))
        return height * 4 // 3, height
    return 1600, int(rng.integers(1060, 1201))


def encode(picture: NDArray[np.uint8], kind: FileKind) -> bytes:
    """A JPEG file.

    Args:
        picture: uint8, ``(height, width, 3)``, RGB.
        kind: how to store it.
    """
    image = Image.fromarray(picture)
    if kind.mode != "RGB":
        image = image.convert(kind.mode)
    exif = Image.Exif()
    if kind.orientation is not None:
        exif[EXIF_ORIENTATION] = kind.orientation
    subsampling = {} if kind.mode == "L" else {"subsampling": kind.subsampling}
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=kind.quality, progressive=kind.progressive, exif=exif, **subsampling)
    return buffer.getvalue()
