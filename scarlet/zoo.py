"""A model's name -> what is known of it without loading anything -> the network with its weights.

What papers state of models is data, ``published.yaml``, each row with its source. It is never mixed with what was
measured: a table has a column for either.

Nothing heavy is imported here at start: the command line lists and checks names with this module.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scarlet.errors import BenchError, unknown_name
from scarlet.preprocess import INTERPOLATIONS, ModelSpec, Preprocess, applied, at, stated

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from scarlet.foreign.onnx_file import OnnxInfo

# How a name begins that says more than one of ours -> its kind, and an example.
_KINDS = {
    "onnx:": ("onnx", "onnx:resnet18.onnx"),
    "torch:": ("torch", "torch:package.module:function, torch:net.pt or torch:net.pt2"),
    "timm/": ("timm", "timm/resnet18"),
    "hf-hub:": ("timm", "hf-hub:timm/resnet18.a1_in1k"),
    "torchvision/": ("torchvision", "torchvision/resnet18"),
}
_PATHS = ("onnx", "torch")
OUTPUT = "?output="  # behind an ONNX file: the output to take


@dataclass(frozen=True)
class Built:
    """A network with its weights, in eval mode, on the CPU.

    Attributes:
        module: float32, ``(n, 3, size, size)`` to ``(n, classes)``.
        weights: ``user``, ``pretrained``, ``demo`` or ``random``.
        weights_sha256: see ``scarlet.foreign.checkpoint.weights_sha256``.
        notes: on what was taken of a checkpoint: sentences.
    """

    spec: ModelSpec
    module: nn.Module
    weights: str
    weights_sha256: str
    notes: tuple[str, ...] = ()


_SCARLET = ("scarlet_a", "scarlet_b", "scarlet_c")


def names() -> tuple[str, ...]:
    """The models known by name; of other kinds see ``resolve``."""
    return _SCARLET


def resolve(name: str) -> ModelSpec:
    """What is known of a model by its name; imports and reads nothing.

    Besides our own names: ``timm/<name>``, ``hf-hub:<owner>/<name>`` (for timm), ``torchvision/<name>``,
    ``onnx:<file>`` (``onnx:<file>?output=<name>``), ``torch:<package.module>:<function>``, and ``torch:<file>`` of
    TorchScript (``.pt``) or an exported program (``.pt2``).

    Upper and lower case are the same, and so are ``-`` and ``_`` in our own names; a path keeps its case.
    The spec of another kind holds defaults until ``complete`` has asked the model itself.

    Raises:
        BenchError: there is no such model; near names are suggested.
    """
    text = name.strip()
    lower = text.lower()
    for prefix, (kind, example) in _KINDS.items():
        if lower.startswith(prefix):
            rest = text[len(prefix) :]
            if not rest:
                raise BenchError(f"'{prefix}' names no model", f"Write for example {example}.")
            name = prefix + (rest.lower() if prefix.endswith("/") else rest)
            file, _, output = rest.partition(OUTPUT) if kind == "onnx" else (rest, "", "")
            path = str(Path(file).expanduser()) if kind in _PATHS else None
            return ModelSpec(name, kind, path=path, output=output or None)
    canonical = lower.replace("-", "_")
    if canonical not in _SCARLET:
        raise unknown_name("model", text, (*names(), *(example for _, example in _KINDS.values())))
    return ModelSpec(name=canonical, kind="scarlet")


def complete(spec: ModelSpec, info: OnnxInfo | None = None) -> ModelSpec:
    """The spec with the input size and preprocessing that the model itself states.

    ``onnx:`` files state their size, models of timm and torchvision all of it; other specs are complete already.

    Args:
        info: of an ONNX file that was looked at already.

    Raises:
        BenchError: there is no such model, or the ONNX file cannot be used.
        ModelUnavailable: timm or torchvision does not import.
    """
    if spec.kind == "onnx":
        from scarlet.foreign.onnx_file import inspect

        path = Path(spec.path or "")
        info = info or inspect(path, spec.output)
        usual, source = at(info.input_size), ""
        if info.input_type == "UINT8":  # it takes grey levels and normalises them itself
            usual = replace(usual, mean=(0.0, 0.0, 0.0), std=(1 / 255, 1 / 255, 1 / 255))
            source = "grey levels, since the input is uint8; the rest as usual for ImageNet"
        says, whose = stated(path, info.preprocess)
        fixed = info.has_fixed_size
        return replace(spec, preprocess=usual, stated=says, source=whose or source, has_fixed_size=fixed)
    if spec.kind == "scarlet":
        return spec
    from scarlet.foreign import networks

    if spec.kind == "torch":
        size = networks.program_size(spec)
        return replace(spec, preprocess=at(size or spec.input_size), source="", has_fixed_size=bool(size))
    if spec.kind == "torchvision":
        states = networks.package(spec).get_model_weights(spec.name.partition("/")[2]).DEFAULT.transforms()
        (crop,), (resize,) = states.crop_size, states.resize_size
        made = Preprocess(resize, crop, states.interpolation.value, tuple(states.mean), tuple(states.std))
        return replace(spec, preprocess=made, source="torchvision's transforms")
    return _timm_spec(spec, networks.timm_config(spec))


def fed(spec: ModelSpec, statement: Mapping[str, Any]) -> ModelSpec:
    """A complete spec with the preprocessing that a statement (``scarlet.preprocess.checked``) makes of its own.

    Raises:
        BenchError: the model has no such size.
    """
    usual, more = spec.preprocess, dict(statement)
    if more.get("input_size") in ("train", "test") and more.pop("input_size") == "test":
        if spec.at_test is None:
            raise BenchError(f"{spec.name} states no test size", "Leave --input-size test out, or give a number.")
        usual = spec.at_test
    made = applied(usual, more)
    if spec.has_fixed_size and made.crop != spec.input_size:
        raise BenchError(
            f"{spec.name} takes inputs of {spec.input_size} x {spec.input_size}, not of {made.crop}",
            "Leave --input-size and --crop out, or export the model with an open height and width.",
        )
    return replace(spec, preprocess=made)


def build(
    spec: ModelSpec,
    checkpoint: str | None = None,
    calibration_batches: Iterable[NDArray[np.float32]] | None = None,
    seed: int = 0,
) -> Built:
    """Makes the network and gives it weights.

    Args:
        spec: of any kind but ``onnx``.
        checkpoint: a file (see ``scarlet.foreign.checkpoint.load_into``), ``random``, ``demo``, ``pretrained`` (as timm
            or torchvision publish them), or ``None``: the model's own or demo weights, else random.
        calibration_batches: float32 ``(n, 3, size, size)`` images to calibrate random weights on; without
            them, noise with the spectrum of photographs. Read only for random weights.

    Raises:
        BenchError: the checkpoint cannot be used, there are no demo weights though requested, or the model is
            an ONNX file (which brings its own weights).
        ModelUnavailable: timm or torchvision does not import.
    """
    from scarlet.foreign.checkpoint import load_into, weights_sha256

    if spec.kind == "onnx":
        raise BenchError(f"{spec.name} brings its own weights", "Leave the checkpoint out for an ONNX file.")
    demo = importlib.import_module("scarlet.demo")
    choice = checkpoint or default_weights(spec)
    if choice == "demo" and not demo.available(spec.name):
        raise BenchError(f"there are no demo weights for {spec.name}", "Use --checkpoint random, or a file.")
    module, notes = untrained(spec, seed, pretrained=choice == "pretrained"), tuple[str, ...]()
    if choice == "random":
        from scarlet.random_weights import calibrate, noise_batches

        batches = calibration_batches if calibration_batches is not None else noise_batches(spec.input_size, seed)
        calibrate(module, batches)
    elif choice == "demo":
        module.load_state_dict(demo.load_state(spec.name), strict=True)
    elif checkpoint and choice != "pretrained":
        # Never "official": that would take the published files' hashes, and we have none to compare with.
        notes = load_into(module, checkpoint, spec.name)
    module.eval()
    weights = choice if choice in ("random", "demo", "pretrained") else "user"
    return Built(spec, module, weights, weights_sha256(module.state_dict()), notes)


def default_weights(spec: ModelSpec) -> str:
    """Which weights a model gets where none are named: ``user`` (those in its file), else ``demo``, else ``random``."""
    demo = importlib.import_module("scarlet.demo")
    return "user" if spec.path else "demo" if demo.available(spec.name) else "random"


def untrained(spec: ModelSpec, seed: int = 0, pretrained: bool = False) -> nn.Module:
    """A network with seeded initial weights, those of its file, or (``pretrained``) those that its maker published: the
    frame that a state dict is loaded into.

    Raises:
        BenchError: there is no such model, or it or its weights cannot be had.
        ModelUnavailable: timm or torchvision does not import.
    """
    import torch

    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
        torch.manual_seed(seed)
        if spec.kind != "scarlet":
            from scarlet.foreign import networks

            return networks.network(spec, pretrained)
        if pretrained:
            raise BenchError(f"{spec.name} has no published weights here", "Name their file with --checkpoint.")
        from scarlet.networks import scarlet
        from scarlet.random_weights import initialise

        network = scarlet(spec.name)
        initialise(network, seed)
        return network


def _timm_spec(spec: ModelSpec, config: Any) -> ModelSpec:
    def at_size(sides: Sequence[int], crop_pct: float) -> Preprocess:
        height, width = sides[-2:]
        if height != width:
            raise BenchError(
                f"{spec.name} takes inputs of {height} x {width}, and only squares are fed here",
                "Name a model of square inputs.",
            )
        filter_ = config.interpolation if config.interpolation in INTERPOLATIONS else "bilinear"
        mode = config.crop_mode or "center"
        # timm's own rounding: floor(size / crop_pct)
        return Preprocess(int(height / crop_pct), height, filter_, tuple(config.mean), tuple(config.std), mode)

    usual = at_size(config.input_size, config.crop_pct)
    test = at_size(config.test_input_size or config.input_size, config.test_crop_pct or config.crop_pct)
    return replace(spec, preprocess=usual, at_test=test if test != usual else None, source="timm's pretrained_cfg")


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
