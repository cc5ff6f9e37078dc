"""The settings that a search tries before it leaves anything in float."""

from __future__ import annotations

from dataclasses import replace

from bench.backends import REGISTRY, facts
from export.precision.recipe import Recipe, default_recipe
from scarlet.errors import unknown_name

# Its ranges cost one pass over the calibration images: something usable is found first, whatever the budget.
_CHEAP = default_recipe("int8", "ort")
_BEST_GUESS = replace(_CHEAP, calibration="percentile", percentile=99.99)
_ORT = (_BEST_GUESS, replace(_CHEAP, per_channel=False), replace(_BEST_GUESS, per_channel=False))
# These read every activation of every calibration image once more, which takes minutes.
_SLOW = (replace(_BEST_GUESS, percentile=99.9), replace(_BEST_GUESS, calibration="entropy", percentile=99.999))
# Besides what a dialect's own quantiser does when it is not told anything.
_FURTHER = {"nncf": (Recipe("int8", "nncf", preset="mixed"),)}


def backends() -> list[str]:
    """Those that a search can be for: with graphs in INT8, on CPUs."""
    return [name for name in REGISTRY if "int8" in facts(name).dialects and "cpu" in facts(name).devices]


def settings_to_try(backend: str) -> tuple[Recipe, ...]:
    """Recipes that quantise all they can, the most promising and the cheap ones first.

    Raises:
        BenchError: the backend has no INT8 recipes to search.
    """
    if backend not in backends():
        raise unknown_name("backend to search a recipe for", backend, backends())
    default = default_of(backend)
    return (_CHEAP, default, *_ORT, *_FURTHER.get(default.dialect, ()), *_SLOW)


def default_of(backend: str) -> Recipe:
    """What the runtime's own quantiser does when it is not told anything."""
    return Recipe("int8", facts(backend).dialects["int8"][0])


def variants_of(best: Recipe) -> tuple[Recipe, ...]:
    """Settings that only make sense on top of the best ones: weights in 7 bits."""
    return (replace(best, reduce_range=True),) if best.dialect == "ort" and not best.reduce_range else ()


def described(recipe: Recipe) -> str:
    """The settings of a recipe in a few words, without what it leaves in float."""
    if recipe.dialect == "nncf":
        return f"NNCF, {recipe.preset}"
    words = [
        f"{recipe.activation_type} data",
        "per channel" if recipe.per_channel else "per tensor",
        f"percentile {recipe.percentile:g}" if recipe.calibration == "percentile" else recipe.calibration,
    ]
    return ", ".join([*words, *(["weights in 7 bits"] if recipe.reduce_range else [])])
