"""Rows that ran elsewhere than asked keep their figures, and take no part in comparisons."""

from collections.abc import Callable
from dataclasses import replace

from bench_fakes import Recorder, fake_case

from bench.analysis.table import load_frame
from bench.record.run_folder import RunFolder
from bench.report.sentences import summary
from bench.report.tables import tables

FAST, SLOW = {"latency_ns": "1000000"}, {"latency_ns": "2000000"}


def test_figures_of_a_fallback_are_kept_beside_its_reason(run_cases: Callable[..., tuple[RunFolder, Recorder]]) -> None:
    fallback = {"fault": "fallback"}
    cases = [
        fake_case("accuracy", 4, **fallback),
        fake_case("accuracy", 4),
        fake_case(**fallback, **FAST),
        fake_case(**SLOW),
        replace(fake_case(**SLOW), precision="int8"),
    ]
    folder, _ = run_cases(*cases, budget_seconds=0.5)
    frame = load_frame(folder.path).set_index("case_id")
    scored, right, fast, slow, other = (frame.loc[case.case_id] for case in cases)
    assert (scored["status"], fast["status"]) == ("fallback", "fallback")
    assert scored["top1_percent"] == right["top1_percent"]
    assert scored["reference_case_id"] == right["reference_case_id"] == cases[1].case_id
    assert scored["agreement_percent"] == 100.0
    assert (fast["latency_ns_p50"], fast["throughput_images_per_s"]) == (1e6, 1000.0)
    assert (fast["verdict"], fast["baseline_case_id"]) == ("", "")
    assert slow["baseline_case_id"] == other["baseline_case_id"] == cases[3].case_id, (
        "the first of the three fell back, and is no baseline"
    )
    assert "does not settle which is the fastest: fake cpu fp32, fake cpu int8" in summary(frame.reset_index())
    made = {table.title: table for table in tables(frame.reset_index())}
    not_ok = made["Not ok"]
    cells = [dict(zip(not_ok.header, row, strict=True)) for row in not_ok.rows]
    assert [(row["Top-1 %"] != "", row["p50 ms"]) for row in cells] == [(True, ""), (False, "1.00")]
    assert all("fall back" in row["Reason"] for row in cells)


def test_a_run_in_which_every_case_fell_back_has_figures_without_a_reference(run_cases):
    folder, _ = run_cases(fake_case("accuracy", 4, fault="fallback"), fake_case(fault="fallback"))
    frame = load_frame(folder.path)
    assert frame["top1_percent"].notna().tolist() == [True, False]
    assert (frame["reference_case_id"] == "").all()
    assert (frame["verdict"] == "").all()
    assert "lowest median" not in summary(frame)
