"""Latency Cases on a GPU: which stage is the row's, what is kept beside, and what verdicts rest on."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from bench_fakes import WNIDS, tiny_files
from fake_cuda import FakeCuda, faked
from numpy.typing import NDArray
from report_run import INFO

from bench.analysis.table import load_frame
from bench.analysis.time import verdict
from bench.backends.base import Unsupported
from bench.backends.fake import Fake
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.worker.messages import Context
from bench.worker.sampling import LatencySampler
from bench.worker.tasks.latency import LatencyTask

CASE = Case("onnx:tiny.onnx", "user", "fake", device="cuda", pipeline="reference", batch=2)


class Staged(Fake):
    """The fake backend with a GPU's stages: its call takes half a millisecond more than they do together."""

    compute_ns = 2_000_000

    def infer_stages(self, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], Mapping[str, int]]:
        logits = self.infer(pixels)
        self._now_ns += self.compute_ns + 800_000
        return logits, {"h2d": 200_000, "compute": self.compute_ns, "d2h": 100_000, "enqueue": 300_000}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    yield from faked(monkeypatch)


def run_of(path: Path, image_folder: Path, *cases: Case) -> tuple[RunFolder, Context]:
    folder = RunFolder.create(path / "run")
    folder.write_run_info({**INFO, "plan": {"cases": [case.to_dict() for case in cases]}})
    names = sorted(file.relative_to(image_folder).as_posix() for file in image_folder.rglob("*.JPEG"))
    folder.write_images((name, WNIDS.index(name.split("/")[1])) for name in names)
    return folder, Context(run=str(folder.path), data=str(image_folder), files=tiny_files())


def measured(case: Case, context: Context, backend: Any, rounds: int = 8) -> CaseResult:
    """The Case's result, after a warm-up and so many rounds, with its samples written."""
    backend.load(dataclasses.replace(case, options=(("latency_ns", "0"),)), context.files)
    task = LatencyTask(case, backend, context)
    while not task.turn(-1, 1).warm:
        pass
    for round_ in range(rounds):
        task.turn(round_, 1)
    outcome = task.finish("")
    result = CaseResult(case, Status.OK, stage=outcome.stage, metrics=outcome.metrics)
    context.run_folder.append_case(result)
    return result


def test_the_rows_stage_is_compute_and_the_others_are_kept_beside(tmp_path: Path, image_folder: Path) -> None:
    folder, context = run_of(tmp_path, image_folder, CASE)
    result = measured(CASE, context, Staged())
    assert result.stage == "compute"
    samples = folder.samples()
    assert set(samples["stage"]) == {"compute", "h2d", "d2h", "enqueue", "end_to_end"}
    by_stage = {str(stage): part for stage, part in samples.groupby("stage", observed=True)}
    assert len({len(part) for part in by_stage.values()}) == 1, "one of each for every call"
    for stage, taken in {"h2d": 200_000, "compute": 2_000_000, "d2h": 100_000, "end_to_end": 2_800_000}.items():
        assert set(by_stage[stage]["latency_ns"]) == {taken}
        assert by_stage[stage]["round"].tolist() == by_stage["compute"]["round"].tolist()
        assert by_stage[stage]["warmup"].sum() == result.metrics["n_warmup"]
    (row,) = load_frame(folder.path).to_dict("records")
    assert (row["latency_ns_p50"], row["end_to_end_ns_p50"]) == (2_000_000, 2_800_000)
    assert (row["h2d_ns_p50"], row["d2h_ns_p50"], row["enqueue_ns_p50"]) == (200_000, 100_000, 300_000)
    assert row["n_samples"] == 8 * 5


def test_verdicts_rest_on_compute_alone(tmp_path: Path, image_folder: Path) -> None:
    slower = dataclasses.replace(CASE, options=(("aa", "slower"),))
    folder, context = run_of(tmp_path, image_folder, CASE, slower)
    results = [measured(CASE, context, Staged())]
    backend = Staged()
    backend.compute_ns = 3_000_000
    results.append(measured(slower, context, backend))
    found = verdict.compare(results, folder.samples())[slower.case_id]
    assert found.verdict is verdict.Verdict.SLOWER
    assert found.ratio == pytest.approx(1.5)


def test_a_backend_without_events_is_timed_end_to_end_and_not_compared(tmp_path: Path, image_folder: Path) -> None:
    plain = dataclasses.replace(CASE, backend="pytorch")
    folder, context = run_of(tmp_path, image_folder, CASE, plain)
    with_events = measured(CASE, context, Staged())
    without = measured(plain, context, _with_time(Fake()))
    assert without.stage == "end_to_end"
    assert set(folder.samples().query("case_id == @plain.case_id")["stage"]) == {"end_to_end"}
    assert "not compared: it timed compute" in verdict.refusal(with_events, without)


def _with_time(backend: Fake) -> Fake:
    def infer(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        backend._now_ns += 1000
        return pixels[:, 0, 0]

    backend.infer = infer  # type: ignore[method-assign]
    return backend


def test_on_the_cpu_a_call_is_one_stage(tmp_path: Path, image_folder: Path) -> None:
    case = dataclasses.replace(CASE, device="cpu")
    folder, context = run_of(tmp_path, image_folder, case)
    result = measured(case, context, _with_time(Staged()))
    assert result.stage == "compute"
    assert set(folder.samples()["stage"]) == {"compute"}
    assert pd.isna(load_frame(folder.path).loc[0, "end_to_end_ns_p50"])


def test_a_cold_l2_is_made_before_each_call_and_not_timed(gpu: FakeCuda, tmp_path: Path, image_folder: Path) -> None:
    case = dataclasses.replace(CASE, options=(("l2", "cold"),))
    folder, context = run_of(tmp_path, image_folder, case)
    result = measured(case, context, Staged(), rounds=2)
    calls = folder.samples()["stage"].eq("compute").sum()
    assert gpu.log.count("wait for all") == calls
    assert result.stage == "compute"
    on_cpu = dataclasses.replace(case, device="cpu")
    with pytest.raises(Unsupported, match=r"fake\.l2 is about the GPU"):
        LatencyTask(on_cpu, Staged(), context)


def test_a_warm_up_that_never_settles_ends_by_the_clock_and_not_by_the_stage() -> None:
    now, calls = 0, 0

    def call() -> Mapping[str, int]:
        nonlocal now, calls
        calls += 1
        now += 100_000_000
        return {"compute": calls * calls}

    sampler = LatencySampler(call, lambda: now, headline="compute")
    while not sampler.warm:
        sampler.warm_up_turn(1)
    assert not sampler.settled
    assert calls == 30, "three seconds of the clock"
