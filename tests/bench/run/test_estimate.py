"""About how long a plan takes."""

import re
from dataclasses import replace

import pytest

from bench.record.case import Case
from bench.run import estimate

ACCURACY = Case("scarlet_c", "random", "pytorch", batch=32, threads=2, scenario="accuracy")
LATENCY = Case("scarlet_c", "random", "pytorch", batch=8, threads=2)


def test_assumptions_are_stated() -> None:
    (accuracy, scored), (latency, timed) = estimate.estimate([ACCURACY, LATENCY], n_images=400, budget_seconds=150.0)
    assert accuracy == pytest.approx(estimate.START_SECONDS + 400 / estimate.ASSUMED_IMAGES_PER_S)
    assert scored == "400 images at 40 images/s, assumed"
    assert latency == pytest.approx(150.0), "starts and warm-up are in the budget"
    assert re.match(r"150 s of the budget with \d+ starts, a call of 240 ms assumed", timed)


def test_timed_cases_share_the_budget_but_a_slow_one_takes_its_round() -> None:
    quick, slow = replace(LATENCY, batch=1), replace(LATENCY, batch=256)
    once, several = (estimate.estimate([quick, slow], n_images=0, budget_seconds=20.0, lives=lives) for lives in (1, 4))
    rounds = estimate.LEAST_ROUNDS["latency"] * 6 * estimate.ASSUMED_LATENCY_S
    start = estimate.START_SECONDS / 2 + 3.0
    assert [seconds for seconds, _ in once] == pytest.approx([10.0, start + 256 * rounds])
    assert [seconds for seconds, _ in several] == pytest.approx([4 * (start + rounds), 4 * (start + 256 * rounds)])
    assert "10 s of the budget with its start," in once[0][1]


def test_the_text_has_a_line_a_case_and_one_for_all() -> None:
    found = estimate.document([ACCURACY, LATENCY], n_images=400, budget_seconds=60.0, remarks=["a remark"])
    remark, *lines = found.lines
    assert (remark, len(lines)) == ("a remark", 5)
    assert lines[0].startswith("    15 s  accuracy dali pytorch cpu fp32 batch 32: ")
    assert lines[1].split("  ")[-1].startswith("latency pytorch cpu fp32 batch 8: ")
    assert lines[3] == "     5 s  comparing pixels with the reference's, assumed"
    assert lines[-1] == "   2 min  about, for 2 Cases"
    assert found.data["seconds"] == 25.0 + sum(case["seconds"] for case in found.data["cases"])


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (120, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert estimate.duration(seconds) == said


def test_nothing_is_compared_where_only_the_reference_reads() -> None:
    alone = estimate.document([replace(ACCURACY, pipeline="reference"), LATENCY], 400, 60.0)
    both = estimate.document([replace(ACCURACY, pipeline="reference"), ACCURACY, LATENCY], 400, 60.0)
    assert [found.data["check_seconds"] for found in (alone, both)] == [0.0, estimate.CHECK_SECONDS]
    assert "comparing" not in "".join(alone.lines)
