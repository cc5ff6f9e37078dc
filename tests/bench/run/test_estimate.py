"""About how long a plan takes."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run import estimate

ACCURACY = Case("scarlet_c", "random", "pytorch", batch=32, threads=2, scenario="accuracy")
LATENCY = Case("scarlet_c", "random", "pytorch", batch=8, threads=2)


def test_without_earlier_runs_assumptions_are_stated() -> None:
    found = estimate.estimate([ACCURACY, LATENCY], n_images=400, budget_seconds=150.0)
    accuracy, latency = found.cases
    assert accuracy.seconds == pytest.approx(estimate.START_SECONDS + 400 / estimate.ASSUMED_IMAGES_PER_S)
    assert "400 images at 40 images/s, assumed" in accuracy.basis
    assert latency.seconds == pytest.approx(150.0), "starts and warm-up are in the budget"
    assert re.match(r"150 s of the budget with \d+ starts, a call of 240 ms assumed", latency.basis)
    before = found.prepare_seconds + found.check_seconds
    assert found.seconds == pytest.approx(before + accuracy.seconds + latency.seconds)


def test_timed_cases_share_the_budget_but_a_slow_one_takes_its_round() -> None:
    quick, slow = replace(LATENCY, batch=1), replace(LATENCY, batch=256)
    once, several = (
        estimate.estimate([quick, slow], n_images=0, budget_seconds=20.0, lives=lives).cases for lives in (1, 4)
    )
    rounds = estimate.LEAST_ROUNDS["latency"] * 6 * estimate.ASSUMED_LATENCY_S
    start = estimate.START_SECONDS / 2 + 3.0
    assert [part.seconds for part in once] == pytest.approx([10.0, start + 256 * rounds])
    assert [part.seconds for part in several] == pytest.approx([4 * (start + rounds), 4 * (start + 256 * rounds)])
    assert "10 s of the budget with its start," in once[0].basis


def stored_run(results: Path, name: str, fingerprint: str, seconds: int, latency_ns: int) -> None:
    folder = RunFolder.create(results / "runs" / name)
    folder.write_run_info({"host": {"fingerprint": fingerprint}, "dataset": {"n_images": 100}})
    times = {"started_at": "2026-01-01T00:00:00+00:00", "ended_at": f"2026-01-01T00:00:{seconds:02}.000+00:00"}
    n = 5
    folder.write_samples_part(
        LATENCY.case_id,
        round=np.arange(n),
        stage="compute",
        images=np.full(n, 8),
        warmup=np.array([True, False, False, False, False]),
        latency_ns=np.array([10**9, *[latency_ns] * (n - 1)]),
    )
    folder.append_case(CaseResult(ACCURACY, Status.OK, **times))
    folder.append_case(CaseResult(LATENCY, Status.OK, stage="compute", **times))
    failed = replace(LATENCY, backend="onnxruntime")
    folder.append_case(CaseResult(failed, Status.CRASHED, **times))
    folder.append_case(CaseResult(replace(ACCURACY, backend="onnxruntime"), Status.OK))  # without its times


def test_the_newest_run_of_this_host_tells_the_rates(tmp_path: Path) -> None:
    stored_run(tmp_path, "20260101T000000Z-scarlet_c-1", "here", seconds=10, latency_ns=50_000_000)
    stored_run(tmp_path, "20260102T000000Z-scarlet_c-2", "here", seconds=20, latency_ns=100_000_000)
    stored_run(tmp_path, "20260103T000000Z-scarlet_c-3", "there", seconds=1, latency_ns=1)
    (tmp_path / "runs" / "stray").mkdir()
    measured = estimate.measured_before(tmp_path, "scarlet_c", "here")
    other = replace(ACCURACY, backend="onnxruntime")
    found = estimate.estimate([ACCURACY, LATENCY, other], 400, 60.0, measured)
    assert found.cases[0].seconds == pytest.approx(400 / 5)
    assert "5 images/s, measured in 20260102T000000Z-scarlet_c-2" in found.cases[0].basis
    assert "a call of 100 ms measured in 20260102T000000Z-scarlet_c-2" in found.cases[1].basis
    assert "assumed" in found.cases[2].basis
    assert estimate.measured_before(tmp_path, "scarlet_a") == {}
    assert estimate.measured_before(tmp_path / "none", "scarlet_c") == {}
    anywhere = estimate.measured_before(tmp_path, "scarlet_c")
    assert {run for _, run in anywhere.values()} == {"20260103T000000Z-scarlet_c-3"}


def test_the_text_has_a_line_a_case_and_one_for_all() -> None:
    found = estimate.estimate([ACCURACY, LATENCY], n_images=400, budget_seconds=60.0)
    lines = estimate.text(found).splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("    15 s  accuracy dali pytorch cpu fp32 batch 32: ")
    assert lines[1].split("  ")[-1].startswith("latency pytorch cpu fp32 batch 8: ")
    assert lines[3] == "     5 s  comparing pixels with the reference's, assumed"
    assert lines[-1] == "   2 min  about, for 2 Cases"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert estimate.duration(seconds) == said


def test_nothing_is_compared_where_only_the_reference_reads() -> None:
    alone = estimate.estimate([replace(ACCURACY, pipeline="reference"), LATENCY], 400, 60.0)
    both = estimate.estimate([replace(ACCURACY, pipeline="reference"), ACCURACY, LATENCY], 400, 60.0)
    assert (alone.check_seconds, both.check_seconds) == (0.0, estimate.CHECK_SECONDS)
    assert "comparing" not in estimate.text(alone)
