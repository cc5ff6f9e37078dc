"""bench.analysis.stats.lives against statsmodels, by hand, and on processes that differ."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.stats.lives import OverLives, clock_error, location, over_lives, throughput_interval

ORDER = (1, -1, -1, 1, 1, -1, 1)


def test_the_fit_is_least_squares_with_an_intercept_and_the_order() -> None:
    logs = np.random.default_rng(3).normal(0.02, 0.01, len(ORDER)) + 0.015 * np.array(ORDER)
    fit = sm.OLS(logs, np.column_stack([np.ones(len(ORDER)), ORDER])).fit()
    found = over_lives(logs, ORDER)
    low, high = np.exp(fit.conf_int()[0])
    assert (found.ratio, found.low, found.high) == pytest.approx((math.exp(fit.params[0]), low, high))
    assert found.start_effect == pytest.approx(math.expm1(fit.params[1]))
    assert found.spread == pytest.approx(math.sqrt(fit.scale))
    together = np.exp(fit.conf_int(0.05 / 4)[0])
    assert over_lives(logs, ORDER, comparisons=4)[1:3] == pytest.approx(tuple(together))


@pytest.mark.parametrize("order", [(), (1, -1, 1, -1), (1, 1, 1, 1, 1, -1), (1,) * 6])
def test_an_order_that_too_few_lives_show_is_not_fitted(order: tuple[int, ...]) -> None:
    logs = [0.01, 0.03, 0.02, 0.04, 0.05, 0.00][: len(order) or 6]
    low, high = np.exp(sm.stats.DescrStatsW(logs).tconfint_mean())
    found = over_lives(logs, order)
    assert found.start_effect is None
    assert (found.ratio, found.low, found.high) == pytest.approx((math.exp(np.mean(logs)), low, high))


def test_one_life_has_no_interval() -> None:
    assert over_lives([0.0], (1,)) == OverLives(1.0, None, None, None, None, 1)


def test_lives_that_agree_to_the_last_digit_have_a_width_still() -> None:
    times = [1031.0] * 60, [1000.0] * 60
    found = over_lives([math.log(1.031)] * 6, (1, -1) * 3, least_error=clock_error(*times))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.ratio < found.high
    # A clock of steps of 10 us on a call of 1 ms: its steps show in the times.
    coarse = clock_error([1_000_000, 1_010_000, 1_000_000], [1_000_000] * 3)
    assert coarse == pytest.approx(0.01 / math.sqrt(12), rel=1e-4)


@pytest.mark.parametrize(
    ("logs", "order", "comparisons"),
    [([], (), 1), ([0.0], (1, -1), 1), ([0.0, 0.0], (1, 0), 1), ([math.nan], (), 1), ([0.0], (), 0)],
)
def test_what_is_no_fit_is_refused(logs: list[float], order: tuple[int, ...], comparisons: int) -> None:
    with pytest.raises(ValueError, match=r"fit|finite|comparisons"):
        over_lives(logs, order, comparisons)


@given(st.lists(st.tuples(st.floats(-1, 1), st.sampled_from([-1, 1])), min_size=2, max_size=12))
def test_turning_the_ratio_over_turns_the_interval_over(lives: list[tuple[float, int]]) -> None:
    logs, order = zip(*lives, strict=True)
    found = over_lives(logs, order, least_error=1e-6)
    other = over_lives([-each for each in logs], [-each for each in order], least_error=1e-6)
    assert found.low is not None
    assert found.high is not None
    assert (1 / found.ratio, 1 / found.high, 1 / found.low) == pytest.approx(other[:3])
    assert other.start_effect == pytest.approx(found.start_effect)


def test_a_disturbed_round_does_not_move_a_life() -> None:
    assert location([0.01, 0.02, 0.03, 9.0, 0.0]) == 0.02
    assert location([0.0, 0.01, 0.03, 9.0, -9.0, 0.02, 0.02, 9.0]) == pytest.approx(0.02)
    assert [location([1.0]), location([1.0, 2.0]), location([1.0, 2.0, 9.0])] == [1.0, 1.5, 2.0]


def passes(correlation: float, n: int, seed: int) -> np.ndarray:
    """Times of passes, of mean 1, whose logarithms are autocorrelated."""
    source = np.random.default_rng(seed)
    logs = [source.normal()]
    for shock in source.normal(0, math.sqrt(1 - correlation**2), n - 1):
        logs.append(correlation * logs[-1] + shock)
    return np.exp(0.1 * np.array(logs) - 0.005)


@pytest.mark.parametrize(("correlation", "n"), [(0.0, 10), (0.0, 50), (0.3, 20), (0.5, 50)])
def test_the_interval_of_a_throughput_holds_it_where_passes_are_alike(correlation: float, n: int) -> None:
    covered = 0
    for seed in range(1000):
        interval = throughput_interval(np.full(n, 8), 1e9 * passes(correlation, n, seed))
        covered += 1e9 * interval.low <= 8 <= 1e9 * interval.high
    assert covered >= 925


@given(st.lists(st.floats(min_value=1e8, max_value=1e10), min_size=10, max_size=30))
def test_the_interval_of_a_throughput_scales_with_the_unit(times: list[float]) -> None:
    images = np.full(len(times), 64)
    found, scaled = (throughput_interval(images, each) for each in (times, np.array(times) * 1000))
    assert scaled is not None
    assert 0 < found.low < found.high
    if len(set(times)) > 1:
        assert scaled == (pytest.approx(found.low / 1000), pytest.approx(found.high / 1000))


def test_equal_passes_have_a_width_still_and_few_have_no_interval() -> None:
    found = throughput_interval([256] * 10, [2e9] * 10)
    assert found.low < 128e-9 < found.high
    assert throughput_interval([256] * 9, range(1, 10)) is None


@pytest.mark.parametrize(
    ("images", "time_ns", "message"),
    [
        ([1, 2], [1.0], "do not fit"),
        ([], [], "positive"),
        ([0], [1.0], "positive"),
        ([1], [-1.0], "positive"),
        ([1], [math.inf], "finite"),
    ],
)
def test_passes_that_make_no_sense_are_refused(images: list[int], time_ns: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        throughput_interval(images, time_ns)
