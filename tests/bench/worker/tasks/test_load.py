"""LoadGen's scenarios: what a test leaves, and how a server's rate is found."""

import hashlib
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from bench_fakes import fake_case

from bench.analysis.time.quantiles import timing_columns
from bench.backends.base import Unavailable
from bench.backends.fake import Fake
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult
from bench.worker.messages import Context
from bench.worker.tasks.load import LoadTask, RateSearch
from tests.bench.worker.tasks.test_hand_over import context_of


@pytest.fixture
def context(image_folder: Path, tmp_path: Path) -> Context:
    ids = sorted(path.relative_to(image_folder).as_posix() for path in image_folder.rglob("*.JPEG"))
    context = replace(context_of(tmp_path / "run", 0), data=str(image_folder), load_seconds=0.02)
    context.run_folder.write_images((name, 0) for name in ids)
    return context


def taken(case: Case, context: Context, turns: int = 2) -> CaseResult:
    """The row of a Case of so many turns, its samples in place."""
    backend = Fake()
    backend.load(case, context.files)
    with closing(LoadTask(case, backend, context)) as task:
        while not task.turn(-1, 1_000_000).warm:
            pass
        for round_ in range(turns):
            if task.turn(round_, 0).done and case.scenario == "server":
                break
        outcome = task.finish("budget")
    result = CaseResult(case, Status.OK, stage=outcome.stage, metrics=outcome.metrics)
    return context.run_folder.append_case(result)


@pytest.mark.parametrize(("scenario", "batch", "images"), [("singlestream", 1, 1), ("multistream", 3, 8)])
def test_each_query_is_a_sample(context: Context, scenario: str, batch: int, images: int) -> None:
    result = taken(fake_case(scenario, batch), context)
    samples = context.run_folder.samples()
    assert set(samples["images"]) == {images}
    assert set(samples["stage"]) == {"query"}
    assert samples.groupby("round").size().min() >= 64, "what early stopping asks for"
    assert "invalid" not in result.metrics
    (row, notes), *_ = timing_columns(context.run_folder, [result], {}).values()
    assert row["loadgen"] == "VALID"
    assert row["latency_ns_p50"] > 0
    assert "2 of 2 tests valid, of 0.02 s" in notes[0]
    assert "600 s" in notes[0]


def test_offline_sends_all_at_once_and_its_logs_are_sealed(context: Context) -> None:
    result, folder = taken(fake_case("offline", 4), context), context.run_folder
    samples = folder.samples()
    assert list(samples["round"]) == [0, 1]
    assert samples["images"].min() > 4
    logs = result.metrics["loadgen_logs"]
    assert len(logs) == 4, "a summary and a detail of each test"
    assert all(hashlib.sha256((folder.path / name).read_bytes()).hexdigest() == logs[name] for name in logs)
    assert folder.case_results()[0].status is Status.OK
    name = next(iter(logs))
    (folder.path / name).write_text("Result is : VALID")
    assert folder.case_results()[0].reason == f"{name} was changed since it was written"
    (folder.path / name).unlink()
    assert folder.case_results()[0].reason == f"{name} is missing"


def test_a_server_within_its_limit_tells_queue_from_service(context: Context) -> None:
    result = taken(fake_case("server", 4, limit_us="10000000", delay_us="1"), context, turns=1)
    load = result.metrics["load"]
    assert load["limit_ns"] == 10_000_000_000
    assert load["rate"] == load["tests"][0]["rate"] > 0
    (row, _), *_ = timing_columns(context.run_folder, [result], {}).values()
    assert row["throughput_images_per_s"] == load["rate"]
    assert row["latency_ns_p50"] >= max(row["queue_ns_p50"], row["service_ns_p50"]) > 0
    assert row["n_samples"] >= 662


def test_a_limit_that_nothing_keeps_makes_the_row_invalid(context: Context) -> None:
    result = taken(fake_case("server", 1, limit_us="1"), context, turns=1)
    assert result.metrics["invalid"].startswith("LoadGen: INVALID: Reduce target QPS")


def test_an_error_of_the_backend_ends_the_turn(context: Context) -> None:
    with pytest.raises(RuntimeError, match="told to raise"):
        taken(fake_case("server", 2, fault="raise", fault_call="50"), context, turns=1)


def test_without_the_package_it_says_how_to_get_it(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(Unavailable, match="pip install mlcommons-loadgen"):
        LoadTask(fake_case("offline"), Fake(), context)


@pytest.mark.parametrize("most", [3.0, 70.0, 1234.5])
def test_a_search_encloses_the_highest_valid_rate(most: float) -> None:
    search = RateSearch(20.0)
    while not search.is_done:
        search.judge(search.rate <= most)
    assert search.low <= most < search.high <= 1.031 * search.low


def test_a_search_without_a_valid_rate_ends() -> None:
    search = RateSearch(100.0)
    while not search.is_done:
        search.judge(False)
    assert (search.low, search.tried) == (0.0, 4)
