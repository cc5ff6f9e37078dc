"""Two accuracies on the same n images: what the images on which exactly one side is right tell.

A win is an image that only the side under judgement has right, a loss one that only the base has right; the difference
of top-1 is (wins - losses) / n. Each figure is of one comparison, without a correction for several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr, betaincinv, ndtri

from bench.analysis.stats.intervals import CONFIDENCE, check_share

POWER = 0.80


def wins_and_losses(base_hits: NDArray[np.bool_], other_hits: NDArray[np.bool_]) -> tuple[int, int]:
    """How many images only the other side got right, and how many only the base; both ``(n,)`` of the same images."""
    return int(np.count_nonzero(other_hits & ~base_hits)), int(np.count_nonzero(base_hits & ~other_hits))


@dataclass(frozen=True)
class Paired:
    """Two accuracies on the same n images.

    Attributes:
        p_value: two-sided exact McNemar test, ``exact_mcnemar``, of images without a tie.
        low_points, high_points: ends of its 95 % interval, ``paired_bound``.
        resolvable_points: see ``resolvable``; None where no difference could be resolved.
        ties: images on which the two first classes of a side have equal logits.
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
    ties: int = 0


def paired(
    base_hits: NDArray[np.bool_], other_hits: NDArray[np.bool_], tied: NDArray[np.bool_] | None = None
) -> Paired:
    """Two accuracies from which images each side got right.

    Args:
        base_hits, other_hits: ``(n,)``, of the same images, n at least 1.
        tied: likewise, where a tie decided what was predicted: no evidence of a difference.
    """
    n = len(base_hits)
    decided = np.ones(n, dtype=bool) if tied is None else ~tied
    wins, losses = wins_and_losses(base_hits, other_hits)
    interval = paired_bound(wins, losses, n, (1.0 - CONFIDENCE) / 2.0)
    least = resolvable(n, (wins + losses) / n)
    return Paired(
        base_percent=100.0 * float(base_hits.mean()),
        other_percent=100.0 * float(other_hits.mean()),
        wins=wins,
        losses=losses,
        p_value=exact_mcnemar(*wins_and_losses(base_hits[decided], other_hits[decided])),
        difference_points=100.0 * interval.difference,
        low_points=100.0 * interval.low,
        high_points=100.0 * interval.high,
        resolvable_points=None if least is None else 100.0 * least,
        ties=n - int(np.count_nonzero(decided)),
    )


def resolvable(n: int, discordant_share: float) -> float | None:
    """The smallest true difference that n images resolve if as many of them differ again; None where n is too few.

    With 80 % power, at 95 % confidence: ``min_detectable_difference`` at the share of images on which exactly one side
    is right, as it was seen. It grows with the root of the share, c * sqrt(share), and a difference cannot exceed the
    share: where fewer images than c**2 are discordant even all of them on one side would be missed, and the smallest
    difference is c**2 itself.

    Args:
        n: images, at least 1.
        discordant_share: 0..1.
    """
    c = min_detectable_difference(n, 1.0)
    if c is None:
        return None
    return c**2 if discordant_share <= c**2 else min_detectable_difference(n, discordant_share)


def exact_mcnemar(wins: int, losses: int) -> float:
    """Two-sided p value of the exact McNemar test: are wins and losses equally likely?

    Only images on which exactly one of two Cases is right count. Twice the smaller binomial tail, at most 1.
    McNemar, Psychometrika 12 (1947); exact form in Agresti, "Categorical Data Analysis", 3rd ed. (2013),
    11.1.
    """
    if wins < 0 or losses < 0:
        raise ValueError("counts cannot be negative")
    return min(1.0, 2.0 * float(bdtr(min(wins, losses), wins + losses, 0.5)))


def min_detectable_difference(
    n: int, discordant_share: float, confidence: float = CONFIDENCE, power: float = POWER
) -> float | None:
    """The smallest true difference of two paired accuracies that n images resolve.

    Solves Connor's sample size for McNemar's test, "Sample size for testing differences in proportions for
    the paired-sample design", Biometrics 43 (1987), for the difference d: sqrt(n) d = z_confidence
    sqrt(share) + z_power sqrt(share - d**2). It is a normal approximation.

    Args:
        n: images, at least 1.
        discordant_share: share of images on which exactly one of the two is right, 0..1.
        confidence: 1 minus the two-sided level of the test.
        power: chance of finding a difference of that size.

    Returns:
        A share, 0..1; 0 where nothing is discordant; None where even the largest difference that such a share
        allows (the share itself) would be missed.
    """
    check_share("confidence", confidence)
    check_share("power", power)
    if n < 1 or not 0.0 <= discordant_share <= 1.0:
        raise ValueError(f"{n} images with a discordant share of {discordant_share} make no sense")
    level, chance = float(ndtri(0.5 + confidence / 2.0)), float(ndtri(power))
    root = n + chance**2 - level**2
    if root < 0:
        return None
    scale = math.sqrt(discordant_share) / (n + chance**2)
    difference = scale * (math.sqrt(n) * level + chance * math.sqrt(root))
    return difference if difference <= discordant_share else None


class Bound(NamedTuple):
    """The difference of top-1, current minus baseline, -1..1, and one-sided bounds of it."""

    difference: float
    low: float
    high: float


def share_limits(k: float, n: float, alpha: float) -> tuple[float, float]:
    """The exact one-sided limits of the share k of n, each with the error alpha: Clopper and Pearson (1934)."""
    low = float(betaincinv(k, n - k + 1, alpha)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1.0 - alpha)) if k < n else 1.0
    return low, high


def lower(wins: float, losses: float, n: float, alpha: float) -> float:
    """The lower end alone; counts need not be whole."""
    first, second = wins / n, losses / n
    down = first - share_limits(wins, n, alpha)[0]
    up = share_limits(losses, n, alpha)[1] - second
    spread = (1.0 - first) * (1.0 - second)
    correlation = -math.sqrt(first * second / spread) if spread > 0 else 0.0
    return max(-1.0, first - second - math.sqrt(down**2 + up**2 - 2.0 * correlation * down * up))


def paired_bound(wins: float, losses: float, n: float, alpha: float = 0.05, alpha_high: float | None = None) -> Bound:
    """One-sided bounds of a difference of two accuracies on the same images.

    It combines the exact limits of the two shares (Clopper and Pearson, Biometrika 26 (1934)) by the method of variance
    estimates recovery with the correlation of the two cells of a multinomial: Zou and Donner, Stat. Med. 27 (2008);
    Newcombe, Stat. Med. 17 (1998), 2635-2650, for paired proportions. Without wins it is Clopper and Pearson's own:
    with nothing changed, 1 - alpha**(1 / n).

    It was chosen by its exact error, summed over all outcomes at error 5 % (its test does so): at most 5.0 % whatever
    the two shares. Tango's score bound (Stat. Med. 17 (1998), 891-908) errs in up to 7.6 %, Bonett and Price's adjusted
    Wald bound in up to 9.1 % of the cases that docs/experiments/gate_error.py sums up: both where few images are
    discordant, which is where a gate lives. Reports show the same bound, at 2.5 % on either side.

    Args:
        alpha: chance that the lower bound lies above the truth, at most.
        alpha_high: the same of the upper bound; ``alpha`` where it is None.

    Raises:
        ValueError: the counts do not fit, or an alpha lies outside 0..0.5.
    """
    upper = alpha if alpha_high is None else alpha_high
    if min(wins, losses) < 0 or n < 1 or wins + losses > n:
        raise ValueError(f"{wins} wins and {losses} losses do not fit {n} images")
    if not (0.0 < alpha <= 0.5 and 0.0 < upper <= 0.5):
        raise ValueError(f"an error of {alpha} and {upper} makes no sense")
    return Bound((wins - losses) / n, lower(wins, losses, n, alpha), -lower(losses, wins, n, upper))
