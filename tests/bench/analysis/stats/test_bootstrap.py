"""bench.analysis.stats.intervals: coverage by seeded simulation, and what must hold for any passes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.stats import intervals

times = st.lists(st.floats(min_value=0.1, max_value=10.0), min_size=10, max_size=30)


@pytest.fixture
def quick(monkeypatch):
    """A quarter of the resamples: coverage is a fraction of a point lower, and the test four times as fast."""
    monkeypatch.setattr(intervals, "RESAMPLES", 1000)


def lognormal(sigma):
    return lambda source, n: source.lognormal(-(sigma**2) / 2, sigma, n)


def bimodal(source, n):
    return np.where(source.random(n) < 0.3, source.normal(1.21, 0.03, n), source.normal(0.91, 0.01, n))


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("draw", "n"),
    [(lognormal(0.3), 10), (lognormal(0.3), 40), (lognormal(0.5), 40), (bimodal, 10), (bimodal, 40)],
    ids=["skewed-10", "skewed-40", "very-skewed-40", "bimodal-10", "bimodal-40"],
)
def test_coverage_is_within_two_points_or_above(draw, n):
    source, repeats, covered = np.random.default_rng(4), 1500, 0
    for _ in range(repeats):
        images = source.integers(240, 257, n)
        interval = intervals.throughput_interval(images, draw(source, n) * images / 100.0)
        # The mean time of an image is 1/100: where no end could be named, nothing wrong was said either.
        covered += interval is None or interval.low <= 100.0 <= interval.high
    assert covered / repeats >= 0.93


def test_the_same_seed_gives_the_same_interval():
    images, time_s = [256] * 12, np.random.default_rng(0).lognormal(0, 0.1, 12)
    first, again, other = (intervals.throughput_interval(images, time_s, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    assert first.low == pytest.approx(other.low, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(times)
def test_the_interval_holds_the_throughput_and_scales_with_the_unit(time_s):
    images = np.full(len(time_s), 64)
    interval = intervals.throughput_interval(images, time_s)
    if interval is not None:
        assert 0 < interval.low <= 64 * len(time_s) / sum(time_s) * (1 + 1e-9)
        assert interval.high >= 64 * len(time_s) / sum(time_s) * (1 - 1e-9)
        scaled = intervals.throughput_interval(images, np.array(time_s) * 1000)
        assert scaled == (pytest.approx(interval.low / 1000), pytest.approx(interval.high / 1000))


def test_more_confidence_is_wider():
    images, time_s = [256] * 20, np.random.default_rng(0).lognormal(0, 0.2, 20)
    wide, narrow = (intervals.throughput_interval(images, time_s, each) for each in (0.99, 0.8))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_equal_passes_have_an_interval_of_no_width():
    assert intervals.throughput_interval([256] * 10, [2.0] * 10) == (128.0, 128.0)


def test_twice_the_images_in_twice_the_time_is_no_spread():
    low, high = intervals.throughput_interval([100, 200] * 5, [1.0, 2.0] * 5)
    assert low == pytest.approx(100.0)
    assert high == pytest.approx(100.0)


def test_few_passes_have_no_interval():
    assert intervals.throughput_interval([256] * 9, range(1, 10)) is None
    # One pass a thousand times as long as the others: nothing bounds the throughput from above.
    assert intervals.throughput_interval([1] * 10, [1.0] * 9 + [1000.0]) is None


@pytest.mark.parametrize(
    ("images", "time_s", "message"),
    [
        ([1, 2], [1.0], "do not fit"),
        ([], [], "positive"),
        ([0], [1.0], "positive"),
        ([1], [-1.0], "positive"),
        ([1], [math.inf], "finite"),
    ],
)
def test_what_makes_no_sense_is_refused(images, time_s, message):
    with pytest.raises(ValueError, match=message):
        intervals.throughput_interval(images, time_s)
