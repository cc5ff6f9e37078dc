"""bench.analysis.stats.lives against statsmodels, by hand, and on processes that differ."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.stats.lives import OverLives, clock_error, location, over_lives

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
