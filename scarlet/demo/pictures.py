"""Reads demo sets into memory and cuts training batches from them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from scarlet.errors import BenchError

FACTORS = 3
LEVELS = 10  # of each factor; a class is 100 * shape + 10 * pattern + hue
STORED_SIDE = 128  # small training pictures are kept as central squares of this side
RESIZE, CROP = 256, 224
MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
STD = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


@dataclass(frozen=True)
class Pictures:
    """Images in memory: uint8 ``(n, side, side, 3)`` and their factors, int64 ``(n, 3)``."""

    pixels: Tensor
    factors: Tensor

    def __len__(self) -> int:
        return len(self.factors)


def factors_of(labels: Tensor) -> Tensor:
    """Shape, pattern and hue, int64 ``(n, 3)``, of class indices ``(n,)``."""
    return torch.stack([labels // 100, labels // 10 % 10, labels % 10], dim=1)


def read_pictures(folder: Path, source: str) -> Pictures:
    """Reads ``folder/valid/<wnid>/*.JPEG`` into memory.

    Args:
        folder: a demo set that holds all 1000 classes, so that a class's index is its folder's rank.
        source: ``train``: central squares of ``STORED_SIDE``; ``tune``: the reference preprocessing's crops.

    Raises:
        BenchError: the folder does not hold 1000 classes.
    """
    classes = sorted(path.name for path in (folder / "valid").glob("n*"))
    if len(classes) != LEVELS**FACTORS:
        raise BenchError(
            f"{folder} holds {len(classes)} of the 1000 demo classes",
            f"Make it with: python -m pipelines.demo.make --split {source} --images 2000 --out {folder}",
        )
    paths = sorted((folder / "valid").glob("*/*.JPEG"), key=lambda path: path.name)
    read = _central_square if source == "train" else _reference_crop
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        pixels = np.stack(list(pool.map(read, paths)))
    rank = {name: index for index, name in enumerate(classes)}
    labels = torch.tensor([rank[path.parent.name] for path in paths])
    return Pictures(torch.from_numpy(pixels), factors_of(labels))


def _central_square(path: Path) -> NDArray[np.uint8]:
    return _cropped(Image.open(path).convert("RGB"), STORED_SIDE)


def _reference_crop(path: Path) -> NDArray[np.uint8]:
    image = Image.open(path).convert("RGB")
    short = min(image.size)
    size = (RESIZE * image.width // short, RESIZE * image.height // short)
    return _cropped(image.resize(size, Image.Resampling.BILINEAR), CROP)


def _cropped(image: Image.Image, side: int) -> NDArray[np.uint8]:
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


def training_batch(pixels: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """A batch cut at one random place and size, mirrored half of the time, resized to ``side``."""
    stored = pixels.shape[1]
    cut = stored if stored == side else int(rng.integers(stored * 25 // 32, stored * 31 // 32))
    top, left = (int(offset) for offset in rng.integers(0, stored - cut + 1, 2))
    batch = normalised(pixels[:, top : top + cut, left : left + cut], side)
    return batch.flip(3) if rng.integers(2) else batch


def normalised(pixels: Tensor, side: int) -> Tensor:
    """Float batch ``(n, 3, side, side)`` from uint8 ``(n, height, width, 3)``, ImageNet mean and deviation."""
    batch = pixels.permute(0, 3, 1, 2).float()
    if batch.shape[2] != side:
        batch = F.interpolate(batch, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return ((batch - MEAN) / STD).contiguous(memory_format=torch.channels_last)
