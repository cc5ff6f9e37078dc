"""Paired accuracies: the bound's exact error over all outcomes, and tests and intervals against published figures."""

import itertools
import math

import numpy as np
import pytest
import statsmodels.stats.power as sm_power
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from bench.analysis.stats import paired
from bench.analysis.stats.paired import lower, paired_bound, share_limits


def exact_error(n: int, win: float, loss: float, alpha: float, most: int) -> float:
    """The chance that the lower bound lies above the true difference, summed over all outcomes that matter."""
    error = 0.0
    for wins in range(most):
        chance = stats.binom.pmf(wins, n, win)
        if chance < 1e-9:
            continue
        losses = np.arange(min(most, n - wins + 1))
        chances = chance * stats.binom.pmf(losses, n - wins, loss / (1 - win))
        too_high = [lower(wins, int(lost), n, alpha) > win - loss + 1e-12 for lost in losses]
        error += float(chances[too_high].sum())
    return error


# Rare and frequent, one-sided and balanced: shares of images won and lost.
RARE = [(0.0, 1e-4), (0.0, 6e-4), (2e-5, 2e-4), (2e-4, 6e-4), (6e-4, 6e-4), (1e-3, 2e-3)]
FREQUENT = [(0.0, 0.3), (0.01, 0.02), (0.1, 0.4), (0.3, 0.3), (0.4, 0.1)]


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 8])
@pytest.mark.parametrize(("n", "shares"), [(5000, RARE), (60, FREQUENT)])
def test_the_bound_errs_no_more_often_than_it_says(n: int, shares: list[tuple[float, float]], alpha: float) -> None:
    errors = {share: exact_error(n, *share, alpha, 45 if n > 100 else n + 1) for share in shares}
    assert max(errors.values()) <= alpha, errors
    # Not by being useless: somewhere most of it is spent.
    assert max(errors.values()) > 0.6 * alpha, errors


@pytest.mark.parametrize("losses", [0, 1, 2, 3])
def test_without_wins_it_is_clopper_and_pearsons_limit(losses: int) -> None:
    n = 512
    limit = stats.binomtest(losses, n).proportion_ci(0.90, method="exact").high
    assert paired_bound(0, losses, n).low == pytest.approx(-limit, abs=1e-12)


def test_unchanged_images_bound_the_loss_by_the_rule_of_three() -> None:
    assert paired_bound(0, 0, 512).low == pytest.approx(-(1 - 0.05 ** (1 / 512)))
    assert -6000 * paired_bound(0, 0, 6000).low == pytest.approx(3.0, abs=0.01)


def test_exchanging_wins_and_losses_turns_the_bounds_around() -> None:
    first, second = paired_bound(7, 19, 800, 0.05, 0.01), paired_bound(19, 7, 800, 0.01, 0.05)
    assert (first.low, first.high) == pytest.approx((-second.high, -second.low))
    assert first.difference == -second.difference == -12 / 800


def test_coverage_and_power_in_simulation() -> None:
    """Drawn outcomes: the bound holds in at least 95 %, and passes as often as the normal approximation says."""
    source = np.random.default_rng(5)
    n, win, loss, margin, draws = 20_000, 0.004, 0.004, 0.002, 2000
    counts = source.multinomial(n, [win, loss, 1 - win - loss], draws)
    low = np.array([lower(int(won), int(lost), n, 0.05) for won, lost, _ in counts])
    assert (low <= win - loss).mean() >= 0.94
    error = np.sqrt((win + loss) / n)
    expected = stats.norm.cdf(margin / error - stats.norm.ppf(0.95))
    assert (low > -margin).mean() == pytest.approx(expected, abs=0.04)


@pytest.mark.parametrize("counts", [(-1, 0, 10), (0, -1, 10), (6, 6, 10), (0, 0, 0)])
def test_counts_that_do_not_fit_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        paired_bound(*counts)


@pytest.mark.parametrize("alpha", [0.0, 0.6])
def test_an_error_that_makes_no_sense_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        paired_bound(0, 0, 10, alpha)


def test_everything_lost_and_everything_won_stay_within_one() -> None:
    assert paired_bound(0, 5, 5).low == -1.0
    assert paired_bound(5, 0, 5).high == 1.0
    assert -1.0 <= paired_bound(0, 1, 1).low <= paired_bound(0, 1, 1).high <= 1.0


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_two_sided_binomial_test(wins, losses):
    expected = stats.binomtest(wins, wins + losses).pvalue if wins + losses else 1.0
    assert paired.exact_mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_counting_every_outcome():
    outcomes = [sum(flips) for flips in itertools.product((0, 1), repeat=12)]
    as_extreme = sum(1 for wins in outcomes if abs(wins - 6) >= abs(2 - 6))
    assert paired.exact_mcnemar(2, 10) == pytest.approx(as_extreme / 2**12)
    with pytest.raises(ValueError, match="negative"):
        paired.exact_mcnemar(-1, 3)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 500))
def test_the_bound_is_odd_and_holds_the_difference(wins, losses, others):
    n = max(1, wins + losses + others)
    difference, low, high = paired_bound(wins, losses, n, 0.025)
    assert -1 <= low <= difference <= high <= 1
    mirrored = paired_bound(losses, wins, n, 0.025)
    assert (low, high) == (pytest.approx(-mirrored.high), pytest.approx(-mirrored.low))


def test_counts_without_a_difference_are_refused():
    for wins, losses, n in [(3, 3, 5), (-1, 0, 5), (0, 0, 0)]:
        with pytest.raises(ValueError, match="do not fit"):
            paired_bound(wins, losses, n)


def test_a_report_shows_the_gates_bound():
    """Of 2,000 images without a discordant one the exact limit is 0.184 points: 1 - 0.025 ** (1 / 2000)."""
    right = np.arange(2000) % 2 == 0
    pair = paired.paired(right, right)
    assert (pair.low_points, pair.high_points) == (pytest.approx(-0.184, abs=0.001), pytest.approx(0.184, abs=0.001))
    assert -pair.low_points == pytest.approx(100 * (1 - 0.025 ** (1 / 2000)))
    other = np.where(np.arange(2000) < 30, ~right, right)
    bound, pair = paired_bound(15, 15, 2000, 0.025), paired.paired(right, other)
    assert pair.low_points == pytest.approx(100 * bound.low)
    assert pair.high_points == pytest.approx(100 * bound.high)


def test_ties_are_no_evidence_of_a_difference():
    base, other = np.ones(100, dtype=bool), np.arange(100) >= 10
    tied = np.arange(100) < 8
    assert paired.paired(base, other).p_value == pytest.approx(2 / 2**10)
    pair = paired.paired(base, other, tied)
    assert (pair.losses, pair.ties, pair.p_value) == (10, 8, 0.5)


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
    few, many = (paired.min_detectable_difference(n, share), paired.min_detectable_difference(4 * n, share))
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
        assert paired.exact_mcnemar(wins, losses) == pytest.approx(expected, rel=1e-9, abs=1e-300), (wins, losses)


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


def test_the_exact_limits_of_a_share():
    # Clopper and Pearson for 10 of 100, as tabled: 4.90 to 17.62 %.
    assert share_limits(10, 100, 0.025) == pytest.approx((0.0490, 0.1762), abs=5e-5)
    assert share_limits(0, 50, 0.025)[0] == 0.0
    assert share_limits(0, 50, 0.025)[1] == pytest.approx(1.0 - 0.025 ** (1 / 50))
    assert share_limits(50, 50, 0.025) == pytest.approx((0.025 ** (1 / 50), 1.0))
