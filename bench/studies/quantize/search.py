"""The search itself: settings first, then which blocks to leave in float. It only calls ``evaluate``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from bench.studies.quantize.candidates import described, variants_of
from bench.studies.quantize.groups import Group, Node, across, blocks, parts, patterns
from bench.studies.quantize.measured import BOUND, ESTIMATE, Measured
from export.precision.recipe import Recipe

# Of the time, the settings may take at most so much: what is left out matters more.
SETTINGS_SHARE = 0.5
# How many blocks are looked into, and when one of their parts stands for the whole: it alone causes so many of the
# predictions that the whole block changes.
SPLIT_BLOCKS, PART_SHARE = 4, 0.6
# Once the difference itself is within the margin, so many further blocks are tried for the bound to be so too.
STEPS_FOR_BOUND = 3


class Evaluate(Protocol):
    """Measures a recipe on the search images; None where no such graph can be made or run (it has said why)."""

    def __call__(self, label: str, recipe: Recipe) -> Measured | None: ...


class OutOfTime(Exception):
    """The budget is spent."""


@dataclass
class Found:
    """What a search has found so far; it is filled as the search goes on, so that a stop loses nothing.

    Attributes:
        tried: recipes that could be used, in the order in which they were tried.
        alone: what quantising one block, or one part of a block, alone does, by its name.
        notes: sentences on what was left out of the search.
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

    # --- settings -------------------------------------------------------------------------------------------------

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
                varied, waiting = True, list(variants_of(self._best().recipe))
        if not self.found.tried:
            return None
        self.found.base = self._best()
        return self.found.base

    def _best(self) -> Measured:
        return max(self.found.tried, key=lambda one: one.order)

    # --- what stays in float --------------------------------------------------------------------------------------

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
            covered = {node for kept in left_out for node in kept.nodes}
            if set(group.nodes) <= covered:
                continue
            # A whole block takes the place of its part.
            trial = [*(kept for kept in left_out if not set(kept.nodes) <= set(group.nodes)), group]
            names = " + ".join(kept.name for kept in trial)
            excluded = [node for kept in trial for node in kept.nodes]
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
        """Blocks, or the part of one that does the harm, the most predictions changed when quantised alone first."""
        for block in self._blocks:
            self._alone(block, base)
        worst = sorted(self._blocks, key=lambda block: self._harm(block.name), reverse=True)
        ranked = []
        for place, block in enumerate(worst):
            chosen = block
            if place < SPLIT_BLOCKS and self._harm(block.name)[0]:
                for part in parts(block, self._nodes):
                    self._alone(part, base)
                    if self._harm(part.name)[0] >= PART_SHARE * self._harm(block.name)[0]:
                        chosen = max(chosen, part, key=lambda group: (group is not block, self._harm(group.name)))
            ranked += [chosen] if chosen is block else [chosen, block]
        named = ", ".join(f"{group.name} {self._harm(group.name)[0]:.0f}" for group in ranked[:8])
        self._say(f"predictions changed by quantising alone, the most first: {named}")
        return ranked

    def _alone(self, group: Group, base: Measured) -> None:
        """Quantises one group alone."""
        others = [node.name for node in self._nodes if node.name not in set(group.nodes)]
        recipe = replace(base.recipe, exclude=patterns(others, self._blocks, self._nodes))
        self._check_time()
        one = self._evaluate(f"{group.name} alone", recipe)
        if one is not None:
            self.found.alone[group.name] = one
            self._say(f"{one.label}: {one.changed} predictions changed, margins moved by {one.margin_shift:.2g}")

    def _harm(self, name: str) -> tuple[float, float]:
        one = self.found.alone.get(name)
        return (float(one.changed), one.margin_shift) if one else (0.0, 0.0)

    # --- one recipe -----------------------------------------------------------------------------------------------

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
