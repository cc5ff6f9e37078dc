"""What was requested of a search and what it ended with; the recipe file that it leaves."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.record.files import file_name, plain
from bench.run.spec import RunSpec
from bench.studies.quantize import timing
from bench.studies.quantize.candidates import backends, described
from bench.studies.quantize.measured import Measured
from bench.studies.quantize.search import Found
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

    Raises:
        BenchError: a number is wrong.
    """

    spec: RunSpec = field(default_factory=lambda: RunSpec(backends=backends()[0], scenarios="latency", batches=1))
    margin_percent: float = 1.0
    images: int = 512

    def __post_init__(self) -> None:
        if self.images < 1:
            raise BenchError(f"--images {self.images} is not a number above 0", "Write for example --images 8.")
        if not 0 < self.margin_percent < 100:
            raise BenchError(
                f"--margin {self.margin_percent:g} is not a share of the accuracy in per cent",
                "Write for example --margin 1.",
            )

    @property
    def backend(self) -> str:
        """The one that the recipe is for."""
        return self.spec.backends[0]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**self.spec.to_dict(), "margin_percent": self.margin_percent, "search_images": self.images}


@dataclass(frozen=True)
class Row:
    """A recipe on the frontier."""

    measured: Measured
    speed: timing.Speed
    holds: str


@dataclass(frozen=True)
class Outcome:
    """What a search ended with.

    Attributes:
        rows: recipes that were timed, the most accurate first.
        chosen: the recipe to use: within the margin on both sets; else the closest to it, or None where no recipe
            could be measured.
        confirmed: it, and those confirmed before it in vain, on images that nothing was chosen on.
        why: what that answer rests on, a sentence.
        speed: of the chosen recipe.
        notes: sentences on what was left out.
        alone: predictions changed by quantising a block alone, and how far it moves margins, by its name.
        images: how many there were in each set.
    """

    run: Path
    asked: Asked
    rows: tuple[Row, ...]
    chosen: Measured | None
    confirmed: tuple[Measured, ...]
    within: bool
    why: str
    speed: timing.Speed
    interrupted: bool
    notes: tuple[str, ...]
    alone: dict[str, tuple[int, float]]
    images: dict[str, int]


def finalists_of(found: Found, default: Recipe, margin_percent: float) -> list[Measured]:
    """The recipes that are worth timing.

    What holds, in the order in which it was tried (little is left in float at first), the most accurate of all, the
    best settings with nothing left in float, and what the runtime's quantiser does by default, to compare with.
    """
    if not found.tried:
        return []
    closest = max(found.tried, key=lambda one: one.order)
    default_one = [one for one in found.tried if one.recipe == default]
    always = [*([found.base] if found.base else []), closest, *default_one]
    wanted: list[Measured] = []
    holding = [one for one in found.tried if one.holds(margin_percent)]
    for one in (*always, *holding):
        if one.recipe not in [known.recipe for known in wanted] and len(wanted) < FINALISTS:
            wanted.append(one)
    return wanted


def decided(
    found: Found, confirmed: list[Measured], margin_percent: float, interrupted: bool
) -> tuple[Measured | None, bool, str]:
    """The recipe to use, whether it is within the margin on both sets, and what that rests on."""
    for one in confirmed:
        if holds := one.holds(margin_percent):
            return (one, True, f"it keeps within the margin by its {holds} on images that nothing was chosen on")
    if not found.tried:
        return None, False, "no recipe could be made and run in the time: give a larger --budget, or fewer --images"
    closest = max(found.tried, key=lambda one: one.order)
    if interrupted:
        return closest, False, "the search was stopped before anything was confirmed"
    if confirmed:
        best = max(confirmed, key=lambda one: one.order)
        return (
            best,
            False,
            "what kept within the margin on the search images does not on images that nothing was chosen on",
        )
    return closest, False, "no recipe that was tried keeps within the margin, not even by its estimate"


def to_dict(outcome: Outcome, found: Found | None = None) -> dict[str, Any]:
    """What `--json` prints and the run's folder keeps."""
    return {
        "run": str(outcome.run),
        "asked": outcome.asked.to_dict(),
        "within_margin": outcome.within,
        "why": outcome.why,
        "interrupted": outcome.interrupted,
        "chosen": outcome.chosen and outcome.chosen.to_dict(),
        "speed": asdict(outcome.speed),
        "confirmed": [one.to_dict() for one in outcome.confirmed],
        "frontier": [
            {**row.measured.to_dict(), "holds": row.holds, "speed": asdict(row.speed)} for row in outcome.rows
        ],
        "alone": outcome.alone,
        "images": outcome.images,
        "notes": list(outcome.notes),
        **({"tried": [one.to_dict() for one in found.tried]} if found else {}),
    }


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
        write_recipe(target, outcome.chosen.recipe, plain(about(outcome)))
    except OSError as error:
        kept = outcome.run / "search.json"
        raise BenchError(
            f"{target} cannot be written: {error.strerror}", f"The recipe is in {kept}, under 'chosen'."
        ) from None
    backend = outcome.asked.backend
    replay = f"--precisions fp32,int8 --backends {backend} --option {backend}.recipe={target}"
    return [f"recipe: {target}", f"replay: scarlet-bench run {replay}"]


def about(outcome: Outcome) -> dict[str, Any]:
    """What a recipe file tells of where it comes from."""
    asked, one = outcome.asked, outcome.chosen
    assert one is not None
    figures: dict[str, Any] = {
        "model": asked.spec.network.name,
        "backend": asked.backend,
        "settings": described(one.recipe),
        "margin_percent": asked.margin_percent,
        "within_margin": outcome.within,
        "why": outcome.why,
        "layers_in_int8": f"{one.asked - len(one.not_as_asked)} of {one.layers}",
    }
    searched = next((row.measured for row in outcome.rows if row.measured.recipe == one.recipe), None)
    for name, side in (("search", searched), ("confirmation", one if outcome.confirmed else None)):
        if side is not None:
            low, high = (round(100.0 * end, 2) for end in side.difference[1:])
            figures[name] = {
                "images": side.n,
                "fp32_top1_percent": round(side.fp32_top1_percent, 2),
                "top1_percent": round(side.top1_percent, 2),
                "difference_points_95": [low, high],
                "predictions_changed": side.changed,
            }
    if outcome.speed.ratio is not None:
        ends = [end and round(end, 3) for end in (outcome.speed.low, outcome.speed.high)]
        figures["time_over_fp32"] = {
            "ratio": round(outcome.speed.ratio, 3),
            "interval_95": ends,
            "verdict": outcome.speed.verdict,
            "batch": asked.spec.batches[0],
        }
    return figures
