"""Draws one demo picture, a coloured shape on a patterned ground, and encodes it as a JPEG file.

Files have the variety of sizes, samplings and oddities of a real set.

Every number comes from whole numbers or from float64 additions, multiplications, divisions, square roots and
comparisons, which IEEE 754 defines to the last bit. Sines and exponentials are not used: they differ in the
last bits between processors and libraries. Random numbers are integers and doubles of NumPy's PCG64, which do
not depend on the processor either.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Plane: TypeAlias = NDArray[np.float64]

TURN_LIMIT = 0.22  # tangent of half the largest turn of a shape: 25 degrees
TILT_LIMIT = 0.10  # the same for a pattern: 11 degrees


def draw(
    rng: np.random.Generator, label: int, width: int, height: int, hardness: float, grain_scale: float = 1.0
) -> NDArray[np.uint8]:
    """A picture of one class.

    Args:
        rng: where everything that is not the class comes from.
        label: the class, ``100 * shape + 10 * texture + hue``: the outline of the large object (index into ``SHAPES``),
            the pattern of the ground (index into ``TEXTURES``), the colour of the object in steps of 36 degrees.
        width, height: in pixels.
        hardness: 0 for a clear picture, 1 for low contrast, much clutter, grain and uneven light.
        grain_scale: multiplies the amplitude of the sensor noise.

    Returns:
        uint8, ``(height, width, 3)``, RGB.
    """
    shape, texture, hue = label // 100, label // 10 % 10, label % 10
    short = min(width, height)
    x = ((np.arange(width) + 0.5) - width / 2)[np.newaxis, :] / short
    y = ((np.arange(height) + 0.5) - height / 2)[:, np.newaxis] / short

    pattern = _pattern(rng, texture, x, y)
    bright, dark = _ground_colours(rng, hardness)
    planes = [d + (b - d) * pattern for b, d in zip(bright, dark, strict=True)]
    for _ in range(int(rng.integers(0, 3 + int(6 * hardness)))):
        _paint_clutter(rng, planes, x, y)
    _paint_object(rng, planes, (x, y), shape, hue, hardness)
    for _ in range(int(rng.integers(0, 2 + int(3 * hardness)))):
        _paint_clutter(rng, planes, x, y)
    light = _light(rng, x, y, 0.15 + 0.3 * hardness)
    cast = [_between(rng, -1.0, 1.0) * (0.03 + 0.09 * hardness) + 1.0 for _ in range(3)]
    grain = _between(rng, 2.0, 10.0 + 40.0 * hardness) * grain_scale
    return _develop(rng, planes, light, cast, grain)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _turn(rng: np.random.Generator, limit: float) -> tuple[float, float]:
    """Cosine and sine of a random angle, from the tangent of its half: exact in IEEE arithmetic."""
    half = _between(rng, -limit, limit)
    scale = 1.0 + half * half
    return (1.0 - half * half) / scale, 2.0 * half / scale


def _wave(phase: Plane) -> Plane:
    """A triangle wave of period 1 between 0 and 1."""
    return np.abs(2.0 * (phase - np.floor(phase)) - 1.0)


def _soft_step(distance: Plane, softness: float) -> Plane:
    """1 where ``distance`` is well below 0, 0 well above, linear over ``softness`` in between."""
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def _smooth_noise(rng: np.random.Generator, width: int, height: int, cell: float) -> Plane:
    """Random values 0..1 on a grid of ``cell`` (in short sides), interpolated by Pillow (whole numbers)."""
    short = min(width, height)
    columns = max(2, math.ceil(width / short / cell))
    rows = max(2, math.ceil(height / short / cell))
    small = rng.integers(0, 256, (rows, columns), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)) / 255.0


def _pattern(rng: np.random.Generator, texture: int, x: Plane, y: Plane) -> Plane:
    """The ground's pattern, 0..1, ``(height, width)``."""
    width, height = x.shape[1], y.shape[0]
    cosine, sine = _turn(rng, TILT_LIMIT)
    period = _between(rng, 0.20, 0.30)
    u = (x * cosine - y * sine) / period + float(rng.random())
    v = (x * sine + y * cosine) / period + float(rng.random())
    gain = _between(rng, 2.0, 4.0)
    value = TEXTURES[texture](rng, u, v, (width, height, period))
    return np.clip(0.5 + gain * value, 0.0, 1.0)


# Around 0, in periods along and across: stripes (level, upright, slanted), checks, dots, circles, mesh, clouds, zigzag
# and speckle. Clouds and speckle want the picture's size, and the period in its short sides.
TEXTURES: tuple[Callable[[np.random.Generator, Plane, Plane, tuple[int, int, float]], Plane], ...] = (
    lambda rng, u, v, size: _wave(v) - 0.5,
    lambda rng, u, v, size: _wave(u) - 0.5,
    lambda rng, u, v, size: _wave((u + v if rng.integers(2) else u - v) * 0.7) - 0.5,
    lambda rng, u, v, size: 4.0 * (_wave(u * 0.6) - 0.5) * (_wave(v * 0.6) - 0.5),
    lambda rng, u, v, size: _wave(u * 0.8) + _wave(v * 0.8) - 1.35,
    lambda rng, u, v, size: _wave(_round(u - _between(rng, -2.0, 2.0), v - _between(rng, -2.0, 2.0))) - 0.5,
    lambda rng, u, v, size: np.maximum(_wave(u * 0.8), _wave(v * 0.8)) - 0.78,
    lambda rng, u, v, size: (_smooth_noise(rng, *size[:2], size[2] * 0.6) - 0.5) * 0.8,
    lambda rng, u, v, size: _wave(v + 1.1 * _wave(u * 0.55)) - 0.5,
    lambda rng, u, v, size: _smooth_noise(rng, *size[:2], size[2] * 0.12) - 0.5,
)


def _ground_colours(rng: np.random.Generator, hardness: float) -> tuple[list[float], list[float]]:
    """Two greyish colours, 0..255, apart by the pattern's contrast."""
    level = _between(rng, 60.0, 185.0)
    contrast = _between(rng, 22.0, 60.0) * (1.0 - 0.65 * hardness)
    tint = [_between(rng, -10.0, 10.0) for _ in range(3)]
    bright = [level + contrast + t + _between(rng, -5.0, 5.0) for t in tint]
    dark = [level - contrast + t + _between(rng, -5.0, 5.0) for t in tint]
    return (bright, dark) if rng.integers(2) else (dark, bright)


def _light(rng: np.random.Generator, x: Plane, y: Plane, strength: float) -> Plane:
    """The factor by which light varies over the picture: a slope, a soft fall-off and slow clouds."""
    across, down = _between(rng, -strength, strength), _between(rng, -strength, strength)
    falloff = _between(rng, 0.0, strength)
    slow = _smooth_noise(rng, x.shape[1], y.shape[0], 0.45)
    light = (1.0 + across * x) + down * y - falloff * (x * x + y * y) + strength * (slow - 0.5)
    return light * _between(rng, 0.75, 1.25)


def _half_planes(u: Plane, v: Plane, sides: int, inner: float) -> list[Plane]:
    """Distances outside each side of a regular polygon whose sides are ``inner`` from the centre."""
    # Rounded, so that a last-bit difference between two libraries' sines cannot show.
    turns = [(2.0 * math.pi * (side + 0.5)) / sides for side in range(sides)]
    normals = [(round(math.sin(turn), 9), round(math.cos(turn), 9)) for turn in turns]
    return [u * across + v * down - inner for across, down in normals]


def _triangle(u: Plane, v: Plane) -> Plane:
    first, second, third = _half_planes(u, v, 3, 0.55)
    return np.maximum(np.maximum(first, second), third)


def _star(u: Plane, v: Plane) -> Plane:
    """A pentagram: the points outside at most one of five lines, so the second largest distance counts."""
    largest = second = np.full(np.broadcast_shapes(u.shape, v.shape), -9.0)
    for distance in _half_planes(u, v, 5, 0.38):
        second = np.maximum(second, np.minimum(largest, distance))
        largest = np.maximum(largest, distance)
    return second


def _round(u: Plane, v: Plane) -> Plane:
    return np.sqrt(u * u + v * v)


def _box(u: Plane, v: Plane, half_width: float, half_height: float) -> Plane:
    return np.maximum(np.abs(u) - half_width, np.abs(v) - half_height)


# Signed distances (negative inside) in a frame where the object is about 2 units wide.
SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": lambda u, v: _round(u, v) - 0.9,
    "square": lambda u, v: _box(u, v, 0.8, 0.8),
    "triangle": _triangle,
    "ring": lambda u, v: np.abs(_round(u, v) - 0.74) - 0.26,
    "cross": lambda u, v: np.minimum(_box(u, v, 1.0, 0.3), _box(u, v, 0.3, 1.0)),
    "bar": lambda u, v: _box(u, v, 1.15, 0.36),
    "star": _star,
    "crescent": lambda u, v: np.maximum(_round(u, v) - 1.0, 0.85 - _round(u - 0.5, v)),
    "pair": lambda u, v: np.minimum(_round(u - 0.6, v), _round(u + 0.6, v)) - 0.46,
    "chevron": lambda u, v: np.maximum(np.abs(v - 1.2 * np.abs(u) + 0.6) - 0.42, np.abs(u) - 1.0),
}


def _colour(hue_degrees: float, saturation: float, value: float) -> list[float]:
    """HSV to RGB, 0..255."""
    sector = (hue_degrees % 360.0) / 60.0
    fractions = [min(max(min(k, 4.0 - k), 0.0), 1.0) for k in ((n + sector) % 6.0 for n in (5.0, 3.0, 1.0))]
    return [255.0 * value * (1.0 - saturation * f) for f in fractions]


def _paint(planes: list[Plane], window: tuple[slice, slice], mask: Plane, colours: list[Plane]) -> None:
    for plane, colour in zip(planes, colours, strict=True):
        part = plane[window]
        part += (colour - part) * mask


def _window(x: Plane, y: Plane, centre: tuple[float, float], reach: float) -> tuple[slice, slice]:
    """Rows and columns within ``reach`` of ``centre``."""
    columns = np.searchsorted(x[0], (centre[0] - reach, centre[0] + reach))
    rows = np.searchsorted(y[:, 0], (centre[1] - reach, centre[1] + reach))
    return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))


def _paint_object(
    rng: np.random.Generator, planes: list[Plane], grid: tuple[Plane, Plane], shape: int, hue: int, hardness: float
) -> None:
    x, y = grid
    radius = _between(rng, 0.26, 0.37) - 0.06 * hardness
    stretch = _between(rng, 0.88, 1.12)
    centre = (_between(rng, -0.08, 0.08), _between(rng, -0.08, 0.08))
    cosine, sine = _turn(rng, TURN_LIMIT)
    window = _window(x, y, centre, 1.6 * radius)
    dx, dy = x[:, window[1]] - centre[0], y[window[0]] - centre[1]
    u = (dx * cosine - dy * sine) / (radius * stretch)
    v = (dx * sine + dy * cosine) / radius
    softness = _between(rng, 0.03, 0.12)
    mask = _soft_step(list(SHAPES.values())[shape](u, v), softness) * (1.0 - _between(rng, 0.0, 0.1 + 0.4 * hardness))
    jitter = _between(rng, -1.0, 1.0) * (8.0 + 14.0 * hardness)  # degrees; beyond 18 lies the next hue
    colour = _colour(36.0 * hue + jitter, _between(rng, 0.55 - 0.3 * hardness, 1.0), _between(rng, 0.5, 1.0))
    shade = 1.0 + _between(rng, -0.2, 0.2) * u + _between(rng, -0.2, 0.2) * v
    _paint(planes, window, mask, [c * shade for c in colour])


def _paint_clutter(rng: np.random.Generator, planes: list[Plane], x: Plane, y: Plane) -> None:
    """One small disc or bar of any colour anywhere."""
    radius = _between(rng, 0.025, 0.085)
    centre = (_between(rng, float(x[0, 0]), float(x[0, -1])), _between(rng, float(y[0, 0]), float(y[-1, 0])))
    colour = _colour(_between(rng, 0.0, 360.0), _between(rng, 0.0, 0.9), _between(rng, 0.2, 1.0))
    cosine, sine = _turn(rng, 1.0)
    window = _window(x, y, centre, 1.6 * radius)
    dx, dy = x[:, window[1]] - centre[0], y[window[0]] - centre[1]
    u, v = (dx * cosine - dy * sine) / radius, (dx * sine + dy * cosine) / radius
    outline = _round(u, v) - 0.9 if rng.integers(2) else _box(u, v, 1.2, 0.3)
    mask = _soft_step(outline, 0.2) * _between(rng, 0.5, 1.0)
    _paint(planes, window, mask, [c * np.ones_like(mask) for c in colour])


def _develop(
    rng: np.random.Generator, planes: list[Plane], light: Plane, cast: list[float], grain: float
) -> NDArray[np.uint8]:
    """Light, colour cast and grain, rounded to bytes."""
    height, width = planes[0].shape
    picture = np.empty((height, width, 3), dtype=np.uint8)
    noise = rng.integers(0, 256, (2, height, width), dtype=np.uint8).astype(np.int16)
    shared = (noise[0] + noise[1] - 255) * (grain / 255.0)
    for channel, plane in enumerate(planes):
        own = rng.integers(0, 256, (height, width), dtype=np.uint8) - 127.5
        lit = plane * light * cast[channel] + shared + own * (0.6 * grain / 127.5)
        picture[:, :, channel] = np.floor(np.clip(lit, 0.0, 255.0) + 0.5).astype(np.uint8)
    return picture


CLASSES = 1000
# A number per split goes into every image's random stream, so no two splits share an image at any seed.
SPLITS = {"val": 0, "train": 1, "tune": 2, "calib": 3, "judge": 4}
TRAIN_SHORT_SIDE = 128
# Small training pictures stand for large ones that were reduced, which averages most of their grain away.
TRAIN_GRAIN_SCALE = 0.35
# Each picture's hardness is spread evenly from 0 to this. Small clear pictures are learned from in fewer steps. On
# hard ones a network is undecided, so that one grey level changes its mind: they are for training, not for judging.
HARDNESS = {"val": 0.65, "train": 0.6, "tune": 1.0, "calib": 0.65, "judge": 0.65}
# Validation files weigh about what ImageNet's do, because decoding time goes with their size.
_HEAVY = (75, 85, 90, 92, 94, 95, 96, 97, 98)
QUALITIES = {"val": _HEAVY, "train": range(70, 97), "tune": range(70, 97), "calib": _HEAVY, "judge": _HEAVY}
EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class FileKind:
    """How one picture is stored.

    Attributes:
        width, height: in pixels.
        quality: JPEG quality, 1..100.
        subsampling: of the chroma planes, in Pillow's notation.
        mode: ``RGB``, ``L`` (grayscale) or ``CMYK``.
        orientation: the EXIF orientation, or None for no EXIF. The pixels are upright when it is ignored, as
            the published evaluation of SCARLET does. 0 is invalid, and occurs in real sets.
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


def image_bytes(split: str, seed: int, index: int) -> bytes:
    """The JPEG file of one image; nothing but the arguments and the versions of Pillow and NumPy matters."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, SPLITS[split], index])))
    kind = choose_kind(rng, split)
    label = class_of(index)
    grain_scale = TRAIN_GRAIN_SCALE if split == "train" else 1.0
    hardness = float(rng.random()) * HARDNESS[split]
    picture = draw(rng, label, kind.width, kind.height, hardness, grain_scale)
    return encode(picture, kind)


def choose_kind(rng: np.random.Generator, split: str) -> FileKind:
    """Draws a size and a way of storing; ``train`` gets small pictures, other splits ImageNet's spread."""
    width, height = (
        _imagenet_size(rng) if split != "train" else (TRAIN_SHORT_SIDE + int(rng.integers(0, 65)), TRAIN_SHORT_SIDE)
    )
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
    """A JPEG file; ``picture``: uint8, ``(height, width, 3)``, RGB."""
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
