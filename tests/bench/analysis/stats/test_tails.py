"""bench.analysis.stats.tails against the rule written out, LoadGen's published counts, and seeded simulations."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.stats import tails


def chance_of_at_most(t, n, slower):
    """The binomial sum, in exact fractions."""
    return sum(math.comb(n, k) * slower**k * (1 - slower) ** (n - k) for k in range(t + 1))


@pytest.mark.parametrize(
    ("q", "slower", "expected"),
    [
        # LoadGen's least counts for a single-stream estimate.
        (0.90, 1, 64),
        (0.99, 1, 662),
        # Its server scenario without any overlatency query.
        (0.90, 0, 44),
        (0.99, 0, 459),
    ],
)
def test_published_counts_of_queries(q, slower, expected):
    assert tails.early_stopping_samples(q, slower) == expected


@pytest.mark.parametrize(("q", "slower"), [(Fraction(9, 10), 3), (Fraction(97, 100), 2), (Fraction(1, 2), 5)])
def test_counts_are_the_first_that_the_exact_sum_allows(q, slower):
    n = tails.early_stopping_samples(float(q), slower)
    assert chance_of_at_most(slower, n, 1 - q) < Fraction(1, 100) <= chance_of_at_most(slower, n - 1, 1 - q)


@pytest.mark.parametrize("n", [64, 65, 200, 662, 1500])
@pytest.mark.parametrize("q", [Fraction(9, 10), Fraction(99, 100)])
def test_the_estimate_discards_as_many_as_the_rule_tried_one_by_one(n, q):
    samples = np.random.default_rng(n).permutation(n).astype(float)
    allowed = 0
    while chance_of_at_most(allowed + 1, n, 1 - q) < Fraction(1, 100):
        allowed += 1
    estimate = tails.early_stopping_estimate(samples, float(q))
    if allowed == 0:
        assert estimate is None
    else:
        assert estimate == (n - allowed, allowed - 1)  # the values are 0 to n - 1: the t-th largest is n - t


@settings(max_examples=60, deadline=None)
@given(st.integers(64, 3000), st.floats(0.6, 0.95), st.floats(0.0, 0.05))
def test_a_tolerance_asks_for_a_lower_percentile(n, q, tolerance):
    samples = np.arange(n)
    plain, tolerant = (tails.early_stopping_estimate(samples, q, tolerance=each) for each in (0.0, tolerance))
    if plain is not None:
        assert tolerant is not None
        assert tolerant.value <= plain.value
    assert tolerant == tails.early_stopping_estimate(samples, q - tolerance)


@pytest.mark.parametrize("shape", ["lognormal", "bimodal"])
@pytest.mark.parametrize(("q", "n"), [(0.9, 64), (0.9, 500), (0.99, 662)])
def test_the_estimate_bounds_the_percentile_as_often_as_promised(shape, q, n):
    source, repeats = np.random.default_rng(2), 3000
    samples = source.lognormal(0, 1, (repeats, n))
    truth = float(scipy.stats.lognorm.ppf(q, 1.0))
    if shape == "bimodal":
        # Each mode is spread evenly over 1, so that the percentile is known.
        slow = source.random((repeats, n)) < 0.15
        samples = np.where(slow, 20.0, 10.0) + source.random((repeats, n))
        truth = 20.0 + (q - 0.85) / 0.15
    bounded = sum(tails.early_stopping_estimate(row, q).value >= truth for row in samples)
    assert bounded / repeats >= 0.99 - 0.005


def test_too_few_samples_give_no_estimate():
    assert tails.early_stopping_estimate(range(63), 0.9) is None
    assert tails.early_stopping_estimate(range(64), 0.9) == (63.0, 0)
    assert tails.early_stopping_estimate([], 0.9) is None


def test_what_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="negative"):
        tails.early_stopping_samples(0.9, -1)
    for q, tolerance in [(1.0, 0.0), (0.5, 0.5), (0.9, -0.2)]:
        with pytest.raises(ValueError, match="between 0 and 1"):
            tails.early_stopping_estimate(range(100), q, tolerance=tolerance)
    with pytest.raises(ValueError, match="finite"):
        tails.early_stopping_estimate([math.nan] * 100, 0.9)
