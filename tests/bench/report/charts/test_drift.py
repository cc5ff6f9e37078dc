"""Rounds relative to their median, in blocks, with those that the host disturbed."""

import pandas as pd
import pytest

from bench.report.charts.drift import disturbed, in_blocks, reach, relative


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
    assert spans == [{"from": 0.5, "to": 2.5, "reason": "load, steal"}, {"from": 3.5, "to": 4.5, "reason": "steal"}]
    assert n == 3
    assert disturbed(table.iloc[:0], "latency", 8) == ([], 0)
