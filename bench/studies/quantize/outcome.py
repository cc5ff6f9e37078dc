"""What was requested of a search and what it ended with; the recipe file that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bench.record.files import file_name, plain
from bench.run.spec import RunSpec
from bench.studies.quantize.measured import BOUND, Measured
from bench.studies.quantize.search import Found, backends, described
from export.precision.recipe import Recipe, write_recipe
from scarlet.errors import BenchError

# So many recipes are timed.
FINALISTS = 6


@dataclass(frozen=True)
class Asked:
    """What is requested of a search.

    Attributes:
        spec: of one latency Case in FP32; its images are those to confirm on.
        margin_percent: by how much top-1 may fall, in per cent of FP32's top-1.
        images: how many others to search on.
    """

    spec: RunSpec = field(default_factory=lambda: RunSpec(backends=backends()[0], scenarios="latency", batches=1))
    margin_percent: float = 1.0
    images: int = 512

    @property
    def backend(self) -> str:
        """The one that the recipe is for."""
        return self.spec.backends[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**self.spec.to_dict(), "margin_percent": self.margin_percent, "search_images": self.images}


@dataclass(frozen=True)
class Speed:
    """Time of a recipe's graph over that of FP32 on the same backend.

    Attributes:
        ratio: median over rounds; None where it was not measured.
        low, high: ends of its interval; all of a run's intervals hold together.
        verdict: ``faster``, ``slower``, ``same`` or ``unresolved``; empty where it was not measured.
        reason: why there is no ratio, or what ran elsewhere than asked.
    """

    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    median_ms: float | None = None
    fp32_median_ms: float | None = None
    reason: str = ""


class Row(NamedTuple):
    """A recipe on the frontier."""

    measured: Measured
    speed: Speed


@dataclass(frozen=True)
class Outcome:
    """What a search ended with.

    Attributes:
        rows: recipes that were timed, the most accurate first.
        chosen: the recipe to use: within the margin on both sets; else the closest to it, or None where no recipe
            could be measured.
        confirmed: it, and those confirmed before it in vain, on images that nothing was chosen on.
        why: what that answer rests on, a sentence.
        found: all that was tried.
    """

    run: Path
    asked: Asked
    rows: tuple[Row, ...]
    chosen: Measured | None
    confirmed: tuple[Measured, ...]
    within: bool
    why: str
    interrupted: bool
    found: Found

    @property
    def speed(self) -> Speed:
        """Of the chosen recipe."""
        own = [row.speed for row in self.rows if self.chosen and row.measured.recipe == self.chosen.recipe]
        return own[0] if own else Speed(reason="not timed")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types: what ``--json`` prints and, with all recipes tried, the run's folder keeps."""
        margin = self.asked.margin_percent
        return {
            "run": str(self.run),
            "asked": self.asked.to_dict(),
            "within_margin": self.within,
            "why": self.why,
            "interrupted": self.interrupted,
            "chosen": self.chosen and self.chosen.to_dict(),
            "speed": asdict(self.speed),
            "confirmed": [one.to_dict() for one in self.confirmed],
            "frontier": [
                {**one.to_dict(), "holds": one.holds(margin), "speed": asdict(speed)} for one, speed in self.rows
            ],
            "alone": {name: (one.changed, one.margin_shift) for name, one in self.found.alone.items()},
            "notes": list(self.found.notes),
        }


def finalists_of(found: Found, default: Recipe, margin_percent: float) -> list[Measured]:
    """The recipes that are worth timing.

    The best settings with nothing left in float, the most accurate of all, what the runtime's quantiser does by
    default, to compare with, and what holds, in the order in which it was tried (little is left in float at first).
    """
    if not found.tried:
        return []
    closest = max(found.tried, key=lambda one: one.order)
    default_one = [one for one in found.tried if one.recipe == default]
    holding = [one for one in found.tried if one.holds(margin_percent)]
    wanted = {one.recipe: one for one in (*([found.base] if found.base else []), closest, *default_one, *holding)}
    return list(wanted.values())[:FINALISTS]


def best_of(rows: Sequence[Row], margin_percent: float) -> list[Measured]:
    """Recipes within the margin, the best first.

    The fastest leads. Those whose interval overlaps with the fastest one's count as equally fast: among them the one
    whose bound is within the margin leads, then the closest to FP32. Recipes without a ratio come last.
    """

    def closeness(row: Row) -> tuple[float, ...]:
        return (float(row.measured.holds(margin_percent) == BOUND), *row.measured.order)

    within = [row for row in rows if row.measured.holds(margin_percent)]
    timed = [row for row in within if row.speed.ratio is not None]
    ordered: list[Row] = []
    while timed:
        fastest = min((row.speed for row in timed), key=lambda speed: speed.ratio or 0.0)
        reach = fastest.high or fastest.ratio or 0.0
        equal = [row for row in timed if (row.speed.low or row.speed.ratio or 0.0) <= reach]
        ordered += sorted(equal, key=closeness, reverse=True)
        timed = [row for row in timed if row not in equal]
    others = [row for row in within if row.speed.ratio is None]
    return [row.measured for row in (*ordered, *sorted(others, key=closeness, reverse=True))]


def decided(
    found: Found, confirmed: Sequence[Measured], margin_percent: float, interrupted: bool
) -> tuple[Measured | None, bool, str]:
    """The recipe to use, whether it is within the margin on both sets, and what that rests on."""
    for one in confirmed:
        if holds := one.holds(margin_percent):
            return one, True, f"it keeps within the margin by its {holds} on images that nothing was chosen on"
    if not found.tried:
        return None, False, "no recipe could be made and run in the time: give a larger --budget, or fewer --images"
    closest = max(confirmed or found.tried, key=lambda one: one.order)
    if interrupted:
        return closest, False, "the search was stopped before anything was confirmed"
    if confirmed:
        why = "what kept within the margin on the search images does not on images that nothing was chosen on"
        return closest, False, why
    return closest, False, "no recipe that was tried keeps within the margin, not even by its estimate"


def recipe_target(asked: Asked, out: Path | None) -> Path:
    """Where the recipe will be written, looked at before the search; its folder is made.

    Raises:
        BenchError: a file cannot be written there.
    """
    target = out or Path(f"{file_name(asked.spec.network.name)}-{asked.backend}.yaml")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BenchError(f"{target} cannot be written: {error.strerror}", "Give another --out.") from None
    if target.is_dir():
        raise BenchError(f"{target} is a folder", "Give --out the name of a file.")
    return target


def write_chosen(outcome: Outcome, target: Path) -> list[str]:
    """Writes the recipe, with what was found of it, where there is one; gives lines for people on it.

    Raises:
        BenchError: the file cannot be written.
    """
    if outcome.chosen is None:
        return []
    try:
        write_recipe(target, outcome.chosen.recipe, plain(about(outcome, outcome.chosen)))
    except OSError as error:
        kept = outcome.run / "search.json"
        raise BenchError(
            f"{target} cannot be written: {error.strerror}", f"The recipe is in {kept}, under 'chosen'."
        ) from None
    backend = outcome.asked.backend
    replay = f"--precisions fp32,int8 --backends {backend} --option {backend}.recipe={target}"
    return [f"recipe: {target}", f"replay: scarlet-bench run {replay}"]


def about(outcome: Outcome, one: Measured) -> dict[str, Any]:
    """What a recipe file tells of where it comes from."""
    asked, speed = outcome.asked, outcome.speed
    figures: dict[str, Any] = {
        "model": asked.spec.network.name,
        "backend": asked.backend,
        "settings": described(one.recipe),
        "margin_percent": asked.margin_percent,
        "within_margin": outcome.within,
        "why": outcome.why,
        "layers_in_int8": f"{one.asked - len(one.not_as_asked)} of {one.layers}",
    }
    searched = [row.measured for row in outcome.rows if row.measured.recipe == one.recipe]
    for name, sides in (("search", searched), ("confirmation", [one] if outcome.confirmed else [])):
        for side in sides:
            figures[name] = {
                "images": side.n,
                "fp32_top1_percent": round(side.fp32_top1_percent, 2),
                "top1_percent": round(side.top1_percent, 2),
                "difference_points_95": [round(end, 2) for end in side.points[1:]],
                "predictions_changed": side.changed,
            }
    if speed.ratio is not None:
        figures["time_over_fp32"] = {
            "ratio": round(speed.ratio, 3),
            "interval_95": [end and round(end, 3) for end in (speed.low, speed.high)],
            "verdict": speed.verdict,
            "batch": asked.spec.batches[0],
        }
    return figures
