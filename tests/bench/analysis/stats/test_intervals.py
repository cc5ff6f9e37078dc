"""bench.analysis.stats.intervals against brute force, scipy, statsmodels, published examples, properties and
seeded simulations."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.stats import intervals

finite = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)
positive = st.floats(min_value=1e-3, max_value=1e9)


@pytest.mark.parametrize(
    ("q", "confidence", "expected"),
    [(0.99, 0.95, 299), (0.999, 0.95, 2995), (0.9, 0.95, 29), (0.5, 0.95, 5), (0.01, 0.95, 299), (0.99, 0.99, 459)],
)
def test_min_samples_is_the_first_count_whose_maximum_bounds_the_quantile(q, confidence, expected):
    assert intervals.min_samples_for_quantile(q, confidence) == expected
    beyond = max(q, 1 - q)
    assert beyond**expected <= 1 - confidence < beyond ** (expected - 1)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99, 1 - 0.05 / 11])
def test_ranks_are_the_tightest_with_half_of_the_error_in_each_tail(confidence):
    tail = (1 - confidence) / 2
    for n in [*range(1, 40), 300, 700, 5000]:
        cdf = scipy.stats.binom.cdf(np.arange(n + 1), n, 0.5)
        # Every rank tried: the largest low with P(B < low) <= tail, the smallest high with P(B >= high) <= tail.
        low = max((rank for rank in range(1, n + 1) if cdf[rank - 1] <= tail), default=0)
        high = min((rank for rank in range(1, n + 1) if 1 - cdf[rank - 1] <= tail), default=n + 1)
        expected = (low, high) if low >= 1 and high <= n else None
        assert intervals.sign_test_interval(range(1, n + 1), confidence) == expected, n


def test_published_median_interval_of_ten_samples():
    """Ranks 2 and 9 for ten samples at 95 % (coverage 97.9 %): tables of Conover, and of any sign test."""
    assert intervals.sign_test_interval(range(1, 11)) == (2, 9)


def test_median_needs_six_samples():
    assert intervals.sign_test_interval([1, 2, 3, 4, 5]) is None
    assert intervals.sign_test_interval([6, 2, 3, 1, 5, 4]) == (1, 6)
    assert intervals.sign_test_interval([]) is None


@given(st.lists(finite, min_size=6, max_size=80), st.sampled_from([0.8, 0.95]))
def test_interval_holds_the_median_and_consists_of_samples(samples, confidence):
    interval = intervals.sign_test_interval(samples, confidence)
    assert interval.low <= float(np.median(samples)) <= interval.high
    assert interval.low in samples
    assert interval.high in samples


@given(st.lists(finite, min_size=6, max_size=60))
def test_more_confidence_never_narrows(samples):
    wide, narrow = (intervals.sign_test_interval(samples, 0.96), intervals.sign_test_interval(samples, 0.8))
    assert wide.low <= narrow.low <= narrow.high <= wide.high


@pytest.mark.parametrize("bad", [[1.0, math.nan], [1.0, math.inf]])
def test_samples_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        intervals.sign_test_interval(bad * 10)


@pytest.mark.parametrize("share", [0.0, 1.0, math.nan])
def test_shares_outside_zero_to_one_are_refused(share):
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals.sign_test_interval(range(20), share)
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals.min_samples_for_quantile(share)
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals.min_samples_for_quantile(0.5, share)


def _lognormal(source, shape):
    return source.lognormal(0.0, 1.0, shape)


def _bimodal(source, shape):
    return np.where(source.random(shape) < 0.7, source.normal(10, 0.1, shape), source.normal(13, 0.3, shape))


def test_ratio_of_known_rounds():
    b = np.array([10.0, 20.0, 5.0, 8.0, 40.0, 11.0, 13.0])
    ratio, low, high = intervals.ratio_interval(b * np.array([2.0, 2.0, 2.0, 1.9, 2.1, 2.2, 1.8]), b)
    assert ratio == pytest.approx(2.0)
    assert (low, high) == (pytest.approx(1.8), pytest.approx(2.2))


def test_ratio_without_enough_rounds_has_no_interval():
    ratio, low, high = intervals.ratio_interval([2.0] * 5, [1.0] * 5)
    assert ratio == pytest.approx(2.0)
    assert low is None
    assert high is None


@given(st.lists(st.tuples(positive, positive), min_size=6, max_size=40))
def test_swapping_gives_the_reciprocal(pairs):
    a, b = zip(*pairs, strict=True)
    forward, backward = intervals.ratio_interval(a, b), intervals.ratio_interval(b, a)
    assert forward.low is not None
    assert backward.high is not None
    assert forward.ratio * backward.ratio == pytest.approx(1.0)
    assert forward.low * backward.high == pytest.approx(1.0)
    assert forward.low <= forward.ratio * (1 + 1e-12)


@given(st.lists(positive, min_size=6, max_size=40), st.floats(min_value=0.1, max_value=10))
def test_a_drift_that_hits_both_cancels(drift, factor):
    slowed = np.array(drift)
    assert intervals.ratio_interval(slowed * factor, slowed).ratio == pytest.approx(factor)


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0, 2.0]), ([], []), ([0.0], [1.0]), ([1.0], [-1.0])])
def test_rounds_that_do_not_pair_are_refused(a, b):
    with pytest.raises(ValueError, match=r"pair up|positive"):
        intervals.ratio_interval(a, b)


def test_ratio_interval_covers_at_nominal_or_more_under_drift():
    source, repeats, covered = np.random.default_rng(11), 3000, 0
    drift = np.linspace(1.0, 1.5, 20)
    for _ in range(repeats):
        a = 1.05 * drift * source.lognormal(0, 0.1, 20)
        _, low, high = intervals.ratio_interval(a, drift * source.lognormal(0, 0.1, 20))
        assert low is not None
        assert high is not None
        covered += low <= 1.05 <= high
    assert 0.95 <= covered / repeats <= 0.97


def test_modified_z_counts_what_the_textbook_formula_counts():
    samples = np.array([3.2, 3.3, 3.1, 3.25, 3.15, 3.2, 9.0, 3.3, 0.1])
    median = np.median(samples)
    mad = np.median(np.abs(samples - median))
    scores = 0.6745 * np.abs(samples - median) / mad
    assert intervals.modified_z_outliers(samples) == int((scores > 3.5).sum()) == 2


def test_modified_z_when_most_samples_are_equal():
    assert intervals.modified_z_outliers([5.0] * 99 + [50.0]) == 1
    assert intervals.modified_z_outliers([5.0] * 99) == 0
    assert intervals.modified_z_outliers([]) == 0


@pytest.mark.parametrize("comparisons", [1, 2, 5, 11])
def test_bonferroni_shares_the_error_among_the_comparisons(comparisons):
    source = np.random.default_rng(2)
    a, b = source.lognormal(0, 0.1, 50), source.lognormal(0, 0.1, 50)
    shared = intervals.ratio_interval(a, b, 0.95, comparisons)
    assert shared == intervals.ratio_interval(a, b, 1 - 0.05 / comparisons)
    assert intervals.ratio_interval(a, b).low >= shared.low
    with pytest.raises(ValueError, match="0 comparisons"):
        intervals.ratio_interval(a, b, comparisons=0)


def test_bonferroni_needs_more_rounds():
    rounds = np.arange(1.0, 9.0)
    assert intervals.ratio_interval(rounds, rounds).low is not None
    assert intervals.ratio_interval(rounds, rounds, comparisons=11).low is None  # 2 * 0.5**8 > 0.05 / 11


@pytest.mark.parametrize("draw", [_lognormal, _bimodal], ids=["skewed", "bimodal"])
@pytest.mark.parametrize("rounds", [10, 24, 60])
def test_ratio_interval_covers_the_median_ratio_of_skewed_and_bimodal_times(draw, rounds):
    """Both sides have the same distribution, so that the median of the ratio is exactly 1."""
    a, b = draw(np.random.default_rng(13), (2, 2000, rounds))
    found = [intervals.ratio_interval(*pair) for pair in zip(a, b, strict=True)]
    assert sum(each.low <= 1.0 <= each.high for each in found) / len(found) >= 0.94


@pytest.mark.parametrize("draw", [_lognormal, _bimodal], ids=["skewed", "bimodal"])
def test_five_ratios_to_one_baseline_hold_together(draw):
    """They share the baseline's noise: Bonferroni does not mind."""
    source, repeats, held = np.random.default_rng(17), 800, 0
    for _ in range(repeats):
        baseline, *others = draw(source, (6, 30))
        found = [intervals.ratio_interval(other, baseline, comparisons=5) for other in others]
        held += all(each.low <= 1.0 <= each.high for each in found)
    assert held / repeats >= 0.94


@pytest.mark.parametrize("icc", [0.0, 0.3, 0.7, 0.9])
def test_effective_samples_are_those_of_the_intraclass_correlation(icc):
    source, (rounds, calls) = np.random.default_rng(6), (400, 15)
    state = source.normal(0, math.sqrt(icc), (rounds, 1))
    logs = state + source.normal(0, math.sqrt(1 - icc), (rounds, calls))
    found = intervals.effective_samples(np.exp(0.1 * logs), np.repeat(np.arange(rounds), calls))
    assert found == pytest.approx(rounds * calls / (1 + (calls - 1) * icc), rel=0.1)


def test_effective_samples_are_those_of_statsmodels_with_rounds_of_any_length():
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    source, counts = np.random.default_rng(7), [3, 5, 8, 5, 12, 7]
    rounds = np.repeat(np.arange(6), counts)
    logs = source.normal(0, 0.2, 6)[rounds] + source.normal(0, 0.1, len(rounds))
    table = anova_lm(ols("y ~ C(g)", pd.DataFrame({"y": logs, "g": rounds})).fit())
    between, within = table["mean_sq"]
    per_round = (40 - sum(each**2 for each in counts) / 40) / 5
    icc = (between - within) / (between + (per_round - 1) * within)
    found = intervals.effective_samples(np.exp(logs), rounds)
    assert found == pytest.approx(40 / (1 + (40 / 6 - 1) * icc))


def test_one_call_a_round_is_a_sample_and_one_round_is_one():
    assert intervals.effective_samples([1.0, 2.0, 3.0], [0, 1, 2]) == 3
    assert intervals.effective_samples([1.0, 2.0, 3.0], [0, 0, 0]) == 1
    assert intervals.effective_samples([2.0] * 6, [0, 0, 0, 1, 1, 1]) == 6
