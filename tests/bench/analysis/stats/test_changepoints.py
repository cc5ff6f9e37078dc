"""Changes of level: found where they are, and seldom where there are none."""

import numpy as np
import pytest

from bench.analysis.stats.changepoints import ChangePoint, change_points, newest_change


def noisy(*levels: tuple[float, int], seed: int, spread: float = 0.02) -> list[float]:
    random = np.random.default_rng(seed)
    return [float(level * np.exp(random.normal(0, spread))) for level, count in levels for _ in range(count)]


def test_a_step_is_found_where_it_is() -> None:
    (change,) = change_points(noisy((1.0, 8), (1.2, 8), seed=0), 0.03)
    assert change.index == 8
    assert change.after / change.before == pytest.approx(1.2, rel=0.03)
    assert change.p_value < 0.01


def test_two_steps_and_the_way_back() -> None:
    changes = change_points(noisy((1.0, 12), (1.5, 12), (1.0, 12), seed=1), 0.03)
    assert [change.index for change in changes] == [12, 24]
    assert changes[0].after / changes[0].before == pytest.approx(1.5, rel=0.05)
    assert changes[1].after / changes[1].before == pytest.approx(1 / 1.5, rel=0.05)


def test_false_alarms_are_as_rare_as_the_level_says() -> None:
    """200 series without a change: by chance 1 % of them have one; five or fewer is what 99.9 % of tries give."""
    alarms = sum(bool(change_points(noisy((1.0, 16), seed=seed), 0.0)) for seed in range(200))
    assert alarms <= 7


def test_a_change_too_small_to_matter_is_none() -> None:
    values = noisy((1.0, 20), (1.02, 20), seed=2, spread=0.001)
    assert change_points(values, 0.03) == []
    assert [change.index for change in change_points(values, 0.01)] == [20]


def test_one_wild_run_is_no_level() -> None:
    values = noisy((1.0, 14), seed=3)
    values[6] = 9.0
    assert change_points(values, 0.03) == []


@pytest.mark.parametrize("count", [0, 1, 5, 6, 9])
def test_too_few_runs_tell_nothing(count: int) -> None:
    half = count // 2
    assert change_points([1.0] * half + [2.0] * (count - half), 0.03) == []


def test_the_same_series_gives_the_same_answer() -> None:
    values = noisy((1.0, 9), (1.1, 9), seed=4)
    assert change_points(values, 0.03) == change_points(values, 0.03)
    assert isinstance(change_points(values, 0.03)[0], ChangePoint)


def test_equal_values_have_no_change() -> None:
    assert change_points([1.0] * 30, 0.0) == []


@pytest.mark.parametrize(("before", "found"), [(8, False), (9, True), (40, True)])
def test_a_step_of_the_newest_three_is_found_from_twelve_on(before: int, found: bool) -> None:
    values = noisy((1.0, before), (1.2, 3), seed=5)
    assert change_points(values, 0.03) == []
    change = newest_change(values, 0.03)
    assert (change is not None) == found
    if change:
        assert change.index == before
        assert change.after / change.before == pytest.approx(1.2, rel=0.05)


def test_newest_values_like_the_others_are_no_change() -> None:
    alarms = sum(newest_change(noisy((1.0, 20), seed=seed), 0.0) is not None for seed in range(1000))
    assert alarms <= 20
    wild = noisy((1.0, 30), seed=6)
    wild[-1] = 9.0
    assert newest_change(wild, 0.03) is None
    assert newest_change([1.0] * 30, 0.0) is None
    assert newest_change(noisy((1.0, 30), (1.01, 3), seed=7, spread=1e-4), 0.03) is None
    assert newest_change([1.0, 2.0, 3.0, 4.0], 0.0) is None


def test_a_zero_is_a_value_like_others() -> None:
    values = noisy((1.0, 30), seed=8)
    values[4] = 0.0
    assert change_points(values, 0.03) == []
    assert newest_change(values, 0.03) is None
    fell = newest_change([*noisy((1.0, 12), seed=9), 0.0, 0.0, 0.0], 0.03)
    assert fell.after == 0.0


@pytest.mark.parametrize(("correlation", "most"), [(0.3, 0.04), (0.6, 0.1)])
def test_false_alarms_of_values_that_are_alike_are_as_many_as_said(correlation: float, most: float) -> None:
    alarms = 0
    for seed in range(1000):
        values = np.random.default_rng(seed).standard_normal(60)
        for place in range(1, len(values)):
            values[place] = correlation * values[place - 1] + np.sqrt(1 - correlation**2) * values[place]
        alarms += newest_change(np.exp(0.05 * values[-30:]).tolist(), 0.0) is not None
    assert 0.01 < alarms / 1000 <= most
