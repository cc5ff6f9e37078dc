"""One recipe with what its predictions tell beside FP32's, and whether it keeps within the margin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bench.analysis.accuracy.predictions import Predicted
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
        asked: layers that the graph quantises, of ``layers``.
        not_as_asked: those of them that the runtime computes in float.
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

    @classmethod
    def of(cls, label: str, recipe: Recipe, own: Predicted, fp32: Predicted, proof: Mapping[str, Any]) -> Measured:
        """The figures of two Cases of one run, on the images that both predicted, and of the first one's proof."""
        _, at, base_at = np.intersect1d(own.image, fp32.image, return_indices=True)
        first, base_first, label_of = own.top[at, 0], fp32.top[base_at, 0], own.label[at]
        wins, losses = paired.wins_and_losses(base_first == label_of, first == label_of)
        counts = proof["asked_counts"]
        return cls(
            label=label,
            recipe=recipe,
            n=len(at),
            fp32_right=int((base_first == label_of).sum()),
            wins=wins,
            losses=losses,
            changed=int((first != base_first).sum()),
            margin_shift=float(np.abs(own.margin[at] - fp32.margin[base_at]).mean()),
            asked=counts.get("int8", 0),
            layers=sum(counts.values()),
            not_as_asked=tuple(sorted(proof["not_as_asked"])),
        )

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
    def points(self) -> tuple[float, float, float]:
        """The difference of top-1 in percentage points, and the ends of its 95 % interval."""
        found = paired.paired_bound(self.wins, self.losses, self.n, 0.025)
        return 100.0 * found.difference, 100.0 * found.low, 100.0 * found.high

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
        difference, low, _ = self.points
        accepted = -margin_percent * self.fp32_right / self.n
        return BOUND if low >= accepted else ESTIMATE if difference >= accepted else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        difference, low, high = self.points
        return {
            **asdict(self),
            "recipe": self.recipe.to_dict(),
            "top1_percent": self.top1_percent,
            "fp32_top1_percent": self.fp32_top1_percent,
            "difference_points": difference,
            "difference_points_95": [low, high],
        }
