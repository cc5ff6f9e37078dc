"""Pipelines that are the reference but for one fault, to see the fault found and named."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageOps

import pipelines
from pipelines.base import Batch, PipelineReport, PipelineUnsupported
from pipelines.reference.pipeline import ReferenceStages, UnreadableImage, resize_size


class Bgr(ReferenceStages):
    def decode(self, data):
        return np.ascontiguousarray(super().decode(data)[:, :, ::-1])


class ExifApplied(ReferenceStages):
    def decode(self, data):
        with PillowImage.open(io.BytesIO(data)) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))


class Brighter(ReferenceStages):
    """By one level at most."""

    def decode(self, data):
        return super().decode(data) | 1


class Refusing(ReferenceStages):
    """Reads no grayscale, although it should."""

    def decode(self, data):
        pixels = super().decode(data)
        with PillowImage.open(io.BytesIO(data)) as image:
            if image.mode != "RGB":
                raise UnreadableImage("one channel only")
        return pixels


class HandsOver(ReferenceStages):
    """Leaves grayscale to the reference."""

    def decode(self, data):
        pixels = super().decode(data)
        with PillowImage.open(io.BytesIO(data)) as image:
            if image.mode != "RGB":
                raise PipelineUnsupported("grayscale is left to the reference")
        return pixels


def _filtered(filter_):
    class Filtered(ReferenceStages):
        def resize(self, pixels):
            height, width = resize_size(*pixels.shape[:2], self._preprocess.resize)
            return np.array(PillowImage.fromarray(pixels).resize((width, height), filter_))

    return Filtered


Bicubic = _filtered(PillowImage.Resampling.BICUBIC)


class RoundedSize(ReferenceStages):
    def resize(self, pixels):
        height, width = pixels.shape[:2]
        scale = self._preprocess.resize / min(height, width)
        size = (round(width * scale), round(height * scale))
        return np.array(PillowImage.fromarray(pixels).resize(size, PillowImage.Resampling.BILINEAR))


class Square(ReferenceStages):
    def resize(self, pixels):
        side = self._preprocess.resize
        return np.array(PillowImage.fromarray(pixels).resize((side, side), PillowImage.Resampling.BILINEAR))


class CutOff(ReferenceStages):
    """Fractions cut off instead of rounded: half a level darker in the mean, one at the most."""

    def resize(self, pixels):
        made = super().resize(pixels)
        return made - (np.indices(made.shape).sum(axis=0) % 2 * (made > 0)).astype(np.uint8)


def _cropped(rule):
    class Cropped(ReferenceStages):
        def crop(self, pixels):
            side = self._preprocess.crop
            top, left = (rule(length - side) for length in pixels.shape[:2])
            return pixels[top : top + side, left : left + side].copy()

    return Cropped


FlooredCrop = _cropped(lambda margin: margin // 2)
CeiledCrop = _cropped(lambda margin: -(-margin // 2))


class SmallCrop(ReferenceStages):
    def crop(self, pixels):
        return super().crop(pixels)[4:-4, 4:-4].copy()


class MeanOnly(ReferenceStages):
    def normalise(self, pixels):
        std = np.array(self._preprocess.std, np.float32)
        return ((pixels / np.float32(255) - np.float32(0.45)) / std).transpose(2, 0, 1).astype(np.float32)


class ChannelsLast(ReferenceStages):
    def normalise(self, pixels):
        return np.ascontiguousarray(super().normalise(pixels).transpose(1, 2, 0))


class NotFinite(ReferenceStages):
    def normalise(self, pixels):
        planes = super().normalise(pixels)
        planes[0, 0, 0] = np.nan
        return planes


class DoublePrecision(ReferenceStages):
    def normalise(self, pixels):
        return super().normalise(pixels).astype(np.float64)


class _Pass:
    """The whole path made of some stages; ``order`` says what comes out, ``shown`` whose pixels each image gets."""

    stages = ReferenceStages

    def __init__(self, images, batch, threads, preprocess) -> None:
        self.images, self.batch = images, batch
        self.own = self.stages(preprocess)
        self.report = PipelineReport()

    def order(self) -> list[int]:
        return list(range(len(self.images)))

    def shown(self, index: int) -> int:
        return index

    def __iter__(self) -> Iterator[Batch]:
        reference = ReferenceStages(self.own._preprocess)
        self.report = PipelineReport()
        made = {}
        for index in range(len(self.images)):
            try:
                data = self.images[index].path.read_bytes()
                try:
                    pixels = self.own.decode(data)
                except PipelineUnsupported:
                    self.report.fallbacks.append(self.images[index].image_id)
                    pixels = reference.decode(data)
            except UnreadableImage:
                continue
            made[index] = self.own.normalise(self.own.crop(self.own.resize(pixels)))
        order = [index for index in self.order() if index in made]
        for first in range(0, len(order), self.batch):
            part = order[first : first + self.batch]
            yield Batch(np.array(part), np.stack([made[self.shown(index)] for index in part]))

    def close(self) -> None:
        self.own.close()


class LostLast(_Pass):
    def order(self):
        return super().order()[: len(self.images) // self.batch * self.batch or len(self.images) - 1]


class Repeats(_Pass):
    def order(self):
        return sorted([*super().order(), 1])


class Shuffles(_Pass):
    def shown(self, index):
        return {0: 1, 1: 0}.get(index, index)


class Darkens(_Pass):
    """Its stages are right; its passes are not."""

    def __iter__(self):
        for batch in super().__iter__():
            yield Batch(batch.indices, batch.pixels - np.float32(0.1))


PASSES = {cls.__name__: cls for cls in (LostLast, Repeats, Shuffles, Darkens)}


def plant(monkeypatch, name: str) -> str:
    """Registers the fault of this name as a pipeline, ``name`` in lower case, and gives that."""
    if name not in PASSES and f"{name}Pass" not in globals():
        globals()[f"{name}Pass"] = type(f"{name}Pass", (_Pass,), {"stages": globals()[name]})
    whole, stages = (name, "ReferenceStages") if name in PASSES else (f"{name}Pass", name)
    monkeypatch.setitem(pipelines.REGISTRY, name.lower(), f"{__name__}:{whole}")
    monkeypatch.setitem(pipelines.STAGE_REGISTRY, name.lower(), f"{__name__}:{stages}")
    return name.lower()
