"""One recipe with what was measured of it, and whether it keeps within the margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bench.analysis.stats import paired
from export.precision.recipe import Recipe

BOUND, ESTIMATE = "bound", "estimate"


@dataclass(frozen=True)
class Measured:
    """A recipe's predictions against FP32's on the same images, on the same backend.

    Attributes:
        fp32_right: of them, how many FP32 gets right.
        changed: images whose first class differs.
        margin_shift: mean change of the softmax margin between the two first classes, 0..1: tells recipes apart where
            few predictions change.
        not_as_asked: those that the graph quantises and the runtime computes in float.
        seconds: what making the graph and predicting took.
    """

    label: str
    recipe: Recipe
    n: int
    fp32_right: int
    wins: int
    losses: int
    changed: int
    margin_shift: float
    asked: int
    layers: int
    not_as_asked: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def right(self) -> int:
        """Images that the recipe gets right."""
        return self.fp32_right + self.wins - self.losses

    @property
    def top1_percent(self) -> float:
        return 100.0 * self.right / self.n

    @property
    def fp32_top1_percent(self) -> float:
        return 100.0 * self.fp32_right / self.n

    @property
    def difference(self) -> paired.Bound:
        """Of the two accuracies, with its 95 % interval, as shares."""
        return paired.paired_bound(self.wins, self.losses, self.n, 0.025)

    @property
    def order(self) -> tuple[float, ...]:
        """The larger, the closer to FP32: by images lost, then by images right, then by margins.

        Not by images right at first: a rounding that turns a few predictions to the good by chance has turned as many
        to the bad elsewhere, and the number of losses tells damage from luck with fewer images.
        """
        return -self.losses, self.right, -self.margin_shift

    def holds(self, margin_percent: float) -> str:
        """Whether top-1 falls by no more than a margin.

        Args:
            margin_percent: in per cent of FP32's top-1, not in points.

        Returns:
            ``bound`` where the lower end of the difference's 95 % interval is within the margin (non-inferiority, with
            an error of 2.5 % on that side), ``estimate`` where only the difference itself is; else nothing.
        """
        accepted = -margin_percent / 100.0 * self.fp32_right / self.n
        if self.difference.low >= accepted:
            return BOUND
        return ESTIMATE if self.difference.difference >= accepted else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        low, high = (100.0 * end for end in self.difference[1:])
        return {
            **asdict(self),
            "recipe": self.recipe.to_dict(),
            "top1_percent": self.top1_percent,
            "fp32_top1_percent": self.fp32_top1_percent,
            "difference_points": 100.0 * self.difference.difference,
            "difference_points_95": [low, high],
        }


def measured(label: str, recipe: Recipe, figures: Mapping[str, Any]) -> Measured:
    """From what a worker answers: the attributes of ``Measured`` but label and recipe."""
    return Measured(label, recipe, **{**figures, "not_as_asked": tuple(figures["not_as_asked"])})
