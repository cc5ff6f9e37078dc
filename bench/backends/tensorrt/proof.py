"""What TensorRT's engine inspector says of the layers that ran, against what the graph asked for."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.backends.precision import fallback_sentence

# How the inspector writes types, in different versions: "Row major linear FP16 format", "Half", "Int8". The first
# that is found counts: BFloat16 contains Float16.
_TYPES = (
    ("bfloat16", r"bf16|bfloat16"),
    ("float16", r"fp16|half|float16"),
    ("float8", r"fp8|float8"),
    ("int8", r"int8"),
    ("int4", r"int4\b"),
    ("float4", r"fp4|float4"),
    ("int64", r"int64"),
    ("int32", r"int32"),
    ("bool", r"bool"),
    ("float32", r"fp32|float"),
)
UNKNOWN = "unknown"

# Layers that multiply and add, by LayerType or ParameterType.
_HEAVY = re.compile(r"conv|gemm|matmul|matrix|correlation|fullyconnected", re.IGNORECASE)

_ONNX_NAMES = re.compile(r"\[ONNX Layer: (.+?)\](?=$|[\s,;\x1e\x1f])")


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine.

    Attributes:
        kind: ``LayerType``.
        type: of its data, ``float16``; ``unknown`` where the inspector does not tell.
        tactic: name of the kernel, or empty.
        nodes: names of the graph's nodes that it was made of.
    """

    name: str
    kind: str
    heavy: bool
    type: str
    tactic: str
    nodes: frozenset[str]


def engine_layers(information: str) -> list[EngineLayer]:
    """The layers of an engine that was built with detailed verbosity.

    Source of the keys: TensorRT's documentation of the engine inspector. Layers are under ``Layers`` in TensorRT 10
    and 11 alike; the list of tensors beside them, ``Bindings`` or ``I/O Tensors``, is not needed.

    Raises:
        ValueError: it is no JSON, or of another form.
    """
    found = json.loads(information)
    layers = found.get("Layers") if isinstance(found, dict) else None
    if not isinstance(layers, list):
        raise ValueError("the engine inspector's JSON has no list under 'Layers'")
    return [_layer(layer) for layer in layers]


def _layer(layer: Mapping[str, Any] | str) -> EngineLayer:
    if isinstance(layer, str):  # of an engine without details
        return EngineLayer(layer, UNKNOWN, False, UNKNOWN, "", frozenset(_names(layer)))
    name, kind = str(layer.get("Name", "")), str(layer.get("LayerType", UNKNOWN))
    nodes = {*_names(name), *_ONNX_NAMES.findall(str(layer.get("Metadata", "")))}
    heavy = any(_HEAVY.search(str(layer.get(key, ""))) for key in ("LayerType", "ParameterType"))
    return EngineLayer(name, kind, heavy, _data_type(layer), str(layer.get("TacticName", "")), frozenset(nodes))


def _names(name: str) -> list[str]:
    """The parts of a fused layer's name."""
    return [part for part in re.split(r"\s\+\s|\s*\|\|\s*", name) if part]


def _data_type(layer: Mapping[str, Any]) -> str:
    """The type of a layer's first input, its data; without one that of its weights, then of its output."""
    tensors = [*layer.get("Inputs", ())[:1], *layer.get("Outputs", ())[:1]]
    texts = [str(tensor.get("Format/Datatype", tensor.get("Datatype", ""))) for tensor in tensors]
    weights = layer.get("Weights")
    if isinstance(weights, Mapping):
        texts.insert(1, str(weights.get("Type", "")))
    return next((type_ for type_ in map(_type, texts) if type_ != UNKNOWN), UNKNOWN)


def _type(text: str) -> str:
    return next((name for name, pattern in _TYPES if re.search(pattern, text, re.IGNORECASE)), UNKNOWN)


def engine_proof(information: str, asked: Mapping[str, str], precision: str) -> dict[str, Any]:
    """What was asked for and what ran.

    A layer did not run as asked where its data was of another type than the graph asks for. One that cannot be found
    under its name is taken for float where INT8 was asked for: TensorRT runs a convolution in float after its
    dequantiser where it has no kernel that fuses them. In FP16 and BF16 a type in the graph binds the builder, so that
    a name that is not found proves nothing.

    Args:
        asked: type by node, as of ``export.precision.audit.requested_by_onnx``.

    Returns:
        ``asked_counts``, ``layer_counts`` (of every layer, by ``kind type``), ``not_as_asked``, ``not_found``,
        ``tf32`` (whether it was ``allowed``, and in how many layers' ``kernels`` it is named), and ``fallback``.
    """
    layers = engine_layers(information)
    missed, lost = _missed(layers, asked)
    in_tf32 = [layer.name for layer in layers if re.search("tf32", layer.tactic, re.IGNORECASE)]
    allowed = precision == "tf32"
    sentences = [fallback_sentence(missed, len(asked), sorted(set(asked.values())))]
    if in_tf32 and not allowed:
        sentences.append(f"{len(in_tf32)} layers ran in TF32, which was not asked for: {in_tf32[0]}")
    if asked and len(lost) == len(asked):
        sentences.append("the engine inspector names none of the graph's convolutions and matrix products")
    return {
        "asked_counts": dict(sorted(Counter(asked.values()).items())),
        "layer_counts": dict(sorted(Counter(f"{layer.kind} {layer.type}" for layer in layers).items())),
        "not_as_asked": missed,
        "not_found": lost,
        "tf32": {"allowed": allowed, "kernels": len(in_tf32)},
        "fallback": " and ".join(filter(None, sentences)),
    }


def _missed(layers: Iterable[EngineLayer], asked: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """What ran in another type than asked, by node, and which nodes no layer names."""
    by_node: dict[str, list[EngineLayer]] = {}
    for layer in layers:
        for node in layer.nodes:
            by_node.setdefault(node, []).append(layer)
    missed, lost = {}, []
    for node, wanted in asked.items():
        types = _types_of(by_node.get(node, ()))
        if not types:
            lost.append(node)
            if wanted == "int8":
                missed[node] = "not among the layers"
        elif wanted not in types:
            missed[node] = types[0]
    return missed, lost


def _types_of(layers: Sequence[EngineLayer]) -> list[str]:
    """Known types of the layers made of one node: of those that multiply, where there are such."""
    heavy = [layer for layer in layers if layer.heavy] or layers
    return [layer.type for layer in heavy if layer.type != UNKNOWN]
