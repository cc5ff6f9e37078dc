"""The A/A run: its figures on made-up samples, and its driver on the fake backend."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import Clock, HereWorker, Recorder, fake_case, run_on, tiny_files
from noise_result import noise_result
from rich.console import Console

from bench.record.case import Case, Status
from bench.record.machine import NoiseResult
from bench.record.run_folder import CaseResult, RunFolder
from bench.run.runner import Limits, Runner, Workers
from bench.run.spec import RunSpec
from bench.studies import noise
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


def rows_and_times(ratios: list[list[float]]) -> tuple[list[CaseResult], dict[str, dict[int, float]]]:
    """Lives with rounds of these ratios of the first copy to the second."""
    flat = [ratio for life in ratios for ratio in life]
    firsts = [sum(map(len, ratios[:life])) for life in range(len(ratios))]
    metrics = {"lives": [{"first_round": first, "start_index": 0} for first in firsts]}
    rows = [CaseResult(case, Status.OK, stage="compute", metrics=metrics) for case in CASES]
    return rows, {FIRST: dict(enumerate(flat)), SECOND: dict.fromkeys(range(len(flat)), 1.0)}


def test_the_figures_are_what_they_say() -> None:
    found = noise.resolution_of(*rows_and_times([[0.9, *[0.96] * 8, 1.1], [1.002] * 10]))
    assert found.largest == pytest.approx(1 / 0.96 - 1, rel=1e-6)
    # Student's t with 2 degrees of freedom: 4.302653 at 97.5 % (any table).
    spread = math.sqrt((math.log(0.96) ** 2 + math.log(1.002) ** 2) / 2)
    assert found.interleaved == pytest.approx(math.expm1(4.302653 * spread), rel=1e-6)
    assert (found.lives, found.rounds) == (2, 20)


def test_a_new_pair_of_processes_stays_under_the_bound_as_often_as_promised() -> None:
    source, under, seeds = np.random.default_rng(3), 0, 2000
    for _ in range(seeds):
        of_processes = source.normal(0, 0.03, 7)
        lives = [np.exp(each + source.normal(0, 0.02, 20)).tolist() for each in of_processes]
        bound = noise.resolution_of(*rows_and_times(lives[:6])).interleaved
        under += abs(math.log(float(np.median(lives[6])))) <= math.log1p(bound)
    assert 0.935 <= under / seeds <= 0.965


@pytest.fixture
def measure(tmp_path: Path, image_folder: Path, tiny_graph: Path) -> Callable[..., tuple[NoiseResult, RunFolder]]:
    def run(base: Case, seed: int = 0, make_worker: Any = lambda case: HereWorker()) -> tuple[NoiseResult, RunFolder]:
        cases, clock = noise.noise_cases(base), Clock()
        folder = run_on(tmp_path / f"run-{seed}", image_folder, cases)
        context = Context(run=str(folder.path), data=str(image_folder), files=tiny_files(tiny_graph))
        workers = Workers(lambda case: clock.of(make_worker(case)), clock=clock)
        runner = Runner(folder, context, Recorder(), Limits(600.0, 12.0, seed, lives=6), workers, watch=seed == 0)
        activity = {"cpu_by_others_cores": 0.25}
        result = noise.measure(runner, cases, {"load_1m": 0.5, "fingerprint": "cafe", "activity": activity})
        return result, folder

    return run


def test_copies_that_do_not_differ_resolve_everything(measure: Any) -> None:
    result, folder = measure(fake_case(latency_ns="20000000"))
    found = result.resolution
    assert (found.interleaved, found.largest, found.lives) == (0.0, 0.0, noise.LIVES)
    assert (result.model, result.backend, result.batch) == ("onnx:tiny.onnx", "fake", 1)
    assert (result.load_1m, result.others_cores) == (0.5, 0.25)
    assert {row.status for row in folder.case_results()} == {Status.OK}
    measured = folder.samples().query("not warmup")
    assert found.rounds == measured["round"].nunique() == len(folder.rounds())


def test_what_processes_differ_by_is_in_the_figure(measure: Any) -> None:
    source = np.random.default_rng(7)

    class Unlike(HereWorker):
        """Slower by something of its own for as long as it lives."""

        def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
            answer = super().ask(request, timeout_seconds)
            if request["do"] == "start":
                self.worker._backend._told["latency_ns"] *= math.exp(source.normal(0, 0.02))  # type: ignore[union-attr]
            return answer

    result, _ = measure(fake_case(latency_ns="20000000"), make_worker=lambda case: Unlike())
    assert 0.02 < result.resolution.interleaved < 0.15


def test_what_breaks_is_an_error_that_says_why_and_leaves_no_worker(measure: Any) -> None:
    with pytest.raises(BenchError, match="ended early: RuntimeError: the fake backend was told to raise"):
        measure(fake_case(fault="raise"), seed=1)
    workers: list[HereWorker] = []

    def make(case: Case) -> HereWorker:
        workers.append(HereWorker(channel.dead(7, "no more") if workers else None))
        return workers[-1]

    with pytest.raises(BenchError, match="ended with exit code 7; its last words: no more"):
        measure(fake_case(), seed=2, make_worker=make)
    assert [worker.ended for worker in workers] == ["stopped", "killed"]
    with pytest.raises(BenchError, match="longer than 600 s"):
        measure(fake_case(), seed=3, make_worker=lambda case: HereWorker(channel.too_slow(600)))


def test_the_text_gives_the_figures() -> None:
    lines = noise.text(noise_result()).splitlines()
    assert "scarlet_c on onnxruntime against itself: cpu fp32 batch 1, 2 threads, load 0.25" in lines[0]
    assert lines[1].startswith("1.20% ")
    assert lines[2] == "6 pairs, 240 rounds; the largest difference seen: 0.40%"
    assert "1 thread\n" in noise.text(replace(noise_result(), threads=1, load_1m=None))


def test_one_life_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="--lives 1"):
        noise.run(RunSpec(lives=1), tmp_path / "run", Console())
