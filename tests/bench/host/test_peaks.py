"""Peaks are measured, and shares of them computed, by the textbook."""

import itertools
import json
from dataclasses import asdict

import pytest
import torch

from bench.host import peaks as roofline


@pytest.fixture(autouse=True)
def _threads_stay():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_shortest_call_counts_and_there_are_three_at_least() -> None:
    took = iter([30, 10, 20])
    now = [0]

    def call() -> None:
        now[0] += next(took)

    assert roofline.shortest_ns(call, 0.0, lambda: now[0]) == 10
    assert roofline.shortest_ns(lambda: None, 0.0, lambda: 0) == 1, "a clock that stands still divides nothing by zero"


def test_a_peak_is_operations_over_time() -> None:
    # This clock moves by one microsecond each time it is read: a call lasts one.
    ticks = itertools.count(step=1000)
    peak = roofline.measure_peak(1, ["fp32", "bf16", "fp32"], seconds=0.0, clock_ns=lambda: next(ticks))
    assert torch.get_num_threads() == 1
    assert peak.gflop_per_s["fp32"] == pytest.approx(2 * 1024**3 / 1000)
    assert peak.copy_gbyte_per_s == pytest.approx(2 * roofline.COPY_BYTES / 1000)
    assert json.loads(json.dumps(asdict(peak)))["threads"] == 1


def test_a_type_that_cannot_be_multiplied_has_no_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("not implemented for 'Char'")

    monkeypatch.setattr(torch, "_int_mm", refuse)
    assert "int8" not in roofline.measure_peak(1, ["int8"], seconds=0.0).gflop_per_s
