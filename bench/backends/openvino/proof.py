"""The layers that OpenVINO's CPU plugin really runs, and which of them ran in another precision than asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

ARITHMETIC = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


def executed(runtime_model: Any) -> Iterator[tuple[Any, dict[str, str]]]:
    """The operations of an execution graph but its constants, in order, each with what the plugin tells of it.

    Source of the keys: OpenVINO's documentation of ``CompiledModel.get_runtime_model`` (ExecGraphInfo).
    """
    for node in runtime_model.get_ordered_ops():
        facts = {name: str(value.value) for name, value in node.get_rt_info().items()}
        if facts["layerType"] != "Const":
            yield node, facts


def execution_layers(runtime_model: Any) -> list[dict[str, str]]:
    """The layers that really run, in order: name, type, primitive, precision, and under ``became`` the operations of
    the graph that they were made of, comma-separated; constants are left out.
    """
    return [
        {
            "name": str(node.get_friendly_name()),
            "type": facts["layerType"],
            "primitive": facts["primitiveType"],
            "precision": facts["runtimePrecision"],
            "became": facts.get("originalLayersNames", ""),
        }
        for node, facts in executed(runtime_model)
    ]


def layer_counts(layers: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """How many layers there are of each ``type primitive precision``."""
    counts = Counter(f"{layer['type']} {layer['primitive']} {layer['precision']}" for layer in layers)
    return dict(sorted(counts.items()))


def arithmetic(layers: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The layers of convolutions and matrix products."""
    return [layer for layer in layers if layer["type"] in ARITHMETIC]


def other_precision(
    layers: Iterable[Mapping[str, str]], wanted: Sequence[str], asked: Iterable[str] | None = None
) -> dict[str, str]:
    """The convolutions and matrix products that ran in none of the wanted precisions, with what they ran in, by name.

    Args:
        wanted: precisions in the words of the execution graph.
        asked: names of the graph's operations that are to run so; None for all layers.
    """
    heavy = arithmetic(layers)
    if asked is None:
        return {layer["name"]: layer["precision"] for layer in heavy if layer["precision"] not in wanted}
    parts = [({layer["name"], *layer["became"].split(",")}, layer["precision"]) for layer in heavy]
    other = {}
    for name in asked:
        # The plugin adds to the name of what it rewrites: classifier/Gemm/DequantizationMultiply.
        found = [
            precision for names, precision in parts if any(own == name or own.startswith(f"{name}/") for own in names)
        ]
        missed = [precision for precision in found if precision not in wanted]
        if missed or not found:
            other[name] = missed[0] if missed else "not among the layers"
    return other
