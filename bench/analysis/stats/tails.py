"""MLPerf's early-stopping estimate of a tail percentile: an upper bound, as submissions to it report.

The rule is that of MLPerf Inference's LoadGen (``early_stopping.cc``, ``results.cc``; mlcommons/inference).
With n queries and a percentile p let t be the largest number for which t or fewer of n queries would be slower
than the percentile with a chance under 1 - confidence, were each slower with chance 1 - p. The t-th largest
latency is the estimate: the percentile itself lies above it with at most that chance. LoadGen asks for t >= 1,
which takes 64 queries for p90 and 662 for p99. (One query fewer could be asked: the t-th largest is exceeded by
the percentile when *fewer* than t queries are slower. So the bound holds with a little more than it promises.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import bdtr

from bench.analysis.stats.intervals import binomial_quantile, check_share, checked

# LoadGen's constants.
CONFIDENCE = 0.99
TOLERANCE = 0.0


class TailEstimate(NamedTuple):
    """An early-stopping estimate in the unit of its samples; ``discarded`` larger samples lie above it."""

    value: float
    discarded: int


def _chance_of_slower(q: float, confidence: float, tolerance: float) -> float:
    check_share("q", q)
    check_share("confidence", confidence)
    check_share("q less the tolerance", q - tolerance)
    return 1.0 - q + tolerance


def early_stopping_estimate(
    samples: ArrayLike, q: float, confidence: float = CONFIDENCE, tolerance: float = TOLERANCE
) -> TailEstimate | None:
    """The estimate of a tail percentile that LoadGen would report.

    Args:
        samples: any shape, any unit, finite; their order does not matter.
        q: the percentile as a share, 0.9 or 0.99.
        confidence: that the true percentile is not larger.
        tolerance: take the percentile q - tolerance instead; LoadGen uses 0.

    Returns:
        None with fewer samples than ``early_stopping_samples``.

    Raises:
        ValueError: a sample is not finite, or a share lies outside 0..1.
    """
    chance = _chance_of_slower(q, confidence, tolerance)
    values = checked(samples)
    # The largest t with P(B <= t) < 1 - confidence lies one below the smallest k with P(B <= k) >= 1 - confidence.
    t = binomial_quantile(1.0 - confidence, len(values), chance) - 1
    if t < 1:
        return None
    place = len(values) - t
    return TailEstimate(float(np.partition(values, place)[place]), t - 1)


def early_stopping_samples(
    q: float, slower: int = 1, confidence: float = CONFIDENCE, tolerance: float = TOLERANCE
) -> int:
    """The fewest queries with which LoadGen allows ``slower`` of them to be slower than the bound.

    Args:
        q: the percentile as a share.
        slower: overlatency queries, at least 0. ``early_stopping_estimate`` needs the count for 1.
        confidence: between 0 and 1.
        tolerance: as there.

    Raises:
        ValueError: ``slower`` is negative, or a share lies outside 0..1.
    """
    chance = _chance_of_slower(q, confidence, tolerance)
    if slower < 0:
        raise ValueError("a count cannot be negative")

    def enough(n: int) -> bool:
        return bool(bdtr(slower, n, chance) < 1.0 - confidence)

    high = slower + 1
    while not enough(high):
        high *= 2
    low = slower
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
