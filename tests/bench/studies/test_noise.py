"""The A/A run: its figures on made-up samples, and its driver on the fake backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bench_fakes import HereWorker, Recorder, fake_case, run_on, tiny_files
from noise_result import noise_result

from bench.backends.fake import Fake
from bench.record.case import Case, Status
from bench.record.machine import NoiseResult
from bench.record.run_folder import RunFolder
from bench.run.runner import Limits, Runner, Workers
from bench.studies import noise
from bench.studies.noise import REPETITION, SEQUENTIAL
from bench.worker import channel
from bench.worker.messages import Context
from scarlet.errors import BenchError

CASES = noise.noise_cases(fake_case("throughput", batch=4, latency_ns="1000000"))
FIRST, SECOND = (case.case_id for case in CASES)


def test_the_two_copies_differ_in_their_label_alone() -> None:
    first, second = CASES
    assert first != second
    assert replace(first, options=()) == replace(second, options=())
    assert (first.scenario, first.option("aa"), second.option("aa")) == ("latency", "a", "b")
    assert first.option("latency_ns") == "1000000", "the Case's own options stay"


# --- the figures --------------------------------------------------------------------------------------------


def samples_of(rows: list[tuple[str, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["case_id", "round", "latency_ns"])
    return frame.assign(case_id=frame["case_id"].astype("category"), warmup=False, stage="compute", images=1)


def repetition(number: int, ratios: list[float], sequential: float) -> list[tuple[str, int, int]]:
    """Rounds with these ratios of the first copy to the second, and blocks with that one."""
    base, rows = number * REPETITION, []
    for place, ratio in enumerate(ratios):
        rows += [(FIRST, base + place, round(1e6 * ratio)), (SECOND, base + place, 1_000_000)]
        rows += [(FIRST, base + SEQUENTIAL + place, round(1e6 * sequential))]
        rows += [(SECOND, base + SEQUENTIAL + len(ratios) + place, 1_000_000)]
    return rows


def test_the_figures_are_what_they_say() -> None:
    # Of twenty values the sign test's 95 % interval runs from the 6th to the 15th.
    first = repetition(0, [0.9] * 2 + [0.96] * 4 + [1.0] * 4, sequential=1.05)
    second = repetition(1, [1.002] * 10, sequential=0.97)
    found = noise.resolution_of(samples_of(first + second), CASES)
    assert found.interleaved == pytest.approx(1 / 0.96 - 1, rel=1e-6)
    assert found.interleaved_difference == pytest.approx(1 / 0.96 - 1, rel=1e-6)
    assert found.sequential_difference == pytest.approx(0.05, rel=1e-6)
    # Student's t with 2 degrees of freedom: 4.302653 at 97.5 % (any table).
    spread = math.sqrt((math.log(1.05) ** 2 + math.log(0.97) ** 2) / 2)
    assert found.sequential == pytest.approx(math.expm1(4.302653 * spread), rel=1e-6)
    spread = math.sqrt((math.log(0.96) ** 2 + math.log(1.002) ** 2) / 2)
    assert found.interleaved_short == pytest.approx(math.expm1(4.302653 * spread), rel=1e-6)
    assert (found.repetitions, found.rounds) == (2, 20)


def test_warm_up_does_not_count() -> None:
    samples = samples_of(repetition(0, [1.0] * 10, sequential=1.0))
    warm_up = samples.assign(latency_ns=9_000_000, warmup=True)
    before = samples[samples["case_id"] == FIRST].assign(latency_ns=9_000_000, round=-1)
    found = noise.resolution_of(pd.concat([before, samples, warm_up]), CASES)
    assert (found.interleaved, found.interleaved_short, found.sequential) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "0 rounds are too few"),
        (repetition(0, [1.0] * 5, 1.0), "5 rounds are too few"),
        ([row for row in repetition(0, [1.0] * 10, 1.0) if row[0] == FIRST], "lacks one"),
        ([row for row in repetition(0, [1.0] * 10, 1.0) if row[1] < SEQUENTIAL], "lacks one"),
    ],
)
def test_too_few_samples_are_refused(rows: list[tuple[str, int, int]], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        noise.resolution_of(samples_of(rows), CASES)


# --- the driver ---------------------------------------------------------------------------------------------


class SharedClock(Fake):
    """Copies of the fake backend on one clock, so that drift goes on while another copy works."""

    shared_ns = 0

    @property
    def _now_ns(self) -> int:
        return SharedClock.shared_ns

    @_now_ns.setter
    def _now_ns(self, value: int) -> None:
        if value:  # a new copy does not turn the clock back
            SharedClock.shared_ns = value


@pytest.fixture
def measure(
    tmp_path: Path, image_folder: Path, tiny_graph: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[NoiseResult, RunFolder]]:
    def run(
        base: Case, budget_seconds: float = 8.0, seed: int = 0, make_worker: Any = lambda case: HereWorker()
    ) -> tuple[NoiseResult, RunFolder]:
        monkeypatch.setattr("bench.backends.fake.Fake", SharedClock)
        SharedClock.shared_ns = 0
        cases = noise.noise_cases(base)
        folder = run_on(tmp_path / f"run-{seed}", image_folder, cases)
        context = Context(run=str(folder.path), data=str(image_folder), files=tiny_files(tiny_graph))
        limits = Limits(600.0, budget_seconds, seed)
        runner = Runner(folder, context, Recorder(), limits, Workers(make_worker), watch=seed == 0)
        result = noise.measure(runner, cases, {"load_1m": 0.5, "fingerprint": "cafe"})
        return result, folder

    return run


def test_under_drift_taking_turns_resolves_more_than_one_after_the_other(measure: Any) -> None:
    # 20 % slower by the end of the run's 8 seconds; both copies are the same.
    drifting = fake_case(latency_ns="5000000", drift="0.025", noise="0.02")
    result, folder = measure(drifting)
    found = result.resolution
    assert found.interleaved < 0.005, found
    assert found.sequential > 3 * found.interleaved_short, found
    assert found.sequential_difference > 0.01, found
    assert found.sequential_difference > 3 * found.interleaved_difference, found
    assert (result.model, result.backend, result.batch, result.load_1m) == ("onnx:tiny.onnx", "fake", 1, 0.5)
    assert {row.status for row in folder.case_results()} == {Status.OK}
    measured = folder.samples().query("not warmup")
    assert set(measured["round"]) == set(folder.rounds()["round"]), "every round and slice is watched"


def test_without_drift_or_noise_everything_can_be_resolved(measure: Any) -> None:
    result, folder = measure(fake_case(latency_ns="5000000"), budget_seconds=2.0)
    assert (result.resolution.interleaved, result.resolution.sequential) == (0.0, 0.0)
    assert result.resolution.repetitions == noise.REPETITIONS
    samples = folder.samples()
    measured = samples[samples["round"] >= 0]
    for _, part in measured.groupby(measured["round"] // REPETITION):
        alone = part[part["round"] % REPETITION >= SEQUENTIAL]
        turns = part[part["round"] % REPETITION < SEQUENTIAL]
        assert turns.groupby("round")["case_id"].nunique().eq(2).all(), "every round has both copies"
        assert alone.groupby("round")["case_id"].nunique().eq(1).all()
        order = alone.drop_duplicates("round").sort_values("round")["case_id"].astype(str).tolist()
        half = turns["round"].nunique()
        assert order == [order[0]] * half + [order[-1]] * half, "one copy, and then the other, for as long"
        assert order[0] != order[-1]


def test_what_breaks_is_an_error_that_says_why_and_leaves_no_worker(measure: Any) -> None:
    with pytest.raises(BenchError, match="ended early: RuntimeError: the fake backend was told to raise"):
        measure(fake_case(fault="raise"), seed=1)
    workers: list[HereWorker] = []

    def make(case: Case) -> HereWorker:
        workers.append(HereWorker(channel.dead(7, "no more") if workers else None))
        return workers[-1]

    with pytest.raises(BenchError, match="ended with exit code 7; its last words: no more"):
        measure(fake_case(), seed=2, make_worker=make)
    assert [worker.ended for worker in workers] == ["killed", "killed"]
    with pytest.raises(BenchError, match="longer than 600 s"):
        measure(fake_case(), seed=3, make_worker=lambda case: HereWorker(channel.too_slow(600)))


def test_the_text_names_both_ways() -> None:
    lines = noise.text(noise_result()).splitlines()
    assert "scarlet_c on onnxruntime against itself: cpu fp32 batch 1, 2 threads, load 0.25" in lines[0]
    assert lines[1].startswith("1.20% ")
    assert "240 rounds" in lines[1]
    assert "6th" in lines[2]
    assert lines[3].strip() == "2.10% in turns (the largest seen: 0.40%)"
    assert lines[4].strip() == "7.00% one after the other (the largest seen: 5.00%)"
    assert "1 thread\n" in noise.text(replace(noise_result(), threads=1, load_1m=None))
