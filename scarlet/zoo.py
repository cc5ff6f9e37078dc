"""A model's name -> what is known of it without loading anything -> the network with its weights.

What papers state of models is data, ``published.yaml``, each row with its source. It is never mixed with what was
measured: a table has a column for either.

Nothing heavy is imported here at start: the command line lists and checks names with this module.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scarlet.errors import BenchError, unknown_name

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZE_PER_CROP = 256 / 224  # the short side before cropping, where a model does not say: ResNet's evaluation

TIMM_HINT = 'pip install "scarlet-bench[timm]" together with a torchvision built for the torch in use'


class ModelUnavailable(Exception):
    """The model could run, but something is not installed here. The text says what, and how to get it."""


@dataclass(frozen=True)
class ModelSpec:
    """A model's name and what it wants to be fed.

    Attributes:
        name: canonical: ``scarlet_c``, ``timm/resnet18``, ``onnx:net.onnx``.
        kind: ``scarlet``, ``timm`` or ``onnx``.
        input_size: height and width of the input in pixels.
        resize: short side after resizing, in pixels.
        crop: side of the central square, in pixels; equals ``input_size``.
        interpolation: ``bilinear`` or ``bicubic``.
        mean: per channel, RGB, on the 0..1 scale.
        std: per channel, RGB, on the 0..1 scale.
        path: the file of an ``onnx:`` model, or ``None``.
    """

    name: str
    kind: str
    input_size: int = 224
    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    path: str | None = None


@dataclass(frozen=True)
class Built:
    """A network with its weights, in eval mode, on the CPU.

    Attributes:
        module: float32, ``(n, 3, size, size)`` to ``(n, classes)``.
        weights: ``user``, ``demo`` or ``random``.
        weights_sha256: see ``scarlet.checkpoint.weights_sha256``.
    """

    spec: ModelSpec
    module: nn.Module
    weights: str
    weights_sha256: str


_SCARLET = ("scarlet_a", "scarlet_b", "scarlet_c")


def names() -> tuple[str, ...]:
    """The models known by name. ``timm/<name>`` and ``onnx:<file>`` are understood besides."""
    return _SCARLET


def resolve(name: str) -> ModelSpec:
    """What is known of a model by its name; imports and reads nothing.

    Upper and lower case are the same, and so are ``-`` and ``_`` in our own names; a path keeps its case.
    The spec of a ``timm/`` or ``onnx:`` model holds defaults until ``complete`` has asked the model itself.

    Raises:
        BenchError: there is no such model; near names are suggested.
    """
    text = name.strip()
    lower = text.lower()
    if lower.startswith("onnx:"):
        path = text[len("onnx:") :]
        if not path:
            raise BenchError("'onnx:' names no file", "Write for example onnx:resnet18.onnx.")
        return ModelSpec(name=f"onnx:{path}", kind="onnx", path=str(Path(path).expanduser()))
    if lower.startswith("timm/"):
        if lower == "timm/":
            raise BenchError("'timm/' names no model", "Write for example timm/resnet18.")
        return ModelSpec(name=lower, kind="timm")
    canonical = lower.replace("-", "_")
    if canonical not in _SCARLET:
        raise unknown_name("model", text, (*names(), "timm/<name>", "onnx:<file>"))
    return ModelSpec(name=canonical, kind="scarlet")


def complete(spec: ModelSpec) -> ModelSpec:
    """The spec with the input size and preprocessing that the model itself states.

    ``onnx:`` files state their size, ``timm/`` models all of it; SCARLET specs are complete already.

    Raises:
        BenchError: there is no such timm model, or the ONNX file cannot be used.
        ModelUnavailable: timm is missing or does not import.
    """
    if spec.kind == "onnx":
        from scarlet.onnx_file import inspect

        assert spec.path is not None
        size = inspect(spec.path).input_size
        return replace(spec, input_size=size, crop=size, resize=round(size * RESIZE_PER_CROP))
    if spec.kind == "timm":
        return _timm_spec(spec)
    return spec


def build(
    spec: ModelSpec,
    checkpoint: str | None = None,
    calibration_batches: Iterable[NDArray[np.float32]] | None = None,
    seed: int = 0,
) -> Built:
    """Makes the network and gives it weights.

    Args:
        spec: a ``scarlet`` or ``timm`` model.
        checkpoint: a file, ``random``, ``demo``, or ``None``: demo weights where there are some, else random.
        calibration_batches: float32 ``(n, 3, size, size)`` images to calibrate random weights on; without
            them, noise with the spectrum of photographs. Read only for random weights.

    Raises:
        BenchError: the checkpoint cannot be used, there are no demo weights though requested, or the model is
            an ONNX file (which brings its own weights).
        ModelUnavailable: timm is missing or does not import.
    """
    from scarlet.checkpoint import load_into, weights_sha256

    if spec.kind == "onnx":
        raise BenchError(f"{spec.name} brings its own weights", "Leave the checkpoint out for an ONNX file.")
    demo = importlib.import_module("scarlet.demo")
    choice = checkpoint if checkpoint is not None else ("demo" if demo.available(spec.name) else "random")
    if choice == "demo" and not demo.available(spec.name):
        raise BenchError(f"there are no demo weights for {spec.name}", "Use --checkpoint random, or a file.")
    module = untrained(spec, seed)
    if choice == "random":
        from scarlet.random_weights import calibrate, noise_batches

        batches = calibration_batches if calibration_batches is not None else noise_batches(spec.input_size, seed)
        calibrate(module, batches)
        weights = "random"
    elif choice == "demo":
        module.load_state_dict(demo.load_state(spec.name), strict=True)
        weights = "demo"
    else:
        load_into(module, choice, spec.name)
        # Never "official": that would take the published files' hashes, and we have none to compare with.
        weights = "user"
    module.eval()
    return Built(spec, module, weights, weights_sha256(module.state_dict()))


def untrained(spec: ModelSpec, seed: int = 0) -> nn.Module:
    """A SCARLET or timm network with seeded initial weights: the frame that a state dict is loaded into.

    Raises:
        BenchError: there is no such timm model.
        ModelUnavailable: timm is missing or does not import.
    """
    import torch

    timm = _timm(spec) if spec.kind == "timm" else None
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
        torch.manual_seed(seed)
        if timm is not None:
            module: nn.Module = timm.create_model(_timm_name(spec), pretrained=False)
            return module
        from scarlet.networks import scarlet
        from scarlet.random_weights import initialise

        network = scarlet(spec.name)
        initialise(network, seed)
        return network


def _timm_name(spec: ModelSpec) -> str:
    return spec.name[len("timm/") :]


def _timm(spec: ModelSpec) -> Any:
    """timm, once it is known to hold the model."""
    try:
        timm = importlib.import_module("timm")
    except Exception as error:  # beside a CPU torch, torchvision raises RuntimeError while it is imported
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnavailable(f"{spec.name} needs timm, which does not import ({reason}): {TIMM_HINT}") from error
    if not timm.is_model(_timm_name(spec)):
        raise unknown_name("timm model", _timm_name(spec), timm.list_models())
    return timm


def _timm_spec(spec: ModelSpec) -> ModelSpec:
    timm = _timm(spec)
    config = timm.get_pretrained_cfg(_timm_name(spec))
    size = int(config.input_size[-1])
    interpolation = config.interpolation if config.interpolation in ("bilinear", "bicubic") else "bilinear"
    return replace(
        spec,
        input_size=size,
        crop=size,
        resize=int(size / config.crop_pct),  # timm's own rounding: floor(size / crop_pct)
        interpolation=interpolation,
        mean=tuple(config.mean),
        std=tuple(config.std),
    )


DATA = Path(__file__).with_name("published.yaml")


@dataclass(frozen=True)
class Published:
    """One row: millions as printed, accuracies in percent on ILSVRC2012's validation images.

    Attributes:
        name: as papers print it.
        top1_percent: one crop.
        top5_percent: likewise; None where the source does not tell.
        source: paper and table.
        model: name under which ``scarlet.zoo`` knows it; empty where it does not.
    """

    name: str
    multiply_adds_millions: float
    parameters_millions: float
    top1_percent: float
    source: str
    top5_percent: float | None = None
    model: str = ""


@lru_cache(maxsize=1)
def rows() -> tuple[Published, ...]:
    """All rows, in the order of the file."""
    import yaml

    data: Mapping[str, Any] = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    return tuple(Published(**row) for row in data["published"])


def published(model: str) -> Published | None:
    """What is published of a model by its canonical name, such as ``scarlet_c``; None where nothing is known."""
    return next((row for row in rows() if row.model and row.model == model), None)
