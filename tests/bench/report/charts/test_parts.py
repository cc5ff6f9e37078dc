"""What charts are made of: the Pareto front, thinned distributions, blocks of rounds, ticks, names and looks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report.charts.accuracy import front
from bench.report.charts.axes import known, linear, logarithmic, positive, ticks
from bench.report.charts.bars import MOST_NAMED, Bars, height_of
from bench.report.charts.drift import disturbed, in_blocks, reach, relative
from bench.report.charts.ecdf import thinned
from bench.report.charts.looks import MOST_OF_TEXT, MOST_SERIES, clean, looks, names
from bench.report.charts.theme import SCREEN

few = settings(max_examples=60, deadline=None)
small = st.integers(0, 6).map(float)


def row(**changes: Any) -> dict[str, Any]:
    """What a name is made of."""
    return {
        "case_id": "0" * 10,
        "model": "scarlet_c",
        "weights": "official",
        "backend": "pytorch",
        "device": "cpu",
        "precision": "fp32",
        "pipeline": "dali",
        "batch": 1,
        "threads": 1,
        "instances": 1,
        "options": "",
        **changes,
    }


# --- the Pareto front ---------------------------------------------------------------------------------------


@few
@given(st.lists(st.tuples(small, small), max_size=12))
def test_the_front_is_what_no_other_point_beats(points: list[tuple[float, float]]) -> None:
    beaten = {
        place
        for place, (cost, worth) in enumerate(points)
        if any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points)
    }
    found = front(points)
    assert sorted(found) == sorted(set(range(len(points))) - beaten)
    assert [points[place] for place in found] == sorted(points[place] for place in found)


# --- distributions ------------------------------------------------------------------------------------------


@few
@given(st.integers(1, 3000), st.integers(5, 200), st.sampled_from([3, 10**9]))
def test_thinning_keeps_the_ends_and_the_median(n_samples: int, most: int, largest: int) -> None:
    ordered = np.sort(np.random.default_rng(n_samples).integers(1, largest, n_samples))
    values, shares = thinned(ordered, most)
    assert len(values) == len(shares) <= max(most, 1)
    assert (values[0], values[-1], shares[-1]) == (ordered[0], ordered[-1], 1.0)
    assert np.all(np.diff(shares) > 0)
    assert np.all(np.diff(values) >= 0)
    n = len(ordered)
    middles = {(n + 1) // 2 / n, (n // 2 + 1) / n}
    kept = dict(zip(shares.tolist(), values.tolist(), strict=True))
    assert np.mean([kept[share] for share in middles]) == np.median(ordered)
    # Every step that is kept is one of the whole distribution, at its own height.
    assert np.array_equal(ordered[np.round(shares * n).astype(int) - 1], values)


# --- rounds -------------------------------------------------------------------------------------------------


def test_rounds_are_relative_to_their_median_in_order() -> None:
    frame = relative({"a": {3: 10.0, 1: 8.0, 7: 12.0}, "b": {3: 2.0}})
    assert frame["a"].to_dict() == pytest.approx({1: -20.0, 3: 0.0, 7: 20.0})
    assert in_blocks(frame["b"], 5) == ([3.0], [0.0])


def test_few_rounds_are_drawn_as_they_are_and_many_in_blocks() -> None:
    assert in_blocks(pd.Series({1: -20.0, 3: 0.0, 7: 20.0}), 3) == ([1.0, 3.0, 7.0], [-20.0, 0.0, 20.0])
    middles, percent = in_blocks(pd.Series({round_: float(round_ >= 50) for round_ in range(100)}), 10)
    assert middles == [4.5 + 10.0 * block for block in range(10)]
    assert percent == [0.0] * 5 + [1.0] * 5
    assert len(in_blocks(pd.Series(1.0, range(101)), 10)[0]) <= 10


def test_a_few_rounds_far_out_do_not_flatten_the_others() -> None:
    calm = ([0.0], [-1.0, 1.0] * 100)
    assert reach([calm]) == (-2.0, 2.0, 0)
    low, high, beyond = reach([calm, ([0.0], [400.0])])
    assert (low, high, beyond) == (-2.0, 4.0, 1)
    assert reach([([0.0], [-30.0, 30.0])]) == (-30.0, 30.0, 0)


def test_disturbed_rounds_join_up_to_the_last_one_drawn() -> None:
    table = pd.DataFrame(
        [
            ("latency", 1, True, "load"),
            ("latency", 2, True, "load,steal"),
            ("latency", 4, True, "steal"),
            ("latency", 5, False, ""),
            ("latency", 9, True, "load"),
            ("throughput", 3, True, "load"),
        ],
        columns=["scenario", "round", "disturbed", "reason"],
    )
    spans, n = disturbed(table, "latency", 8)
    assert spans == [
        {"from": 0.5, "to": 2.5, "reason": "load, steal"},
        {"from": 3.5, "to": 4.5, "reason": "steal"},
    ]
    assert n == 3
    assert disturbed(table.iloc[:0], "latency", 8) == ([], 0)


# --- axes ---------------------------------------------------------------------------------------------------


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
    assert logarithmic(2.0, 2.0, "ms")["scale"].to_dict()["domain"][0] < 2.0


def test_unknown_values_are_left_out_and_numbers_are_short() -> None:
    assert known(a=None, b=float("nan"), c=float("inf"), d=1.23456789, e=[1 / 3], f="x", g=0, h=7) == {
        "d": 1.23457,
        "e": [0.333333],
        "f": "x",
        "g": 0,
        "h": 7,
    }


# --- names and looks ----------------------------------------------------------------------------------------


def test_texts_from_outside_become_one_short_line() -> None:
    assert clean("a\tb\x1b[1m\u202ec\ud800") == "a b [1mc"
    long = clean("onnx:" + "folder/" * 30 + "net.onnx")
    assert len(long) == MOST_OF_TEXT
    assert long.startswith("…")
    assert long.endswith("net.onnx")


def test_names_say_what_varies_and_no_more() -> None:
    assert names([row()]) == ("PyTorch FP32",)
    assert names([row(), row(backend="mine", precision="int8")]) == ("PyTorch FP32", "mine INT8")
    assert names([row(batch=1), row(batch=8)]) == ("PyTorch FP32 batch 1", "PyTorch FP32 batch 8")
    assert names([row(batch=1), row(batch=8)], without=("batch",)) == ("PyTorch FP32",) * 2
    assert names([row(options='{"a": "1"}'), row()]) == ("PyTorch FP32 a=1", "PyTorch FP32")
    cut = names([row(model=f"{letter}{'x' * 50}", case_id=letter * 10) for letter in "ab"])
    assert len(set(cut)) == 2


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pytorch", "onnxruntime", "tensorrt", "openvino", "fake", "mine"]),
            st.sampled_from(["fp32", "tf32", "fp16", "bf16", "int8"]),
            st.integers(1, 4),
        ),
        min_size=1,
        max_size=MOST_SERIES,
        unique=True,
    )
)
def test_no_two_rows_look_the_same(fields: list[tuple[str, str, int]]) -> None:
    rows = [row(backend=backend, precision=way, threads=threads) for backend, way, threads in fields]
    found = looks(rows)
    assert len({(look.colour, look.shape) for look in found.looks}) == len(rows)
    assert len({(look.colour, look.dash) for look in found.looks}) == len(rows)
    assert found.legend == found.names
    assert not found.by_backend


def test_too_many_rows_are_told_apart_by_backend() -> None:
    rows = [
        row(backend=backend, threads=threads) for backend in ("pytorch", "a", "b") for threads in range(9)
    ]
    found = looks(rows)
    assert found.by_backend
    assert found.entries == ("PyTorch", "a", "b")
    assert len(set(found.names)) == 27
    assert len({look.colour for look in found.looks}) == 3


def test_many_bars_lose_their_text() -> None:
    few, many = (Bars(SCREEN, n, linear("ms")) for n in (MOST_NAMED, MOST_NAMED + 1))
    assert (len(few.texts()), len(few.tracks())) == (2, 1)
    assert many.texts() == many.tracks() == []
    assert height_of(200) < 1500
    assert height_of(3) > height_of(2)
