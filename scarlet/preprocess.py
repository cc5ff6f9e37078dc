"""How images become a model's input: the numbers, who states them, and what a user may say of them.

A statement is a mapping with keys of ``STATED``: the options of the command line, the key ``preprocess`` of a plan
file, ``<model>.preprocess.yaml`` beside an ONNX file, or the entry ``preprocess`` (JSON) of its ``metadata_props``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scarlet.errors import BenchError, shown, unknown_name
from scarlet.files import read_yaml

# Pillow's filters, and so torchvision's and timm's.
INTERPOLATIONS = ("bilinear", "bicubic", "lanczos", "hamming", "box", "nearest")
CROP_MODES = ("center", "squash", "border")
CHANNELS = ("rgb", "bgr")
_NAMES = {"interpolation": INTERPOLATIONS, "crop_mode": CROP_MODES, "channels": CHANNELS}
# What can be stated, in the order of --help.
STATED = ("mean", "std", "resize", "crop", "crop_pct", "crop_mode", "interpolation", "input_size", "channels")
SIDECAR = ".preprocess.yaml"
METADATA = "preprocess"


@dataclass(frozen=True)
class Preprocess:
    """The numbers that turn a decoded image into a network's input.

    Attributes:
        resize: length after resizing, in pixels: of the short side (``center``), of both (``squash``), of the long one
            (``border``).
        crop: side of the central square that is kept, in pixels.
        interpolation: one of ``INTERPOLATIONS``, always antialiased.
        mean: per-channel mean in RGB order, on the 0..1 scale.
        std: per-channel standard deviation in RGB order, on the 0..1 scale.
        crop_mode: one of ``CROP_MODES``, as timm has them: the long side's ends are cut off, the image is squashed to a
            square, or it is filled up with the mean.
        channels: order of the input's planes: ``rgb`` or ``bgr``.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_mode: str = "center"
    channels: str = "rgb"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Preprocess:
        """Reads what ``dataclasses.asdict`` made, also by way of JSON."""
        numbers: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in data.items()}
        return cls(**numbers)

    @property
    def step(self) -> int:
        """1, or -1 where the planes are in the reverse order of ``mean`` and ``std``."""
        return -1 if self.channels == "bgr" else 1

    @property
    def levels_per_unit(self) -> tuple[float, ...]:
        """Grey levels by which an input of 1 differs from one of 0, plane by plane."""
        return tuple(255.0 * value for value in self.std[:: self.step])

    @property
    def fill(self) -> tuple[int, ...]:
        """Grey levels, RGB, where an image does not reach: the mean as timm takes it (``border``), else black."""
        return tuple(round(255 * value) for value in self.mean) if self.crop_mode == "border" else (0, 0, 0)

    def __str__(self) -> str:
        to = {"center": "short side to", "squash": "both sides to", "border": "long side to"}[self.crop_mode]
        mean, std = (",".join(f"{value:.4g}" for value in values) for values in (self.mean, self.std))
        return f"{to} {self.resize}, {self.interpolation}, centre {self.crop}, mean {mean}, std {std}, {self.channels}"

    def differences(self, usual: Preprocess) -> dict[str, Any]:
        """The fields in which it differs from ``usual``: a statement that makes the one from the other."""
        mine, its = asdict(self), asdict(usual)
        return {name: value for name, value in mine.items() if value != its[name]}


@dataclass(frozen=True)
class ModelSpec:
    """A model's name and what it wants to be fed.

    Attributes:
        name: canonical: ``scarlet_c``, ``timm/resnet18``, ``onnx:net.onnx``.
        kind: ``scarlet``, ``timm``, ``torchvision``, ``torch`` or ``onnx``.
        preprocess: as the model's makers evaluate it; ImageNet's usual numbers where nothing is known.
        at_test: the same at the other size for which timm has published an accuracy; None where there is none.
        path: of an ``onnx:`` or ``torch:`` model, which brings its own weights: the file, or the folder that a callable
            is imported from and its name (``folder/package.module:function``); else ``None``.
        output: of an ONNX file, where the name says which of several.
        stated: what the file itself, or one beside it, says of the preprocessing; ``preprocess`` does without it.
        source: where ``preprocess``, with ``stated``, is from, in words; empty where it is assumed.
        has_fixed_size: a graph takes no other size.
    """

    name: str
    kind: str
    preprocess: Preprocess = field(default_factory=Preprocess)
    path: str | None = None
    output: str | None = None
    at_test: Preprocess | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)
    source: str = "published evaluation"
    has_fixed_size: bool = False

    @property
    def input_size(self) -> int:
        """Height and width of the input in pixels."""
        return self.preprocess.crop


def at(size: int) -> Preprocess:
    """ImageNet's usual numbers for another size, with ResNet's margin."""
    return Preprocess(round(size * 256 / 224), size)


def described(statement: Mapping[str, Any]) -> str:
    """A statement as one text, the same for the same statement: ``crop=288 mean=0.5,0.5,0.5``."""
    return " ".join(f"{name}={_listed(value)}" for name, value in sorted(statement.items()))


def _listed(value: Any) -> str:
    return ",".join(f"{item:.6g}" for item in value) if isinstance(value, list | tuple) else str(value)


def checked(statement: Mapping[str, Any]) -> dict[str, Any]:
    """A statement with its values as numbers and known names; those that are None or empty are left out.

    ``mean`` and ``std`` take one number or three, RGB, also as text and as fractions (``127/255``). If any of them is
    above 1, both are on the 0..255 scale.

    Raises:
        BenchError: a key or name is unknown, a number is wrong, or two of them contradict each other.
    """
    given = {str(name).replace("-", "_"): value for name, value in statement.items() if value not in (None, "", ())}
    for name in given:
        if name not in STATED:
            raise unknown_name("preprocessing setting", name, STATED)
    made = {name: _checked(name, value) for name, value in given.items()}
    for one, other in (("resize", "crop_pct"), ("crop", "input_size")):
        if one in made and other in made:
            raise BenchError(f"{one} and {other} were both given", f"Give {one}, or {other}: they say the same.")
    levels = [name for name in ("mean", "std") if name in made]
    if any(abs(value) > 1 for name in levels for value in made[name]):
        made |= {name: tuple(value / 255 for value in made[name]) for name in levels}
        if any(abs(value) > 1 for name in levels for value in made[name]):
            raise BenchError("mean or std is above 255", "They are on the 0..1 scale, or on 0..255.")
    return made


def _checked(name: str, value: Any) -> Any:
    text = _text(value)
    if name in _NAMES:
        if text.lower() not in _NAMES[name]:
            raise unknown_name(name, text, _NAMES[name])
        return text.lower()
    if name == "input_size" and text in ("train", "test"):
        return text
    try:
        pairs = [part.partition("/") for part in text.split(",")]
        numbers = [one for over, _, under in pairs if math.isfinite(one := float(over) / float(under or 1))]
    except (ValueError, ZeroDivisionError):
        numbers = []
    if name in ("mean", "std"):
        numbers *= 3 if len(numbers) == 1 else 1
        if len(numbers) == 3 and (name == "mean" or min(numbers) > 0):
            return tuple(numbers)
        expected = "one number, or three for R, G and B" + (", above 0" if name == "std" else "")
    elif name == "crop_pct":
        if len(numbers) == 1 and 0 < numbers[0] <= 2:
            return numbers[0]
        expected = "a share of the resized side, such as 0.875"
    else:
        if len(numbers) == 1 and numbers[0] == int(numbers[0]) and 0 < numbers[0] <= 4096:
            return int(numbers[0])
        expected = "a number of pixels from 1 to 4096" + (", test or train" if name == "input_size" else "")
    raise BenchError(f"{name} is {shown(value)}", f"It must be {expected}.")


def _text(value: Any) -> str:
    return ",".join(map(_text, value)) if isinstance(value, list | tuple) else str(value).strip()


def applied(usual: Preprocess, statement: Mapping[str, Any]) -> Preprocess:
    """What a statement, as returned by ``checked``, makes of a model's own numbers.

    Another side of the crop keeps its share of the resized side, unless that is stated too; fractions are cut off, as
    timm does.
    """
    more = {name: value for name, value in statement.items() if name not in ("crop_pct", "input_size")}
    crop = more.setdefault("crop", statement.get("input_size", usual.crop))
    if "crop_pct" in statement:
        more["resize"] = math.floor(crop / statement["crop_pct"])
    elif "resize" not in more and crop != usual.crop:
        more["resize"] = crop * usual.resize // usual.crop
    return replace(usual, **more)


def stated(path: Path, embedded: str) -> tuple[dict[str, Any], str]:
    """What ``<model>.preprocess.yaml`` beside an ONNX file states, else its metadata; and which, in words.

    Args:
        embedded: the metadata's entry, JSON; empty where there is none.

    Raises:
        BenchError: it cannot be read, or states what cannot be.
    """
    sidecar, data = path.with_suffix(SIDECAR), None
    if sidecar.is_file():
        source = sidecar.name
        data = read_yaml(sidecar, "the preprocessing", "Write a mapping.", "mean: [0.5, 0.5, 0.5]")
    elif embedded:
        source = "the graph's metadata"
        with suppress(ValueError):
            data = json.loads(embedded)
    else:
        return {}, ""
    try:
        if not isinstance(data, dict):
            raise BenchError(f"'{METADATA}' is no JSON object", "Export the model again.")
        return checked(data), source
    except BenchError as mistake:
        raise BenchError(f"{path}: {source}: {mistake.what}", mistake.do) from None
