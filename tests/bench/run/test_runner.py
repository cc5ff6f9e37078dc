"""The runner on the fake backend."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from bench_fakes import HereWorker, Recorder, Scripted, fake_case

from bench.analysis.table import load_frame
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run.runner import Workers
from bench.worker import channel
from bench.worker.tasks.stream import LEAST_BATCHES
from bench.worker.tasks.throughput import PARTS_EVERY

RunCases = Callable[..., tuple[RunFolder, Recorder]]


def by_case(folder: RunFolder) -> dict[Case, CaseResult]:
    return {result.case: result for result in folder.case_results()}


def test_every_way_to_fail_is_a_row_and_harms_no_other(run_cases: RunCases) -> None:
    expected = {
        fake_case(seed="1"): Status.OK,
        fake_case(fault="sigkill"): Status.CRASHED,
        fake_case(fault="exit"): Status.CRASHED,
        fake_case(fault="memory"): Status.OOM,
        fake_case(fault="raise"): Status.FAILED,
        fake_case(fault="unavailable", fault_at="load"): Status.UNAVAILABLE,
        fake_case(fault="unsupported", fault_at="load"): Status.UNSUPPORTED,
        fake_case(fault="fallback"): Status.FALLBACK,
        fake_case(seed="2"): Status.OK,
    }
    folder, recorder = run_cases(*expected, processes=True)
    results = by_case(folder)
    assert {case: result.status for case, result in results.items()} == expected
    for case, result in results.items():
        assert bool(result.reason) == (expected[case] is not Status.OK)
    assert "SIGKILL" in results[fake_case(fault="sigkill")].reason
    assert "exit code 7" in results[fake_case(fault="exit")].reason
    assert len(recorder.ended) == len(expected)
    folder.merge_parts()
    measured = folder.samples().query("not warmup").groupby("case_id", observed=True).size()
    assert measured[fake_case(seed="1").case_id] >= 30
    assert measured[fake_case(seed="2").case_id] >= 30


def test_a_case_that_takes_too_long_ends_alone(run_cases: RunCases) -> None:
    hanging, good = fake_case("accuracy", batch=2), fake_case("accuracy", batch=4)
    workers = Workers(lambda case: HereWorker() if case == good else Scripted([channel.too_slow(0.5)]))
    folder, _ = run_cases(hanging, good, timeout_seconds=6.0, workers=workers)
    results = by_case(folder)
    assert results[hanging].status is Status.TIMEOUT
    assert "longer than 6 s; give a larger --timeout" in results[hanging].reason, "the limit, not what was left of it"
    assert results[good].status is Status.OK


def test_a_crash_in_the_middle_of_the_rounds_leaves_the_others_complete(run_cases: RunCases) -> None:
    # The fault comes in the measured rounds: 40 calls of warm-up, then 50 a slice.
    dying, good = fake_case(fault="sigkill", fault_call="200"), fake_case(seed="1")
    folder, _ = run_cases(dying, good, processes=True)
    results = by_case(folder)
    assert results[dying].status is Status.CRASHED
    assert results[good].status is Status.OK
    assert results[good].metrics["stop_reason"] == "budget"


def test_latency_cases_take_turns_and_report_the_times_they_were_told(run_cases: RunCases) -> None:
    slow, fast = fake_case(latency_ns="4000000"), fake_case(latency_ns="1000000", warmup_calls="30")
    folder, recorder = run_cases(slow, fast)
    samples = folder.samples()
    measured = samples[~samples["warmup"]].groupby("case_id", observed=True)["latency_ns"]
    assert measured.median().to_dict() == {slow.case_id: 4_000_000, fast.case_id: 1_000_000}
    assert measured.max()[fast.case_id] == 1_000_000, "the slow first calls are warm-up"
    rounds = samples[~samples["warmup"]].groupby("case_id", observed=True)["round"].agg(set)
    assert rounds[slow.case_id] == rounds[fast.case_id], "every round is complete"
    interleaved = recorder.turns[-40:]
    assert slow.case_id in interleaved
    assert fast.case_id in interleaved


def test_the_budget_ends_a_case_that_never_gets_precise(run_cases: RunCases) -> None:
    noisy = fake_case(noise="2", latency_ns="10000000")
    folder, _ = run_cases(noisy, budget_seconds=1.0)
    result = by_case(folder)[noisy]
    assert result.status is Status.OK
    assert result.metrics["stop_reason"] == "budget"


def test_accuracy_keeps_a_prediction_for_every_image_whatever_the_batch(run_cases: RunCases) -> None:
    whole, parts = fake_case("accuracy", batch=8), fake_case("accuracy", batch=3)
    folder, _ = run_cases(whole, parts)
    predictions = folder.predictions()
    one, other = (
        predictions[predictions["case_id"] == case.case_id].set_index("image_id").sort_index()
        for case in (whole, parts)
    )
    assert len(one) == len(other) == 8
    assert (one[["label", "top1", "top2", "top5"]] == other[["label", "top1", "top2", "top5"]]).all(axis=None)
    results = by_case(folder)
    assert results[whole].metrics["input_sha256"] == results[parts].metrics["input_sha256"]
    assert results[whole].metrics["peak_rss_bytes"] > 10_000_000


def test_throughput_counts_slices_of_a_stream(run_cases: RunCases) -> None:
    case = fake_case("throughput", batch=4, latency_ns="80000000", per_image_ns="5000000")
    folder, _ = run_cases(case, budget_seconds=10.0)
    samples = folder.samples()
    measured = samples[~samples["warmup"]]
    slices = measured[measured["stage"] == "end_to_end"]
    assert len(slices) >= 6
    assert slices["images"].min() == 4 * LEAST_BATCHES
    assert set(slices["latency_ns"] / slices["images"]) == {25_000_000}
    # Parts alone are timed seldom, and the fake clock moves with the backend alone.
    by_stage = measured.groupby("stage", observed=True)
    assert set(by_stage.groups) == {"end_to_end", "decode", "preprocess", "compute"}
    assert set(by_stage.size()[["decode", "preprocess", "compute"]]) == {-(-len(slices) // PARTS_EVERY)}
    assert set(measured[measured["stage"] == "compute"]["latency_ns"]) == {200_000_000}
    assert set(measured[measured["stage"] == "decode"]["latency_ns"]) == {0}
    row = load_frame(folder.path).iloc[0]
    assert row["stage"] == "end_to_end"
    assert row["n_samples"] == len(slices)
    assert row["throughput_images_per_s"] == pytest.approx(40.0)
    assert row["compute_images_per_s"] == pytest.approx(40.0)
    assert pd.isna(row["decode_images_per_s"]), "no time, no rate"
    assert (row["bound_by"], row["sum_of_parts_percent"]) == ("compute", pytest.approx(100.0))


def test_instances_work_side_by_side_and_count_the_images_of_all(run_cases: RunCases) -> None:
    latency = dataclasses.replace(fake_case(batch=4), instances=3)
    throughput = dataclasses.replace(fake_case("throughput", batch=4), instances=2)
    folder, _ = run_cases(latency, throughput, budget_seconds=1.0)
    results = by_case(folder)
    assert results[latency].status is results[throughput].status is Status.OK
    assert results[latency].proof["instances"] == 3
    assert results[latency].proof["process_threads"] >= 2, "instances are called from threads of their own"
    images = folder.samples().groupby("case_id", observed=True)["images"].agg(set)
    assert images[latency.case_id] == {12}
    assert {count % 8 for count in images[throughput.case_id]} == {0}, "every slot has equally many batches"


def test_where_memory_has_no_room_groups_are_chained_by_the_case_they_are_compared_with(run_cases: RunCases) -> None:
    cases = [fake_case(latency_ns=str(5_000_000 + 500_000 * number), seed=str(number)) for number in range(4)]
    folder, recorder = run_cases(*cases, budget_seconds=8.0, workers=Workers(has_room=lambda pids, more: False))
    assert {result.status for result in folder.case_results()} == {Status.OK}
    samples = folder.samples()
    rounds = samples[~samples["warmup"]].groupby("case_id", observed=True)["round"].agg(set)
    first, *others = (rounds[case.case_id] for case in cases)
    assert first == set.union(*others), "the first takes part in all groups"
    for number, own in enumerate(others):
        assert own
        assert all(own.isdisjoint(other) for other in others[number + 1 :]), "no two of the others lived at once"
    assert [result.case for result in recorder.ended[:2]] == cases[1:3], "each is let go when its group is done"


def test_rounds_are_watched_and_have_slices_of_one_length(run_cases: RunCases) -> None:
    first, second = fake_case(seed="1"), fake_case(seed="2")
    folder, _ = run_cases(first, second, watch=True, budget_seconds=8.0)
    rounds, samples = folder.rounds(), folder.samples().query("not warmup")
    assert set(rounds["scenario"]) == {"latency"}
    assert rounds["round"].tolist() == list(range(len(rounds)))
    assert set(samples["round"]) == set(rounds["round"])
    counts = samples.groupby(["round", "case_id"], observed=True).size().unstack()
    assert (counts[first.case_id] == counts[second.case_id]).all(), "calls of 1 ms fill slices of one length"
    assert counts[first.case_id].between(50, 101).all()
    assert counts[first.case_id].nunique() > 5, "of another length in every round"


def test_rounds_of_a_resumed_run_go_on_counting(run_cases: RunCases) -> None:
    folder, _ = run_cases(fake_case(), watch=True)
    taken = len(folder.rounds())
    run_cases(fake_case(seed="7"), folder=folder, watch=True)
    assert folder.rounds()["round"].tolist() == list(range(len(folder.rounds())))
    later = folder.samples()
    later = later[(later["case_id"] == fake_case(seed="7").case_id) & ~later["warmup"]]
    assert later["round"].min() == taken


def test_an_interrupted_run_keeps_what_finished_and_resume_does_the_rest(run_cases: RunCases, tmp_path: Path) -> None:
    first, second, third = (fake_case("accuracy", batch=size) for size in (2, 3, 4))
    stopping = fake_case("accuracy", batch=5, fault="interrupt")
    with pytest.raises(KeyboardInterrupt):
        run_cases(first, stopping, second, third, processes=True)
    folder = RunFolder.open(tmp_path / "run")
    statuses = {result.case: result.status for result in folder.case_results()}
    assert statuses == {
        first: Status.OK,
        stopping: Status.INTERRUPTED,
        second: Status.INTERRUPTED,
        third: Status.INTERRUPTED,
    }
    before = {result.case: result for result in folder.case_results()}[first]
    _, recorder = run_cases(first, second, third, folder=folder)
    assert [case.batch for case in recorder.started] == [3, 4], "what was done is not done again"
    after = {result.case: result for result in folder.case_results()}
    assert after[first] == before
    assert after[second].status is after[third].status is Status.OK
    folder.merge_parts()
    assert folder.predictions().groupby("case_id", observed=True).size().tolist() == [8, 8, 8]
