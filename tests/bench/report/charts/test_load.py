"""The chart of latency against offered load."""

from pathlib import Path

import numpy as np
from bench_fakes import fake_case, run_on

from bench.analysis.table import load as load_run
from bench.record.case import Status
from bench.record.run_folder import CaseResult
from bench.report.charts.chart import Source
from bench.report.charts.throughput import load


def test_points_end_at_the_knee_and_tell_which_are_valid(image_folder: Path, tmp_path: Path) -> None:
    case = fake_case("server", 4)
    run = run_on(tmp_path / "run", image_folder, [case])
    tests = [
        {"round": number, "valid": rate < 90, "reason": "", "rate": rate, "latency_ns_p50": 2e6, "latency_ns_p99": p99}
        for number, (rate, p99) in enumerate([(60.0, 5e6), (120.0, 90e6), (80.0, 8e6), (90.0, 16e6)])
    ]
    told = {"tests": tests, "seconds": 1.0, "images": 64, "limit_ns": 9_000_000, "rate": 80.0, "rate_invalid": 90.0}
    n = {"round": np.full(2, 2), "images": np.ones(2, int), "warmup": np.zeros(2, bool)}
    run.write_samples_part(case.case_id, stage="query", latency_ns=np.full(2, 2_000_000), **n)
    run.append_case(CaseResult(case, Status.OK, stage="query", metrics={"load": told}))
    (chart,) = load(Source.open(load_run(run.path)))
    points = chart.data["rows"]
    assert [(point["rate"], point["p99"], point["verdict"]) for point in points] == [
        (60.0, 5.0, "VALID"),
        (80.0, 8.0, "VALID"),
        (90.0, 16.0, "INVALID"),
    ]
    assert {point["limit"] for point in points} == {9.0}
    assert "Highest valid rate: 80.0 by" in chart.alt
    assert chart.spec()["datasets"] == chart.data


def test_a_run_without_server_rows_has_none(image_folder: Path, tmp_path: Path) -> None:
    run = run_on(tmp_path / "run", image_folder)
    assert load(Source.open(load_run(run.path))) == []
