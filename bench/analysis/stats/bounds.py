"""Exact-limit bounds of a difference of two accuracies on the same images. Pure: counts in, bounds out.

Two Cases on the same n images differ on ``wins`` (only the current one is right) and ``losses``. The
difference of top-1 is (wins - losses) / n. Its bound combines the exact limits of the two shares (Clopper and
Pearson, Biometrika 26 (1934)) by the method of variance estimates recovery with the correlation of the two cells
of a multinomial: Zou and Donner, Stat. Med. 27 (2008); Newcombe, Stat. Med. 17 (1998), 2635-2650, for paired
proportions. Without wins it is Clopper and Pearson's own: with nothing changed, 1 - alpha**(1 / n).

It was chosen by its exact error, summed over all outcomes at error 5 % (``test_bench_bounds.py``): at most 5.0 %
whatever the two shares. Tango's score bound (Stat. Med. 17 (1998), 891-908) errs in up to 7.6 %, Bonett and
Price's adjusted Wald bound, which describes differences elsewhere in this project, in up to 9.1 % of the cases that
docs/experiments/gate_error.py sums up: both where few images are discordant, which is where a gate lives.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from scipy.special import betaincinv


class Bound(NamedTuple):
    """The difference of top-1, current minus baseline, -1..1, and one-sided bounds of it."""

    difference: float
    low: float
    high: float


def _limits(k: float, n: float, alpha: float) -> tuple[float, float]:
    """Clopper and Pearson's one-sided limits of a share, each with the error alpha."""
    low = float(betaincinv(k, n - k + 1, alpha)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1.0 - alpha)) if k < n else 1.0
    return low, high


def lower(wins: float, losses: float, n: float, alpha: float) -> float:
    """The lower end alone; counts need not be whole."""
    first, second = wins / n, losses / n
    down = first - _limits(wins, n, alpha)[0]
    up = _limits(losses, n, alpha)[1] - second
    spread = (1.0 - first) * (1.0 - second)
    correlation = -math.sqrt(first * second / spread) if spread > 0 else 0.0
    return max(-1.0, first - second - math.sqrt(down**2 + up**2 - 2.0 * correlation * down * up))


def paired_bound(
    wins: float, losses: float, n: float, alpha: float = 0.05, alpha_high: float | None = None
) -> Bound:
    """One-sided bounds of a difference of two accuracies on the same images. See the top of this module.

    Args:
        wins: images that only the first has right.
        losses: images that only the second has right.
        n: all images.
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
