"""Whether each layer ran in the precision that its graph asks for, in the words of a proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# A sentence names so many layers; the proof names all.
LAYERS_NAMED = 5


@dataclass(frozen=True)
class Layer:
    """A convolution or matrix product as it ran: its name, the runtime's operation, what that computes in."""

    name: str
    operation: str
    type: str


def precision_proof(asked: Mapping[str, str], ran: Iterable[Layer]) -> dict[str, Any]:
    """What was asked for and what ran, layer by layer.

    Args:
        asked: type by name, as of ``export.precision.audit``.
        ran: every convolution and matrix product of the final graph; one that several names lead to stands once for
            each of them.

    Returns:
        ``asked_counts`` by type, ``layer_counts`` by ``operation type``, ``not_as_asked``: each layer that was asked
        for in fewer bits than it ran in, with what it ran in, and ``fallback``: a sentence on them, or nothing.
    """
    ran = tuple(ran)
    types = {layer.name: layer.type for layer in ran}
    lower = {name: type_ for name, type_ in asked.items() if type_ != "float32"}
    # Fusing may rename a layer that stays in float; one that is nowhere under its name did not become what was asked.
    # Nor do names alone decide: a layer of that type whose name nobody asked for is what became of one that is nowhere.
    renamed = Counter(layer.type for layer in ran if layer.name not in asked)
    missed = {}
    for name, type_ in lower.items():
        if name not in types and renamed[type_] > 0:
            renamed[type_] -= 1
        elif types.get(name) != type_:
            missed[name] = types.get(name, "float32")
    return {
        "asked_counts": dict(sorted(Counter(asked.values()).items())),
        "layer_counts": dict(sorted(Counter(f"{layer.operation} {layer.type}" for layer in ran).items())),
        "not_as_asked": missed,
        "fallback": fallback_sentence(missed, len(lower), sorted(set(lower.values()))),
    }


def fallback_sentence(missed: Mapping[str, str], of: int, wanted: Collection[str]) -> str:
    """A sentence on layers that ran in another type than wanted; nothing where there is none.

    Args:
        missed: what each of them ran in, by name.
        of: how many layers were asked for in ``wanted``.
    """
    if not missed:
        return ""
    named = [f"{name} ({type_})" for name, type_ in list(missed.items())[:LAYERS_NAMED]]
    named += [f"{len(missed) - LAYERS_NAMED} more"] if len(missed) > LAYERS_NAMED else []
    return (
        f"{len(missed)} of {of} layers of convolutions and matrix products ran in another precision than "
        f"{' or '.join(wanted)}: {', '.join(named)}"
    )
