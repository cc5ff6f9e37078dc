"""The search itself: settings first, then which blocks to leave in float. It only calls ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from bench.backends import REGISTRY, facts
from bench.studies.quantize.groups import Group, Node, across, blocks, patterns
from bench.studies.quantize.measured import BOUND, ESTIMATE, Measured
from export.precision.recipe import Recipe, default_recipe
from scarlet.errors import unknown_name

# Of the time, the settings may take at most so much: what is left out matters more.
SETTINGS_SHARE = 0.5
# Once the difference itself is within the margin, so many further blocks are tried for the bound to be so too.
STEPS_FOR_BOUND = 3

# Its ranges cost one pass over the calibration images: something usable is found first, whatever the budget.
_CHEAP = default_recipe("int8", "ort")
_BEST_GUESS = replace(_CHEAP, calibration="percentile", percentile=99.99)
_ORT = (replace(_BEST_GUESS, reduce_range=True), *(replace(r, per_channel=False) for r in (_CHEAP, _BEST_GUESS)))
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
    return (_CHEAP, _BEST_GUESS, default, *_ORT, *_FURTHER.get(default.dialect, ()), *_SLOW)


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


# Measures a recipe on the search images; None where no such graph can be made or run (it has said why).
Evaluate = Callable[[str, Recipe], Measured | None]


class OutOfTime(Exception):
    """The budget is spent."""


@dataclass
class Found:
    """What a search has found so far; it is filled as the search goes on, so that a stop loses nothing.

    Attributes:
        tried: recipes that could be used, in the order in which they were tried.
        alone: what quantising one block alone does, by its name.
        notes: sentences on what was left out of the search.
        base: the best settings, with nothing left in float.
    """

    tried: list[Measured] = field(default_factory=list)
    alone: dict[str, Measured] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    base: Measured | None = None


class Search:
    """One search."""

    def __init__(
        self,
        nodes: Sequence[Node],
        evaluate: Evaluate,
        margin_percent: float,
        remaining_seconds: Callable[[], float],
        budget_seconds: float,
        say: Callable[[str], None],
    ) -> None:
        self._nodes, self._evaluate, self._margin = tuple(nodes), evaluate, margin_percent
        self._remaining, self._budget, self._say = remaining_seconds, budget_seconds, say
        self._blocks = blocks(self._nodes)
        self.found = Found()

    def run(self, settings: Sequence[Recipe]) -> Found:
        """Tries the settings, then leaves blocks in float until the margin holds or the time is over."""
        try:
            base = self._best_settings(settings)
            if base is not None:
                self._leave_out(base)
        except OutOfTime:
            self.found.notes.append("the budget ended the search: give a larger --budget for more of it")
        return self.found

    def _best_settings(self, settings: Sequence[Recipe]) -> Measured | None:
        """The settings that stay closest to FP32."""
        waiting, varied = list(settings), False
        while waiting:
            known = [one for one in self.found.tried if one.recipe.exclude == ()]
            if known and self._remaining() < self._budget * (1.0 - SETTINGS_SHARE):
                names = "; ".join(described(recipe) for recipe in waiting)
                self.found.notes.append(f"settings not tried, for lack of time: {names}")
                break
            self._try(described(waiting[0]), waiting[0])
            del waiting[0]
            if not waiting and not varied and self.found.tried:
                varied = True
                waiting = [recipe for recipe in variants_of(self._best().recipe) if recipe not in settings]
        if not self.found.tried:
            return None
        self.found.base = self._best()
        return self.found.base

    def _best(self) -> Measured:
        return max(self.found.tried, key=lambda one: one.order)

    def _leave_out(self, base: Measured) -> None:
        name = described(base.recipe)
        if base.not_as_asked:
            # The runtime computes them in float whatever the graph says: then rounding their data gains nothing.
            known = {node.name for node in self._nodes}
            own = [layer.removesuffix("/WithoutBiases") for layer in base.not_as_asked]
            spared = [layer for layer in own if layer in known]
            if spared:
                self._without(f"{name}; in float: what the runtime computes in float", base, spared)
        for group in across(self._nodes):
            self._without(f"{name}; in float: {group.name}", base, group.nodes)
        if base.holds(self._margin) == BOUND:
            return
        current, steps_left, left_out = base, STEPS_FOR_BOUND, list[Group]()
        for group in self._ranked(base):
            trial = [*left_out, group]
            names = " + ".join(each.name for each in trial)
            excluded = [node for each in trial for node in each.nodes]
            one = self._without(f"{name}; in float: {names}", base, excluded)
            if one is None or one.order <= current.order:
                continue  # it brings nothing: it may as well be in INT8
            current, left_out = one, trial
            if one.holds(self._margin) == BOUND:
                return
            steps_left -= one.holds(self._margin) == ESTIMATE
            if not steps_left:
                return

    def _ranked(self, base: Measured) -> list[Group]:
        """Blocks, the most predictions changed when quantised alone first."""
        harm = dict.fromkeys((block.name for block in self._blocks), (0, 0.0))
        for block in self._blocks:
            others = [node.name for node in self._nodes if node.name not in set(block.nodes)]
            recipe = replace(base.recipe, exclude=patterns(others, self._blocks, self._nodes))
            self._check_time()
            if one := self._evaluate(f"{block.name} alone", recipe):
                self.found.alone[block.name] = one
                harm[block.name] = one.changed, one.margin_shift
                self._say(f"{one.label}: {one.changed} predictions changed, margins moved by {one.margin_shift:.2g}")
        return sorted(self._blocks, key=lambda block: harm[block.name], reverse=True)

    def _without(self, label: str, base: Measured, excluded: Sequence[str]) -> Measured | None:
        exclude = patterns(excluded, self._blocks, self._nodes)
        return self._try(label, replace(base.recipe, exclude=exclude))

    def _try(self, label: str, recipe: Recipe) -> Measured | None:
        """Measures a recipe that could be used."""
        self._check_time()
        one = self._evaluate(label, recipe)
        if one is None:
            self.found.notes.append(f"{label}: no such graph could be made and run, or not in time; the log says which")
        else:
            self.found.tried.append(one)
            holds = {BOUND: "within the margin", ESTIMATE: "within the margin by its estimate"}
            self._say(
                f"{label}: top-1 {one.top1_percent:.2f} % (FP32 {one.fp32_top1_percent:.2f}), {one.changed} "
                f"predictions changed, {one.wins} won, {one.losses} lost; "
                f"{holds.get(one.holds(self._margin), 'not within the margin')}"
            )
        return one

    def _check_time(self) -> None:
        if self._remaining() <= 0:
            raise OutOfTime
