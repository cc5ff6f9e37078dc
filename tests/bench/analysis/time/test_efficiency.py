"""Shares of a machine's peak, by the textbook."""

import pytest

from bench.analysis.time.efficiency import gflop_per_s, peak_percent


def test_shares_of_the_peak() -> None:
    # SCARLET-C: 280,082,912 multiply-adds; 100 images a second are 56 GFLOP/s.
    reached = gflop_per_s(280_082_912, 100.0)
    assert reached == pytest.approx(56.0165824)
    peaks = [{"threads": 2, "gflop_per_s": {"fp32": 112.0331648}, "copy_gbyte_per_s": 10.0}]
    assert peak_percent(reached, "fp32", 2, peaks) == pytest.approx(50.0)
    assert peak_percent(reached, "fp32", 1, peaks) is None
    assert peak_percent(reached, "int8", 2, peaks) is None
