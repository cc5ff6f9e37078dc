"""What a graph of lower precision is made by: one frozen record, and the small YAML file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from scarlet.errors import BenchError, shown, unknown_name
from scarlet.files import read_yaml

FORMAT = 1  # of the file; raised when an older reader would misread a newer file

PRECISIONS = ("fp16", "bf16", "int8")
DIALECTS = ("ort", "symmetric", "nncf")
CALIBRATIONS = ("minmax", "entropy", "percentile")
TYPES = ("int8", "uint8")
_CHOICES = {
    "calibration": CALIBRATIONS,
    "activation_type": TYPES,
    "weight_type": TYPES,
    "preset": ("performance", "mixed"),
    "model_type": ("", "transformer"),
    "target_device": ("ANY", "CPU", "GPU", "NPU", "CPU_SPR"),
}

# Which fields each kind of graph reads; the others keep their defaults, so that no setting is without effect.
_ALL = ("precision", "dialect")
_QDQ = ("per_channel", "calibration", "percentile", "op_types", "exclude")
_FIELDS = {
    "fp16": (*_ALL, "exclude"),
    "bf16": (*_ALL, "exclude"),
    "ort": (*_ALL, *_QDQ, "activation_type", "weight_type", "reduce_range"),
    "symmetric": (*_ALL, *_QDQ),
    "nncf": (*_ALL, "exclude", "preset", "model_type", "target_device", "fast_bias_correction"),
}


@dataclass(frozen=True)
class Recipe:
    """How to turn an FP32 graph into one of lower precision. Checked when it is made.

    Attributes:
        precision: ``fp16``, ``bf16`` or ``int8``.
        dialect: of INT8, empty for the others: ``ort`` (what ONNX Runtime fuses), ``symmetric`` (what TensorRT
            takes: signed 8 bit throughout, no zero points, biases left in float) or ``nncf`` (OpenVINO's own).
        per_channel: a scale for each output channel of a weight instead of one for the whole. NNCF decides itself.
        calibration: how ranges come from the calibration images: ``minmax``, ``entropy`` or ``percentile``.
        percentile: share of values, in percent, that the range of ``percentile`` keeps.
        activation_type: ``int8`` or ``uint8``; for ``ort``.
        weight_type: ``int8`` or ``uint8``; for ``ort``.
        reduce_range: weights in 7 bits, for CPUs without VNNI, whose 16-bit sums saturate; for ``ort``.
        op_types: kinds of ONNX nodes to quantise; empty for all that the dialect knows. Not for ``nncf``.
        exclude: names of ONNX nodes to leave in float; may hold the wildcards of ``fnmatch`` (``mb_module.3.*``).
        preset: of NNCF: ``performance`` (symmetric activations) or ``mixed``.
        model_type: of NNCF: empty, or ``transformer``.
        target_device: of NNCF.
        fast_bias_correction: of NNCF: False for the slow, exact correction.

    Raises:
        BenchError: a value is not one of those above, or a field is set that this kind of graph does not read.
    """

    precision: str
    dialect: str = ""
    per_channel: bool = False
    calibration: str = "minmax"
    percentile: float = 99.999
    activation_type: str = "int8"
    weight_type: str = "int8"
    reduce_range: bool = False
    op_types: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    preset: str = "performance"
    model_type: str = ""
    target_device: str = "CPU"
    fast_bias_correction: bool = True

    def __post_init__(self) -> None:
        for name in ("op_types", "exclude"):
            object.__setattr__(self, name, _names(name, getattr(self, name)))
        _check_types(self)
        _check_choice("precision", self.precision, PRECISIONS)
        if self.precision == "int8":
            _check_choice("dialect", self.dialect, DIALECTS)
        elif self.dialect:
            raise BenchError(
                f"a recipe of precision {self.precision} names the dialect '{self.dialect}'",
                "Leave the dialect out: only int8 has dialects.",
            )
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        if (self.activation_type, self.weight_type) == ("int8", "uint8"):
            raise BenchError(
                "a recipe has int8 activations with uint8 weights, which ONNX Runtime does not know",
                "Take uint8 activations, or int8 weights.",
            )
        if not 50 < self.percentile <= 100:
            raise BenchError(
                f"a recipe's percentile is {self.percentile:g}", "Give a number above 50 and up to 100, such as 99.99."
            )
        for field in fields(self):
            default = _defaults(self.kind).get(field.name, field.default)
            if field.name not in self._read and getattr(self, field.name) != default:
                raise BenchError(
                    f"a recipe of {self.kind} sets {field.name}, which has no effect there",
                    f"Leave it out; {self.kind} reads: {', '.join(self._read[2:])}.",
                )

    @property
    def kind(self) -> str:
        """The dialect of INT8, else the precision."""
        return self.dialect or self.precision

    @property
    def _read(self) -> tuple[str, ...]:
        return _FIELDS[self.kind]

    @property
    def key(self) -> str:
        """Canonical JSON: equal recipes have equal keys. Fields that this kind does not read are not in it."""
        return json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))

    def to_dict(self) -> dict[str, Any]:
        """The fields that this kind of graph reads, as plain JSON types; ``from_dict`` reads it back."""
        values = asdict(self)
        used = [name for name in self._read if name != "percentile" or self.calibration == "percentile"]
        return {name: list(values[name]) if isinstance(values[name], tuple) else values[name] for name in used}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """Reads what ``to_dict`` wrote; fields left out take the defaults of the kind.

        Raises:
            BenchError: a field is unknown or has a value that it cannot have.
        """
        known = [field.name for field in fields(cls)]
        for name in data:
            if name not in known:
                raise unknown_name("field of a recipe", str(name), known)
        if "precision" not in data:
            raise BenchError("the recipe names no precision", f"Write one of: {', '.join(PRECISIONS)}.")
        kind = data.get("dialect") or data["precision"]
        return cls(**{**_defaults(kind), **data})


def _defaults(kind: str) -> dict[str, Any]:
    # TensorRT has a scale for each channel of a weight at no cost, and needs one to keep accuracy.
    return {"per_channel": True} if kind == "symmetric" else {}


def default_recipe(precision: str, dialect: str = "") -> Recipe:
    """What is made where no recipe is named: the settings that each library takes by itself, but for ``ort``.

    ONNX Runtime's own, signed activations and one scale for a whole weight, leave every layer beside a sum in float on
    x86 (14 of EfficientNet-Lite0's 50: its CPU provider takes signed pairs to unsigned ones only where one node reads
    them), and one scale does not fit the channels of a depthwise convolution (of that network's predictions on 192
    demo images 47 % stayed, with a scale for each channel and unsigned activations 82 %).

    Raises:
        BenchError: the precision or the dialect is unknown.
    """
    better = {"activation_type": "uint8", "per_channel": True} if dialect == "ort" else {}
    return Recipe.from_dict({"precision": precision, "dialect": dialect, **better})


class _WithoutAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_recipe(path: Path, recipe: Recipe, about: Mapping[str, Any] | None = None) -> None:
    """Writes a recipe as YAML.

    Args:
        about: where the recipe comes from (model, figures of the search that found it), for people; not read back.

    Raises:
        OSError: the file cannot be written.
    """
    content: dict[str, Any] = {"format": FORMAT, **recipe.to_dict()}
    if about:
        content["about"] = dict(about)
    text = yaml.dump(content, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True, width=110)
    path.write_text(f"# Replay: scarlet-bench export --recipe {path.name}\n{text}", encoding="utf-8")


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe file.

    Raises:
        BenchError: the file is missing, is no YAML mapping, is of a newer format, or a field is wrong.
    """
    do = "Give a YAML file that a search or `export` wrote."
    content = read_yaml(path, "the recipe", do, "precision: int8")
    found = content.pop("format", FORMAT)
    content.pop("about", None)
    if found != FORMAT:
        raise BenchError(f"the recipe {path} has format {found}, this version reads {FORMAT}", "Use a newer version.")
    return Recipe.from_dict(content)


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise unknown_name(f"{field} of a recipe", value, [choice for choice in choices if choice])


def _names(field: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(name, str) for name in value or ()):
        raise BenchError(f"a recipe's {field} is {shown(value)}", f"Write a list of names: {field}: [a, b].")
    return tuple(value or ())


def _check_types(recipe: Recipe) -> None:
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        kind = type(field.default) if field.name != "precision" else str
        fits = isinstance(value, (int, float)) and not isinstance(value, bool) if kind is float else None
        if not (isinstance(value, kind) if fits is None else fits):
            raise BenchError(
                f"a recipe's {field.name} is {shown(value)}, a {type(value).__name__}", f"Write a {kind.__name__}."
            )
