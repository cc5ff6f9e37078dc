"""bench.analysis.stats.intervals against brute force, scipy, statsmodels, published examples, properties and
seeded simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats
import statsmodels.stats.power as sm_power
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.weightstats import DescrStatsW

from bench.analysis.stats import intervals, paired

finite = st.floats(min_value=-1e9, max_value=1e9, allow_nan=False)
positive = st.floats(min_value=1e-3, max_value=1e9)


@pytest.mark.parametrize(
    ("q", "confidence", "expected"),
    [
        (0.99, 0.95, 299),
        (0.999, 0.95, 2995),
        (0.9, 0.95, 29),
        (0.5, 0.95, 5),
        (0.01, 0.95, 299),
        (0.99, 0.99, 459),
    ],
)
def test_min_samples_is_the_first_count_whose_maximum_bounds_the_quantile(q, confidence, expected):
    assert intervals.min_samples_for_quantile(q, confidence) == expected
    beyond = max(q, 1 - q)
    assert beyond**expected <= 1 - confidence < beyond ** (expected - 1)


@pytest.mark.parametrize("q", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_ranks_are_the_tightest_with_half_of_the_error_in_each_tail(q, confidence):
    tail = (1 - confidence) / 2
    for n in [*range(1, 40), 300, 700, 5000]:
        cdf = scipy.stats.binom.cdf(np.arange(n + 1), n, q)
        # Every rank tried: the largest low with P(B < low) <= tail, the smallest high with P(B >= high) <=
        # tail.
        low = max((rank for rank in range(1, n + 1) if cdf[rank - 1] <= tail), default=0)
        high = min((rank for rank in range(1, n + 1) if 1 - cdf[rank - 1] <= tail), default=n + 1)
        expected = (low, high) if low >= 1 and high <= n else None
        assert intervals.quantile_ranks(n, q, confidence) == expected, (n, q)


def test_published_median_interval_of_ten_samples():
    """Ranks 2 and 9 for ten samples at 95 % (coverage 97.9 %): tables of Conover, and of any sign test."""
    assert intervals.quantile_interval(range(1, 11), 0.5) == (2, 9)


def test_median_needs_six_samples():
    assert intervals.quantile_interval([1, 2, 3, 4, 5], 0.5) is None
    assert intervals.quantile_interval([6, 2, 3, 1, 5, 4], 0.5) == (1, 6)
    assert intervals.quantile_interval([], 0.5) is None


@given(st.lists(finite, min_size=6, max_size=80), st.sampled_from([0.8, 0.95]))
def test_interval_holds_the_median_and_consists_of_samples(samples, confidence):
    interval = intervals.quantile_interval(samples, 0.5, confidence)
    assert interval is not None
    assert interval.low <= float(np.median(samples)) <= interval.high
    assert interval.low in samples
    assert interval.high in samples


@given(st.lists(finite, min_size=6, max_size=60))
def test_more_confidence_never_narrows(samples):
    wide, narrow = (
        intervals.quantile_interval(samples, 0.5, 0.96),
        intervals.quantile_interval(samples, 0.5, 0.8),
    )
    assert wide is not None
    assert narrow is not None
    assert wide.low <= narrow.low <= narrow.high <= wide.high


@pytest.mark.parametrize("bad", [[1.0, math.nan], [1.0, math.inf]])
def test_samples_that_are_no_numbers_are_refused(bad):
    with pytest.raises(ValueError, match="finite"):
        intervals.quantile_interval(bad * 10, 0.5)


@pytest.mark.parametrize(
    ("q", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.5, 0.0), (0.5, 1.0), (math.nan, 0.95)]
)
def test_shares_outside_zero_to_one_are_refused(q, confidence):
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals.quantile_interval(range(20), q, confidence)
    with pytest.raises(ValueError, match="between 0 and 1"):
        intervals.min_samples_for_quantile(q, confidence)


def _lognormal(source, shape):
    return source.lognormal(0.0, 1.0, shape)


def _bimodal(source, shape):
    return np.where(source.random(shape) < 0.7, source.normal(10, 0.1, shape), source.normal(13, 0.3, shape))


@pytest.mark.parametrize(
    ("draw", "quantile"),
    [
        (_lognormal, lambda q: float(scipy.stats.lognorm.ppf(q, 1.0))),
        (_bimodal, lambda q: float(np.quantile(_bimodal(np.random.default_rng(99), 4_000_000), q))),
    ],
    ids=["skewed", "bimodal"],
)
@pytest.mark.parametrize(("q", "n"), [(0.5, 31), (0.9, 100), (0.99, 1000)])
def test_coverage_of_quantile_intervals_is_conservative_and_close(draw, quantile, q, n):
    """The exact coverage is 95 % to 98 % at these sizes, and the simulation meets it."""
    truth, repeats = quantile(q), 4000
    samples = draw(np.random.default_rng(7), (repeats, n))
    covered = 0
    for row in samples:
        interval = intervals.quantile_interval(row, q)
        assert interval is not None
        covered += interval.low <= truth <= interval.high
    low, high = intervals.quantile_ranks(n, q) or (0, 0)
    exact = scipy.stats.binom.cdf(high - 1, n, q) - scipy.stats.binom.cdf(low - 1, n, q)
    assert 0.95 <= exact <= 0.98
    assert covered / repeats == pytest.approx(exact, abs=0.012)


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


def test_relative_half_width():
    assert intervals.relative_half_width([100.0] * 50) == 0.0
    assert intervals.relative_half_width([98, 99, 100, 100, 101, 102]) == pytest.approx(0.02)
    assert intervals.relative_half_width([1.0, 2.0]) is None
    assert intervals.relative_half_width([0.0] * 10) is None


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


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_two_sided_binomial_test(wins, losses):
    expected = scipy.stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert paired.exact_mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_counting_every_outcome():
    outcomes = [sum(flips) for flips in itertools.product((0, 1), repeat=12)]
    as_extreme = sum(1 for wins in outcomes if abs(wins - 6) >= abs(2 - 6))
    assert paired.exact_mcnemar(2, 10) == pytest.approx(as_extreme / 2**12)
    with pytest.raises(ValueError, match="negative"):
        paired.exact_mcnemar(-1, 3)


@pytest.mark.parametrize(
    ("wins", "losses", "n", "low", "high"),
    [
        # Bonett and Price's worked example as computed by the R package statpsych (ci.prop.ps: 0.2548067,
        # 0.6251933).
        (26, 4, 48, 0.2548067, 0.6251933),
        # Airway hyper-responsiveness, Fagerland, Lydersen and Laake, Stat. Med. 33 (2014), table V: -0.508 to
        # -0.013.
        (1, 7, 21, -0.508, -0.013),
    ],
)
def test_paired_difference_matches_published_examples(wins, losses, n, low, high):
    difference, found_low, found_high = paired.paired_difference_interval(wins, losses, n)
    assert difference == pytest.approx((wins - losses) / n)
    tolerance = 1e-7 if n == 48 else 1e-3
    assert found_low == pytest.approx(low, abs=tolerance)
    assert found_high == pytest.approx(high, abs=tolerance)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 500))
def test_paired_difference_is_odd_and_bounded(wins, losses, others):
    n = max(1, wins + losses + others)
    _, low, high = paired.paired_difference_interval(wins, losses, n)
    _, mirrored_low, mirrored_high = paired.paired_difference_interval(losses, wins, n)
    assert -1 <= low < high <= 1
    assert (low, high) == (pytest.approx(-mirrored_high), pytest.approx(-mirrored_low))


def test_counts_that_do_not_fit_are_refused():
    for wins, losses, n in [(3, 3, 5), (-1, 0, 5), (0, 0, 0)]:
        with pytest.raises(ValueError, match="do not fit"):
            paired.paired_difference_interval(wins, losses, n)


@pytest.mark.parametrize(
    ("n", "first", "second"), [(50, 0.1, 0.1), (200, 0.05, 0.02), (1000, 0.01, 0.02), (5000, 0.003, 0.003)]
)
def test_coverage_of_paired_difference_is_within_two_points(n, first, second):
    draws = np.random.default_rng(3).multinomial(n, [first, second, 1 - first - second], 6000)
    covered = 0
    for wins, losses, _ in draws:
        _, low, high = paired.paired_difference_interval(int(wins), int(losses), n)
        covered += low <= first - second <= high
    assert 0.93 <= covered / len(draws) <= 0.97


def test_min_detectable_difference_solves_connors_equation():
    difference = paired.min_detectable_difference(1000, 0.02)
    assert difference is not None
    needed = (1.959964 * math.sqrt(0.02) + 0.841621 * math.sqrt(0.02 - difference**2)) ** 2 / difference**2
    assert needed == pytest.approx(1000, rel=1e-5)


def test_min_detectable_difference_has_its_power_in_a_simulation():
    n, share = 2000, 0.05
    difference = paired.min_detectable_difference(n, share)
    assert difference is not None
    chances = [(share + difference) / 2, (share - difference) / 2, 1 - share]
    draws = np.random.default_rng(5).multinomial(n, chances, 2000)
    found = sum(paired.exact_mcnemar(int(wins), int(losses)) <= 0.05 for wins, losses, _ in draws)
    assert found / len(draws) == pytest.approx(0.80, abs=0.05)  # the exact test is a little conservative


@settings(max_examples=60)
@given(st.integers(50, 50_000), st.floats(0.01, 0.5))
def test_more_images_resolve_smaller_differences(n, share):
    few, many = (
        paired.min_detectable_difference(n, share),
        paired.min_detectable_difference(4 * n, share),
    )
    if few is not None:
        assert many is not None
        assert many < few <= share
        assert many == pytest.approx(few / 2, rel=0.1)


def test_min_detectable_difference_at_the_edges():
    assert paired.min_detectable_difference(1000, 0.0) == 0.0
    assert paired.min_detectable_difference(5, 0.1) is None
    assert paired.min_detectable_difference(1, 0.5, confidence=0.99, power=0.5) is None
    for n, share in [(0, 0.1), (10, -0.1), (10, 1.5)]:
        with pytest.raises(ValueError, match="make no sense"):
            paired.min_detectable_difference(n, share)


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


# --- paired accuracy against statsmodels and scipy, on random tables ----------------------------------------


def _random_tables(seed, count=60):
    """(wins, losses, n) of tables of any size up to 50,000 images, lopsided and even, sparse and dense."""
    source = np.random.default_rng(seed)
    tables = []
    for _ in range(count):
        n = int(10 ** source.uniform(0.5, np.log10(50_000)))
        share, lean = 10 ** source.uniform(-4, -0.1), source.uniform()
        chances = [share * lean, share * (1 - lean), 1 - share]
        wins, losses, _ = source.multinomial(n, chances)
        tables.append((int(wins), int(losses), n))
    return tables


def _two_by_two(source, wins, losses, n):
    """A full table, rows the first and columns the second: both right, first only, second only, both wrong."""
    both_right = int(source.integers(0, n - wins - losses + 1))
    return np.array([[both_right, wins], [losses, n - wins - losses - both_right]])


@pytest.mark.parametrize("seed", range(4))
def test_mcnemar_agrees_with_statsmodels_on_random_tables(seed):
    source = np.random.default_rng(100 + seed)
    for wins, losses, n in _random_tables(seed):
        expected = mcnemar(_two_by_two(source, wins, losses, n), exact=True).pvalue
        assert paired.exact_mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9, abs=1e-300), (
            wins,
            losses,
        )


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("seed", range(2))
def test_paired_interval_agrees_with_statsmodels_and_scipy_on_random_tables(seed, confidence):
    """Bonett and Price: the z interval of the mean of the paired differences, after one win and one loss more."""
    for wins, losses, n in _random_tables(10 + seed):
        found = paired.paired_difference_interval(wins, losses, n, confidence)
        weights = np.array([wins + 1, losses + 1, n - wins - losses], dtype=float)
        values = np.array([1.0, -1.0, 0.0])
        differences = np.repeat(values, weights.astype(int))
        scale = differences.std() / math.sqrt(n + 2)
        low, high = scipy.stats.norm.interval(confidence, differences.mean(), scale)
        assert (found.low, found.high) == (pytest.approx(max(-1, low)), pytest.approx(min(1, high)))
        # statsmodels takes the sample's variance, over n + 1 instead of n + 2.
        described = DescrStatsW(values, weights)
        low, high = described.zconfint_mean(alpha=1 - confidence)
        half = (high - low) / 2 * math.sqrt((n + 1) / (n + 2))
        assert found.low == pytest.approx(max(-1, described.mean - half))
        assert found.high == pytest.approx(min(1, described.mean + half))


@pytest.mark.parametrize(("confidence", "power"), [(0.95, 0.8), (0.99, 0.9), (0.8, 0.5)])
def test_min_detectable_difference_agrees_with_statsmodels_on_random_tables(confidence, power):
    """Its power and sample size for a test whose variance differs under the null and the alternative."""
    asked = 0
    for wins, losses, n in _random_tables(20):
        share = (wins + losses) / n
        difference = paired.min_detectable_difference(n, share, confidence, power) if share else None
        if difference is None or difference == share:
            continue
        asked += 1
        tail = (1 - confidence) / 2
        spread = math.sqrt(share), math.sqrt(share - difference**2)
        found = sm_power.normal_power_het(difference, n, tail, *spread, alternative="larger")
        assert found == pytest.approx(power, abs=1e-9)
        needed = sm_power.normal_sample_size_one_tail(difference, power, tail, *spread)
        assert needed == pytest.approx(n, rel=1e-9)
    assert asked > 20
