"""Pure statistics of timings and of paired predictions: numbers in, numbers out.

Timings are skewed, have several modes and heavy tails, so nothing here assumes a distribution of theirs:
ratios are paired by round, and medians and ratios are bounded by the sign test. Every
interval that rests on the binomial distribution covers at least what it promises of independent samples (its true
coverage is a little larger, because ranks are whole numbers). Calls of one round are not independent, and rounds share
the process that they were taken in: ``effective_samples`` and ``bench.analysis.stats.lives`` are for that."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

CONFIDENCE = 0.95

# Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (1993): the cut, and the constants that make the
# median and the mean absolute deviation estimate the standard deviation of normal data (0.6745 = 1 / 1.4826).
MODIFIED_Z_LIMIT = 3.5
MAD_FACTOR = 1.4826
MEAN_AD_FACTOR = 1.253314


class Interval(NamedTuple):
    """A confidence interval, both ends included, in the unit of its samples."""

    low: float
    high: float


class RatioInterval(NamedTuple):
    """A ratio and its interval; the ends are None where there are too few rounds to have one."""

    ratio: float
    low: float | None
    high: float | None


def checked(samples: ArrayLike) -> NDArray[np.float64]:
    """The samples as one row of finite floats; ValueError where one is not finite."""
    values = np.asarray(samples, dtype=np.float64).ravel()
    if not np.isfinite(values).all():
        raise ValueError("samples must be finite numbers")
    return values


def check_share(name: str, value: float) -> None:
    """ValueError where the value does not lie between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie between 0 and 1, and is {value}")


def min_samples_for_quantile(q: float, confidence: float = CONFIDENCE) -> int:
    """The fewest samples with which a quantile may be stated.

    With n independent samples the chance that none lies beyond the quantile is q**n; the largest (for q under
    one half, the smallest) sample bounds the quantile with the wanted confidence once that is at most 1 -
    confidence. Wilks, "Determination of sample sizes for setting tolerance limits", Ann. Math. Statist. 12
    (1941): 299 samples for p99 and 2,995 for p99.9 at 95 %. Both lie between 0 and 1.
    """
    check_share("q", q)
    check_share("confidence", confidence)
    return math.ceil(math.log(1.0 - confidence) / math.log(max(q, 1.0 - q)))


def sign_test_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval | None:
    """The interval of a median that the sign test does not reject, without any assumption on the distribution.

    The number of samples at or under the true median is binomial(n, 1/2); the two order statistics leave at most half
    of 1 - confidence on either side. Its coverage is at least ``confidence`` for independent samples, ties included.
    Meant for paired differences or log ratios, one a round. Conover, "Practical Nonparametric Statistics", 3rd ed.
    (1999), section 3.2; David and Nagaraja, "Order Statistics", 3rd ed. (2003), section 7.1.

    Args:
        values: any shape, any unit, finite.
        confidence: between 0 and 1.

    Returns:
        None where there are too few values: under six at 95 %.

    Raises:
        ValueError: a value is not finite, or ``confidence`` lies outside 0..1.
    """
    check_share("confidence", confidence)
    ordered = np.sort(checked(values))
    n, tail = len(ordered), (1.0 - confidence) / 2.0
    low, high = np.searchsorted(bdtr(np.arange(n + 1), n, 0.5), (tail, 1.0 - tail))
    return Interval(float(ordered[low - 1]), float(ordered[high])) if low >= 1 and high < n else None


def ratio_interval(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE, comparisons: int = 1) -> RatioInterval:
    """The median of a / b over rounds, with its sign-test interval on the log ratio.

    Pairing by round cancels whatever slows both alike. Swapping a and b gives exactly the reciprocals.
    With k comparisons shown together each interval gets the confidence 1 - (1 - confidence) / k, so that all
    of them hold at once with at least ``confidence``, however they depend on each other (Bonferroni; Dunn,
    "Multiple comparisons among means", JASA 56 (1961)).

    Args:
        a: one positive value a round, of the same unit as ``b``.
        b: the values of the same rounds, in the same order.
        confidence: between 0 and 1, of all comparisons together.
        comparisons: how many such intervals are shown together, at least 1.

    Raises:
        ValueError: the lengths differ, there is no round, a value is not positive, or ``comparisons`` is not.
    """
    if comparisons < 1:
        raise ValueError(f"there cannot be {comparisons} comparisons")
    first, second = checked(a), checked(b)
    if len(first) != len(second) or not len(first):
        raise ValueError(f"rounds must pair up: {len(first)} against {len(second)} values")
    if first.min() <= 0 or second.min() <= 0:
        raise ValueError("a ratio needs positive values")
    logs = np.log(first) - np.log(second)
    ratio = math.exp(float(np.median(logs)))
    interval = sign_test_interval(logs, 1.0 - (1.0 - confidence) / comparisons)
    if interval is None:
        return RatioInterval(ratio, None, None)
    return RatioInterval(ratio, math.exp(interval.low), math.exp(interval.high))


def effective_samples(times: ArrayLike, rounds: ArrayLike) -> float:
    """How many independent samples these are worth: n / (1 + (m - 1) ICC), with m calls a round.

    Calls of one round share the machine's state. The share of the variance that lies between rounds (ICC, the
    intraclass correlation) is that of a one-way analysis of variance of the logarithms; where it comes out below 0 it
    is 0. Kish, "Survey Sampling" (1965), section 5.4; m for rounds of different lengths as in Donner and Koval (1980).

    Args:
        times: of each call, above 0, at least one, in any unit.
        rounds: the number of each call's round.
    """
    logs = np.log(checked(times))
    _, index, counts = np.unique(np.asarray(rounds), return_inverse=True, return_counts=True)
    n, k = len(logs), len(counts)
    if k < 2 or n == k:
        return float(k)
    means = np.bincount(index, logs) / counts
    between = float((counts * (means - logs.mean()) ** 2).sum()) / (k - 1)
    within = float(((logs - means[index]) ** 2).sum()) / (n - k)
    per_round = (n - float((counts**2).sum()) / n) / (k - 1)
    total = between + (per_round - 1.0) * within
    icc = max(0.0, (between - within) / total) if total else 0.0
    return n / (1.0 + (n / k - 1.0) * icc)


def modified_z_outliers(samples: ArrayLike, limit: float = MODIFIED_Z_LIMIT) -> int:
    """How many samples lie more than ``limit`` robust standard deviations from the median.

    Iglewicz and Hoaglin (1993): |x - median| / (1.4826 MAD) > 3.5. Where more than half of the samples are
    equal the MAD is 0 and the mean absolute deviation stands in. Outliers are counted and never removed.
    """
    values = checked(samples)
    if not len(values):
        return 0
    distance = np.abs(values - np.median(values))
    scale = MAD_FACTOR * float(np.median(distance)) or MEAN_AD_FACTOR * float(distance.mean())
    return int(np.count_nonzero(distance > limit * scale)) if scale else 0
