"""Pure statistics of timings and of paired predictions: numbers in, numbers out.

Timings are skewed, have several modes and heavy tails, so nothing here assumes a distribution of theirs:
quantiles are bounded by order statistics, ratios are paired by round and bounded by the sign test. Every
interval that rests on the binomial distribution covers at least what it promises (its true coverage is a
little larger, because ranks are whole numbers)."""

from __future__ import annotations

import functools
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
    (1941): 299 samples for p99 and 2,995 for p99.9 at 95 %.

    Args:
        q: the quantile, between 0 and 1.
        confidence: between 0 and 1.
    """
    check_share("q", q)
    check_share("confidence", confidence)
    return math.ceil(math.log(1.0 - confidence) / math.log(max(q, 1.0 - q)))


def binomial_quantile(p: float, n: int, q: float) -> int:
    """The smallest k with P(B <= k) >= p, for B binomial with n trials of chance q."""
    low, high = 0, n
    while low < high:
        middle = (low + high) // 2
        if bdtr(middle, n, q) >= p:
            high = middle
        else:
            low = middle + 1
    return low


@functools.lru_cache(maxsize=4096)
def quantile_ranks(n: int, q: float, confidence: float = CONFIDENCE) -> tuple[int, int] | None:
    """Ranks, from 1, of the two order statistics that enclose a quantile, or None where n is too small.

    The number of samples at or under the true quantile is binomial(n, q). The ranks leave at most half of
    1 - confidence on either side. David and Nagaraja, "Order Statistics", 3rd ed. (2003), section 7.1.
    """
    check_share("q", q)
    check_share("confidence", confidence)
    tail = (1.0 - confidence) / 2.0
    low = binomial_quantile(tail, n, q)
    high = binomial_quantile(1.0 - tail, n, q) + 1
    return (low, high) if low >= 1 and high <= n else None


def quantile_interval(samples: ArrayLike, q: float, confidence: float = CONFIDENCE) -> Interval | None:
    """The order-statistic interval of a quantile, without any assumption on the distribution.

    Its coverage is at least ``confidence`` for independent samples, ties included. The median needs six
    samples at 95 %; far quantiles need more than ``min_samples_for_quantile``, which asks for one bound and
    not for two.

    Args:
        samples: any shape, any unit, finite.
        q: the quantile, between 0 and 1.
        confidence: between 0 and 1.

    Returns:
        None where there are too few samples.

    Raises:
        ValueError: a sample is not finite, or ``q`` or ``confidence`` lies outside 0..1.
    """
    values = checked(samples)
    ranks = quantile_ranks(len(values), q, confidence)
    if ranks is None:
        return None
    low, high = ranks[0] - 1, ranks[1] - 1
    ordered = np.partition(values, (low, high))
    return Interval(float(ordered[low]), float(ordered[high]))


def sign_test_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval | None:
    """The interval of a median that the sign test does not reject: order statistics again, at q = 1/2.

    Meant for paired differences or log ratios, one a round. Conover, "Practical Nonparametric Statistics",
    3rd ed. (1999), section 3.2. None under six values at 95 %.
    """
    return quantile_interval(values, 0.5, confidence)


def ratio_interval(
    a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE, comparisons: int = 1
) -> RatioInterval:
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


def relative_half_width(samples: ArrayLike, confidence: float = CONFIDENCE) -> float | None:
    """Half the width of the median's interval over the median: 0.01 means "known to about 1 %".

    None where there is no interval yet, or the median is 0.
    """
    interval = quantile_interval(samples, 0.5, confidence)
    median = float(np.median(checked(samples))) if interval is not None else 0.0
    if interval is None or median == 0.0:
        return None
    return (interval.high - interval.low) / 2.0 / abs(median)


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


# With fewer passes coverage falls more than two points short even on mildly skewed times.
MIN_PASSES = 10

# Each end is a quantile of so many resamples: at 95 % its own noise is about 1 % of the width (normal pivots).
RESAMPLES = 4000


def throughput_interval(
    images: ArrayLike, time_s: ArrayLike, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval | None:
    """Images per second over passes, as a bootstrap-t interval of the time per image, turned over.

    Passes must be alike and independent: a machine that slows down over the run widens the interval and is not
    what it is about; compare Cases by their ratio per round.

    Args:
        images: images of each pass, ``(n,)``, positive.
        time_s: seconds of each pass, ``(n,)``, positive; any other unit gives images per that unit.
        confidence: between 0 and 1.
        seed: the same seed gives the same interval.

    Returns:
        None under ``MIN_PASSES`` passes, and where passes differ so much that no upper end can be named.

    Raises:
        ValueError: lengths differ, a value is not positive, or ``confidence`` lies outside 0..1.
    """
    check_share("confidence", confidence)
    work, time = checked(images), checked(time_s)
    if len(work) != len(time):
        raise ValueError(f"{len(work)} counts of images do not fit {len(time)} times")
    if not len(work) or min(work.min(), time.min()) <= 0:
        raise ValueError("a throughput needs positive counts and times")
    if len(work) < MIN_PASSES:
        return None
    picked = np.random.default_rng(seed).integers(0, len(work), (RESAMPLES, len(work)))
    ratio, error = _time_per_image(work[None], time[None])
    ratios, errors = _time_per_image(work[picked], time[picked])
    # A resample of one pass over and over has no error of its own, and says nothing of the spread.
    spread = errors > 1e-12 * ratios
    if error[0] <= 1e-12 * ratio[0] or not spread.any():
        return Interval(float(1.0 / ratio[0]), float(1.0 / ratio[0]))
    pivots = (ratios[spread] - ratio) / errors[spread]
    tail = (1.0 - confidence) / 2.0
    early, late = np.quantile(pivots, (tail, 1.0 - tail))
    fastest, slowest = float(ratio[0] - late * error[0]), float(ratio[0] - early * error[0])
    return Interval(1.0 / slowest, 1.0 / fastest) if fastest > 0 else None


def _time_per_image(
    work: NDArray[np.float64], time: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of times over sum of images of each row, and its standard error.

    The error is the linearised one of a ratio estimator: Cochran, "Sampling Techniques", 3rd ed. (1977), 2.11.
    """
    n = work.shape[1]
    ratio = time.sum(axis=1) / work.sum(axis=1)
    residual = time - ratio[:, None] * work
    return ratio, np.sqrt((residual**2).sum(axis=1) / (n * (n - 1))) / work.mean(axis=1)
