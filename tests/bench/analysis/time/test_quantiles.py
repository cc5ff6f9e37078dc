"""Shares of a machine's peak, by the textbook."""

from dataclasses import replace

import pytest

from bench.analysis.time.quantiles import efficiency_columns
from bench.record.case import Case


def test_shares_of_the_peak() -> None:
    # SCARLET-C: 280,082,912 multiply-adds; 100 images a second are 56 GFLOP/s.
    peaks = [{"threads": 2, "gflop_per_s": {"fp32": 112.0331648}, "copy_gbyte_per_s": 10.0}]
    info = {"model_files": {"multiply_adds": 280_082_912}, "peaks": peaks}
    timed, columns = Case("scarlet_c", "demo", "pytorch", threads=2), {"latency_ns_p50": 1e7}
    whole = pytest.approx({"gflop_per_s": 56.0165824, "peak_percent": 50.0})
    assert efficiency_columns(timed, columns, info) == whole
    assert efficiency_columns(replace(timed, threads=1, instances=2, batch=4), {"latency_ns_p50": 8e7}, info) == whole
    passes = replace(timed, scenario="throughput")
    assert efficiency_columns(passes, {**columns, "compute_images_per_s": 100.0}, info) == whole
    for other in (replace(timed, threads=1), replace(timed, precision="int8"), replace(timed, device="cuda")):
        assert efficiency_columns(other, columns, info).keys() == {"gflop_per_s"}
    assert efficiency_columns(timed, {}, info) == efficiency_columns(timed, columns, {}) == {}
