"""Two accuracies on the same images: what the images on which exactly one side is right tell.

Each figure is of one comparison, without a correction for several. numpy and scipy are imported where they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Paired:
    """Two accuracies on the same n images.

    Attributes:
        base_percent: of the base.
        other_percent: of the other side.
        wins: images that only the other side got right.
        losses: images that only the base got right.
        p_value: two-sided exact McNemar test, ``stats.exact_mcnemar``.
        difference_points: the other side's accuracy minus the base's.
        low_points: lower end of its 95 % interval, ``stats.paired_difference_interval``.
        high_points: upper end.
        resolvable_points: see ``resolvable``; None where no difference could be resolved.
    """

    base_percent: float
    other_percent: float
    wins: int
    losses: int
    p_value: float
    difference_points: float
    low_points: float
    high_points: float
    resolvable_points: float | None


def paired(base_hits: NDArray[np.bool_], other_hits: NDArray[np.bool_]) -> Paired:
    """Two accuracies from which images each side got right, both ``(n,)`` of the same images; n at least 1."""
    import numpy as np

    from bench.analysis.stats import intervals

    n = len(base_hits)
    wins = int(np.count_nonzero(other_hits & ~base_hits))
    losses = int(np.count_nonzero(base_hits & ~other_hits))
    interval = intervals.paired_difference_interval(wins, losses, n)
    least = resolvable(n, (wins + losses) / n)
    return Paired(
        base_percent=100.0 * float(base_hits.mean()),
        other_percent=100.0 * float(other_hits.mean()),
        wins=wins,
        losses=losses,
        p_value=intervals.exact_mcnemar(wins, losses),
        difference_points=100.0 * interval.difference,
        low_points=100.0 * interval.low,
        high_points=100.0 * interval.high,
        resolvable_points=None if least is None else 100.0 * least,
    )


def resolvable(n: int, discordant_share: float) -> float | None:
    """The smallest true difference that n images resolve with 80 % power, at 95 % confidence; None where n is too few.

    ``stats.min_detectable_difference`` at the share of images on which exactly one side is right, as it was seen. It
    grows with the root of the share, c * sqrt(share), and a difference cannot exceed the share: where fewer images than
    c**2 are discordant even all of them on one side would be missed, and the smallest difference is c**2 itself.

    Args:
        n: images, at least 1.
        discordant_share: 0..1.
    """
    from bench.analysis.stats import intervals

    c = intervals.min_detectable_difference(n, 1.0)
    if c is None:
        return None
    return c**2 if discordant_share <= c**2 else intervals.min_detectable_difference(n, discordant_share)
