"""Verdicts on accuracy and on ratios, and that nothing unchanged fails."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from report_run import case
from snapshots import accuracy_case, row, snapshot

from bench.analysis.stats.paired import lower
from bench.studies.check import rules
from bench.studies.check.rules import Comparison, Terms, Verdict, changed_ground, compare, decide, decide_ratio, match
from bench.studies.check.snapshot import NOT_SCORED, UNREADABLE, Row, Timed
from bench.studies.check.tolerances import Latency, load
from scarlet.errors import BenchError

CONFIG = load()
IDENTITY, NEAR = CONFIG.of("fp32")[1], CONFIG.of("fp16")[1]


def compared(n: int, wins: int = 0, losses: int = 0, right: int = 0, changed: int | None = None) -> Comparison:
    return Comparison(n, wins + losses if changed is None else changed, wins, losses, right or n - losses)


def verdict(precision: str, comparison: Comparison, **more: object) -> tuple[Verdict, str]:
    name, tolerance = CONFIG.of(precision)
    found = decide(comparison, Terms(tolerance, CONFIG, name, **more))  # type: ignore[arg-type]
    assert found.tolerance == name
    return found.verdict, found.reason


def test_images_are_compared_one_by_one() -> None:
    labels = np.array([0, 1, 2, 3, 4, 5], dtype=np.int16)
    before = row([0, 9, 2, 3, UNREADABLE, 5], labels, margin=None)
    now = row([0, 1, 9, UNREADABLE, UNREADABLE, NOT_SCORED], labels)
    found = compare(before, now, labels, IDENTITY)
    assert found == Comparison(n=4, changed=3, wins=1, losses=2, right=2, newly_unreadable=1)
    assert found.baseline_right == 3
    assert found.agreement_percent == 25.0


def test_nothing_to_compare_is_none() -> None:
    labels = np.zeros(2, dtype=np.int16)
    assert compare(row([0, UNREADABLE], labels), row([NOT_SCORED, UNREADABLE], labels), labels, IDENTITY) is None


def test_ties_of_either_side_are_counted() -> None:
    labels = np.arange(4, dtype=np.int16)
    first = row(labels, labels, margin=np.array([0, 0.5, 0, 0.5], dtype=np.float32))
    second = row([0, 1, UNREADABLE, 3], labels, margin=np.array([0, 0, 0, 0.5], dtype=np.float32))
    found = compare(first, second, labels, NEAR)
    assert (found.ties, found.moved) == (3, None)


def with_leads(leads: NDArray[np.float64], top1: list[int] | None = None) -> Row:
    labels = np.zeros(len(leads), dtype=np.int16)
    return row(labels if top1 is None else top1, labels, margin=leads.astype(np.float32))


LEADS = np.linspace(0.0001, 0.9, 512)


SMALL = LEADS / 5000
LEAK = np.abs(LEADS + np.where(np.arange(512) % 2, 0.01, -0.01))
RANDOM = {"no_accuracy": "random weights"}


def flipped(*places: int) -> list[int]:
    """Class 9 at these places."""
    return [9 if place in places else 0 for place in range(512)]


@pytest.mark.parametrize(
    ("now", "before", "more", "expected", "changed", "moved"),
    [
        # A leak fails though no prediction changed, and so does one lead of all.
        (with_leads(LEAK), LEADS, {}, Verdict.FAIL, 0, 512),
        (with_leads(LEADS + 0.001 * np.eye(512)[300]), LEADS, {}, Verdict.FAIL, 0, 1),
        # A class that led by 0.3 and another that now leads by 0.3: equal leads, and a move of 0.6.
        (with_leads(LEADS, flipped(170)), LEADS, {}, Verdict.FAIL, 1, 1),
        # The limit goes with the scale: another network with random weights must not pass.
        (with_leads(SMALL[::-1]), SMALL, RANDOM, Verdict.FAIL, 0, 512),
        (with_leads(SMALL), SMALL, RANDOM, Verdict.PASS, 0, 0),
        # An image that is unreadable now has moved.
        (with_leads(LEADS, [-1 if place == 7 else 0 for place in range(512)]), LEADS, {}, Verdict.FAIL, 1, 1),
        # Leads of some images only do not pass alone.
        (with_leads(LEADS), LEADS, {"whole": False}, Verdict.UNRESOLVED, 0, 0),
        (with_leads(LEADS + 0.01), LEADS, {"whole": False}, Verdict.FAIL, 0, 512),
        # A baseline without leads is judged by agreement.
        (with_leads(LEADS + 0.01), None, {}, Verdict.PASS, 0, None),
    ],
)
def test_identity_is_judged_by_every_lead(now, before, more, expected, changed, moved):
    labels = np.zeros(512, dtype=np.int16)
    known = row(labels, labels, margin=None) if before is None else with_leads(before)
    comparison = compare(known, now, labels, IDENTITY)
    assert (verdict("fp32", comparison, **more)[0], comparison.changed, comparison.moved) == (expected, changed, moved)


def test_other_arithmetic_passes_though_a_close_call_flips() -> None:
    """Leads that differ by 1e-4, ten times what runtimes do; the image on the edge goes to its second class."""
    noise = np.random.default_rng(0).uniform(-1e-4, 1e-4, 512)
    now = with_leads(np.abs(LEADS + noise - np.eye(512)[0] * 0.00015), flipped(0))
    comparison = compare(with_leads(LEADS), now, np.zeros(512, dtype=np.int16), IDENTITY)
    assert (verdict("fp32", comparison)[0], comparison.changed, comparison.moved) == (Verdict.PASS, 1, 0)
    assert comparison.largest_move < comparison.lead_limit == pytest.approx(0.00045, abs=1e-6)
    flip = compare(with_leads(LEADS), with_leads(LEADS, flipped(170)), np.zeros(512, dtype=np.int16), IDENTITY)
    assert flip.largest_move == pytest.approx(2 * LEADS[170], rel=1e-5)


def test_the_shortcut_can_be_turned_off() -> None:
    config = CONFIG.model_copy(update={"unchanged_passes": False})
    assert decide(compared(512), Terms(CONFIG.of("fp32")[1], config)).verdict is Verdict.UNRESOLVED


PASS, FAIL, UNRESOLVED = Verdict.PASS, Verdict.FAIL, Verdict.UNRESOLVED


@pytest.mark.parametrize(
    ("precision", "comparison", "more", "expected", "said"),
    [
        # Unchanged predictions pass, however few they are; not all images need the bound.
        ("fp32", compared(512), {}, PASS, "none of 512 predictions changed (a loss of up to 0.583 points elsewhere"),
        ("fp16", compared(512), {}, PASS, "none of 512 predictions changed (a loss of up to 0.583 points elsewhere"),
        ("int8", compared(512), {}, PASS, "none of 512 predictions changed"),
        ("fp32", compared(512), {"whole": False}, UNRESOLVED, ""),
        ("fp32", compared(6500), {"whole": False}, PASS, ""),
        # Without leads identity is decided by agreement on these images.
        ("fp32", compared(512, changed=1), {}, FAIL, "agreement 99.8 %, wanted 99.9 %"),
        ("fp32", compared(1000, changed=1), {}, UNRESOLVED, ""),  # 99.9 % agree, 1000 are few
        ("fp32", compared(50_000, wins=5, losses=5), {}, PASS, ""),
        # 49 of 50,000 changed, all for the worse: 99.902 % agree, and the loss is beyond 0.05 points.
        ("fp32", compared(50_000, losses=49), {}, FAIL, "top-1 is 0.098 points lower"),
        # The whole interval has to lie on one side.
        ("fp16", compared(50_000, wins=60, losses=60), {}, PASS, ""),
        ("fp16", compared(50_000, wins=60, losses=110), {}, UNRESOLVED, ""),
        ("fp16", compared(50_000, wins=60, losses=170), {}, FAIL, ""),
        # 1 % of 76 %.
        ("int8", compared(50_000, wins=500, losses=600, right=38_000), {}, PASS, ""),
        ("int8", compared(50_000, wins=500, losses=1100, right=38_000), {}, FAIL, ""),
        ("fp16", compared(5000, wins=80, losses=10), {}, PASS, "points higher"),
        # Failing is corrected for the number of rows, and passing is not.
        ("fp16", compared(50_000, wins=60, losses=145), {}, FAIL, ""),
        ("fp16", compared(50_000, wins=60, losses=145), {"n_rows": 20}, UNRESOLVED, ""),
        ("fp16", compared(50_000, losses=170), {"n_rows": 2}, FAIL, "for 2 rows together"),
        ("fp16", compared(50_000, wins=60, losses=60), {"n_rows": 20}, PASS, ""),
        # Random weights are judged by agreement alone.
        ("fp32", compared(4000, changed=2), RANDOM, PASS, ""),
        ("fp16", compared(4000, changed=2), RANDOM, UNRESOLVED, ""),
        ("fp32", compared(4000, changed=9), RANDOM, FAIL, ""),
    ],
)
def test_the_verdict_on_a_row(precision, comparison, more, expected, said):
    found, reason = verdict(precision, comparison, **more)
    assert found is expected
    assert said in reason


def test_unresolved_says_how_many_images_would_do() -> None:
    comparison = compared(1000, wins=2, losses=2)
    found, reason = verdict("fp16", comparison)
    assert found is Verdict.UNRESOLVED
    needed = rules.images_needed(comparison, 0.001, 0.05)
    assert needed is not None
    share = needed / 1000
    assert lower(2 * share, 2 * share, needed, 0.05) > -0.001
    assert lower(1.8 * share, 1.8 * share, 0.9 * needed, 0.05) < -0.001
    assert "--sequential" in reason
    # None helps where the loss is beyond the margin.
    assert rules.images_needed(compared(100, losses=1), 0.001, 0.05) is None
    assert rules.images_needed(compared(10, wins=5, losses=5), 1e-7, 0.05) is None


def resampled(share_won: float, share_lost: float, n: int) -> list[Comparison]:
    """200 seeded bootstrap resamples of n images; the images themselves hold exactly these shares."""
    outcomes = np.zeros(n, dtype=np.int8)
    won, lost = round(share_won * n), round(share_lost * n)
    outcomes[:won], outcomes[won : won + lost] = 1, -1
    found = []
    for seed in range(200):
        drawn: NDArray[np.int8] = np.random.default_rng(seed).choice(outcomes, n)
        wins, losses = int(np.count_nonzero(drawn > 0)), int(np.count_nonzero(drawn < 0))
        found.append(compared(n, wins, losses, right=int(0.75 * n) + wins))
    return found


@pytest.mark.parametrize(
    ("precision", "share", "n"),
    [
        ("fp32", 0.0, 512),
        ("fp32", 0.0, 50_000),
        ("fp32", 0.0003, 50_000),  # six of ten thousand flip, as many for the better as for the worse
        ("fp16", 0.002, 512),
        ("fp16", 0.002, 50_000),
        ("bf16", 0.01, 5_000),
        ("int8", 0.02, 512),
        ("int8", 0.02, 50_000),
    ],
)
def test_predictions_without_a_true_difference_fail_in_five_of_a_hundred_at_most(precision, share, n):
    verdicts = [verdict(precision, comparison)[0] for comparison in resampled(share, share, n)]
    assert verdicts.count(Verdict.FAIL) <= 10
    if n == 50_000:
        assert verdicts.count(Verdict.PASS) >= (190 if precision != "fp16" else 150)


@pytest.mark.parametrize(
    ("precision", "won", "lost"), [("fp32", 0.0, 0.0009), ("fp16", 0.001, 0.0035), ("int8", 0.01, 0.025)]
)
def test_a_true_loss_beyond_the_margin_fails(precision: str, won: float, lost: float) -> None:
    verdicts = [verdict(precision, comparison)[0] for comparison in resampled(won, lost, 50_000)]
    assert verdicts.count(Verdict.PASS) == 0
    assert verdicts.count(Verdict.FAIL) >= 160


@pytest.mark.parametrize(("precision", "won", "lost"), [("fp16", 0.001, 0.002), ("int8", 0.01, 0.0176)])
def test_at_the_margin_neither_verdict_comes_more_often_than_it_may(precision: str, won: float, lost: float) -> None:
    """A loss of exactly the margin (int8: 1 % of 75 to 76 %): at most 5 % pass and 5 % fail, and some slack for 200."""
    verdicts = [verdict(precision, comparison)[0] for comparison in resampled(won, lost, 50_000)]
    assert verdicts.count(Verdict.PASS) <= 16
    assert verdicts.count(Verdict.FAIL) <= 16


REFERENCE = case(batch=8)
TIMED = case(backend="onnxruntime", batch=8)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.48, 0.52, Verdict.PASS),
        (0.40, 0.44, Verdict.PASS),
        (0.52, 0.53, Verdict.PASS),
        (0.53, 0.58, Verdict.UNRESOLVED),
        # Beyond 0.55, 10 % more than the baseline's 0.5; which itself may have been 0.51.
        (0.551, 0.58, Verdict.UNRESOLVED),
        (0.57, 0.60, Verdict.FAIL),
    ],
)
def test_a_ratio_fails_when_its_whole_interval_lies_beyond_the_tolerance(low, high, expected):
    before = Timed(TIMED, REFERENCE, 0.5, 0.49, 0.51)
    now = Timed(TIMED, REFERENCE, (low + high) / 2, low, high)
    found = decide_ratio(before, now, CONFIG)
    assert found.verdict is expected
    assert "1.1 is allowed (10 % more)" in found.reason


def test_both_ratios_count_with_their_intervals() -> None:
    """Ten equal machines: two runs whose ratio spreads by 3 % are told apart in 5 % at most, not in half of them."""
    source = np.random.default_rng(0)

    def measured() -> Timed:
        middle = float(np.exp(source.normal(0, 0.03)))
        return Timed(TIMED, REFERENCE, middle, middle * math.exp(-0.0588), middle * math.exp(0.0588))

    exact = CONFIG.model_copy(update={"latency": Latency(tolerance_percent=0)})
    verdicts = [decide_ratio(measured(), measured(), exact).verdict for _ in range(2000)]
    assert verdicts.count(Verdict.FAIL) <= 70
    assert verdicts.count(Verdict.PASS) <= 70


MEASURED = Timed(TIMED, REFERENCE, 0.5, 0.49, 0.51)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (MEASURED, Timed(TIMED, reason="not compared: resumed"), "not compared: resumed"),
        (Timed(TIMED, REFERENCE, reason="resumed"), Timed(TIMED, REFERENCE, 0.9), "in the baseline: resumed"),
        (Timed(TIMED, REFERENCE, 0.5), Timed(TIMED, REFERENCE, 0.9, 0.8, 1.0), "for an interval in the baseline"),
        (MEASURED, Timed(TIMED, REFERENCE, 0.9), "too few rounds for an interval"),
        (MEASURED, Timed(TIMED, case(backend="openvino", batch=8), 0.9, 0.8, 1.0), "openvino"),
    ],
)
def test_a_ratio_that_is_not_there_is_unresolved(before: Timed, now: Timed, said: str) -> None:
    found = decide_ratio(before, now, CONFIG)
    assert found.verdict is Verdict.UNRESOLVED
    assert said in found.reason


def test_rows_are_matched_across_machines() -> None:
    here, there = accuracy_case("onnxruntime"), accuracy_case("onnxruntime", weights="user")
    other = accuracy_case("onnxruntime", "int8")
    assert match([here, other], [there]) == {here: there}
    assert match([here], [there, here]) == {here: here}
    timed = case(batch=8)
    assert match([timed], [case(batch=1)]) == {}
    assert match([timed], [case(batch=8, threads=9)]) == {timed: case(batch=8, threads=9)}
    first, second = (accuracy_case(model=f"onnx:/{place}/net.onnx") for place in "ab")
    assert match([first], [second]) == {first: second}


@pytest.mark.parametrize(
    ("more", "stage", "said"),
    [
        ({}, "", ""),
        ({"ids": ("a", "b", "c")}, "data", "other file names"),
        ({"labels": [0, 1, 5]}, "labels", "1 of 3 images have another label"),
        ({"dataset": {"fingerprint": "g"}}, "data", "other sizes"),
        ({"weights": {"sha256": "v" * 64}}, "weights", "vvvvvvvvvvvv instead of wwwwwwwwwwww"),
        ({"labels": [0, 1], "dataset": {"fingerprint": "g"}}, "data", "2 images are of another set than"),
    ],
)
def test_other_ground_is_named(more, stage, said):
    known, now = snapshot([0, 1, 2], []), snapshot(more.pop("labels", [0, 1, 2]), [], **more)
    found, reason = changed_ground(known, now) or ("", "")
    assert (found, said in reason) == (stage, True)


def test_fewer_images_of_the_same_set_are_not_compared() -> None:
    with pytest.raises(BenchError, match="run's 2 images are not the baseline's 3") as refused:
        changed_ground(snapshot([0, 1, 2], []), snapshot([0, 1], []))
    assert "--images 3" in refused.value.do
