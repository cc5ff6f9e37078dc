"""Ticks that are round, scales, and numbers that are short."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report.charts.axes import known, positive, ticks

few = settings(max_examples=60, deadline=None)


@few
@given(st.floats(1e-6, 1e6), st.floats(1.0, 1e6))
def test_ticks_are_round_and_inside(low: float, ratio: float) -> None:
    high = low * ratio
    found = ticks(low, high)
    assert found == sorted(set(found))
    assert len(found) <= 25
    if ratio > 1.001:
        assert len(found) >= 3
        assert low * (1 - 1e-5) <= found[0]
        assert found[-1] <= high * (1 + 1e-5)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.0, 9.0, [1, 1.5, 2, 3, 5, 7]),
        (0.9, 210.0, [1, 3, 10, 30, 100]),
        (0.9, 90.0, [1, 3, 10, 30]),
        (0.9, 21.0, [1, 2, 5, 10, 20]),
        (0.5, 1.1, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1]),
        (0.01, 5e5, [0.01, 0.1, 1, 10, 100, 1000, 10000, 100000]),
    ],
)
def test_ticks_of_some_ranges(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


def test_a_wide_range_is_logarithmic_and_nothing_below_zero_is() -> None:
    assert positive(1.0, 2.0, "ms")["scale"].to_dict() == {"zero": False}
    assert positive(0.0, 200.0, "ms")["scale"].to_dict() == {"zero": False}
    wide = positive(1.0, 200.0, "ms")["scale"].to_dict()
    assert wide["type"] == "log"
    low, high = wide["domain"]
    assert low < 1.0 < 200.0 < high
    assert positive(2.0, 2.0, "ms", wide=1.0)["scale"].to_dict()["domain"][0] < 2.0


def test_unknown_values_are_left_out_and_numbers_are_short() -> None:
    assert known(a=None, b=float("nan"), c=float("inf"), d=1.23456789, e=[1 / 3], f="x", g=0, h=7) == {
        "d": 1.23457,
        "e": [0.333333],
        "f": "x",
        "g": 0,
        "h": 7,
    }
