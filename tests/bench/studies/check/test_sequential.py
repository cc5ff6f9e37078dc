"""The anytime-valid test: its error with a look after every image, its power, and what it says of a row."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from snapshots import row

from bench.studies.check import rules, sequential
from bench.studies.check.rules import Looks, Terms, Verdict
from bench.studies.check.sequential import block_sizes, evidence, first_crossing
from bench.studies.check.snapshot import NOT_SCORED, UNREADABLE, Labels
from bench.studies.check.tolerances import load

CONFIG = load()
PATHS, LENGTH = 1000, 4000
# Of 1,000 paths a rule that errs in 5 % leads to 50 wrong verdicts, give or take 7; this one errs in about 3 %.
MOST = int(0.035 * PATHS)


def drawn(win: float, loss: float, n_paths: int, seed: int = 0) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images are won and which are lost, ``(n_paths, LENGTH)``."""
    values = np.random.default_rng(seed).random((n_paths, LENGTH), dtype=np.float32)
    return values < win, values > 1 - loss


def errors(won: NDArray[np.bool_], lost: NDArray[np.bool_], margin: float) -> tuple[int, int]:
    """How many paths ever pass and how many ever fail, with a look after every image.

    The capital for a pass shrinks with a loss and grows with every other image, that for a fail the reverse: each is
    largest just before or just after a loss, or at the end, and is looked at there alone.
    """
    paths, places = np.nonzero(lost)
    wins = np.cumsum(won, axis=1, dtype=np.int32)
    n_before = np.cumsum(lost, axis=1, dtype=np.int32)[paths, places] - 1
    before = evidence(wins[paths, places], n_before, places, margin).for_pass
    after = evidence(wins[paths, places], n_before + 1, places + 1, margin).for_fail
    last = evidence(wins[:, -1], lost.sum(axis=1), np.full(len(lost), lost.shape[1]), margin).for_pass
    enough = math.log(20)
    passed = {*paths[before >= enough].tolist(), *np.flatnonzero(last >= enough).tolist()}
    return len(passed), len(set(paths[after >= enough].tolist()))


@pytest.mark.parametrize(
    ("win", "loss"), [(0.0, 0.004), (0.002, 0.006), (0.02, 0.024), (0.1, 0.104)], ids=lambda share: f"{share}"
)
def test_at_the_boundary_it_errs_in_five_of_a_hundred_at_most_however_often_it_looks(win: float, loss: float) -> None:
    """The truth is exactly the margin, so that both verdicts are wrong; it may stop after any image."""
    counts = [errors(*drawn(win, loss, 500, seed), 0.004) for seed in range(PATHS // 500)]
    assert sum(passed for passed, _ in counts) <= MOST
    assert sum(failed for _, failed in counts) <= MOST


def test_looking_before_and_after_losses_misses_no_verdict() -> None:
    won, lost = drawn(0.02, 0.024, 100)
    seen = np.arange(1, LENGTH + 1)
    found = [evidence(np.cumsum(w), np.cumsum(k), seen, 0.004) for w, k in zip(won, lost, strict=True)]
    passed = sum(bool(each.for_pass.max() >= math.log(20)) for each in found)
    failed = sum(bool(each.for_fail.max() >= math.log(20)) for each in found)
    assert errors(won, lost, 0.004) == (passed, failed)


def test_a_fixed_bound_looked_at_all_the_time_would_err_more_often() -> None:
    """Why a method of its own is needed: the bound of a fixed number, asked for at every hundredth image."""
    from bench.analysis.stats.paired import lower

    passed = sum(
        any(lower(int(won[:n].sum()), int(lost[:n].sum()), n, 0.05) > -0.004 for n in range(100, LENGTH + 1, 100))
        for won, lost in zip(*drawn(0.02, 0.024, 100), strict=True)
    )
    assert passed > 10


def test_classes_visited_evenly_do_not_make_it_err() -> None:
    """All losses lie in one class of twenty; blocks take an image of each class before a second of any."""
    source, margin, classes, blocks = np.random.default_rng(3), 0.01, 20, 150
    lost = np.zeros((PATHS, blocks * classes), dtype=bool)
    places = np.arange(blocks) * classes + source.integers(classes, size=(PATHS, blocks))
    np.put_along_axis(lost, places, source.random((PATHS, blocks)) < margin * classes, axis=1)
    passed, failed = errors(np.zeros_like(lost), lost, margin)
    assert passed <= MOST
    assert failed <= MOST


def test_no_verdict_comes_before_every_class_was_seen() -> None:
    """Classes one after the other, and all that is lost in the last of them."""
    labels = np.repeat(np.arange(100, dtype=np.int16), 200)
    changes = np.where(labels == 99, 100, labels).astype(np.int16)
    seen = looks(labels, changes, labels, np.arange(len(labels)))
    assert seen.full == 99 * 200
    assert decided_of(seen, "int8", len(labels))[2] > 99 * 200
    some = np.arange(len(labels)) < 5000
    partly = looks(labels, np.where(some, labels, NOT_SCORED).astype(np.int16), labels, np.arange(len(labels)))
    assert partly is not None
    assert decided_of(partly, "int8", len(labels), whole=False)[0] is Verdict.UNRESOLVED


def test_how_soon_a_verdict_comes() -> None:
    """Unchanged predictions pass after about four over the margin; a loss beyond it fails early."""
    n = 10_000
    found = evidence(np.zeros(n), np.zeros(n), np.arange(1, n + 1), 0.001)
    place, verdict = first_crossing(found, 0.05, 0.05)
    assert verdict is Verdict.PASS
    assert 3000 < place + 1 < 4000
    ended = [
        first_crossing(evidence(np.cumsum(won), np.cumsum(lost), np.arange(1, LENGTH + 1), 0.0075), 0.05, 0.05)
        for won, lost in zip(*drawn(0.002, 0.03, 50), strict=True)
    ]
    assert all(verdict is Verdict.FAIL for _, verdict in ended)
    assert np.median([place for place, _ in ended]) < 1500
    assert first_crossing(evidence([0, 0], [0, 1], [10, 20], 0.001), 0.05, 0.05) == (1, Verdict.UNRESOLVED)


@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_a_margin_that_makes_no_sense_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="makes no sense"):
        evidence([0], [0], [1], margin)


def looks(
    before: Labels,
    now: Labels,
    labels: Labels,
    order: NDArray[np.intp],
    ends: NDArray[np.intp] | None = None,
    precision: str = "fp16",
) -> Looks | None:
    """Of rows with these classes."""
    rows = (row(classes, labels, margin=None) for classes in (before, now))
    return rules.looks(*rows, labels, CONFIG.of(precision)[1], order, ends)


def test_looks_count_only_images_that_were_scored_and_could_be_read() -> None:
    labels = np.array([0, 1, 2, 3, 4], dtype=np.int16)
    before = np.array([0, 1, 9, UNREADABLE, 4], dtype=np.int16)
    now = np.array([0, 9, 2, UNREADABLE, NOT_SCORED], dtype=np.int16)
    seen = looks(before, now, labels, np.array([3, 2, 1, 0, 4]))
    assert seen.counts["n"].tolist() == [1, 2, 3, 3]  # nothing to look at after the first, unreadable image
    assert seen.counts["wins"].tolist() == [1, 1, 1, 1]
    assert seen.counts["losses"].tolist() == [0, 1, 1, 1]
    assert seen.at(-1).changed == 2
    blocks = looks(before, now, labels, np.arange(5), np.array([2, 5]))
    assert blocks.counts["n"].tolist() == [2, 3]
    assert looks(before, now, labels, np.array([3, 4])) is None


def decided_of(
    seen: Looks, precision: str, n_total: int, *, whole: bool = True, **more: str
) -> tuple[Verdict, str, int]:
    """The verdict on a row of this precision, why, and after how many images."""
    name, tolerance = CONFIG.of(precision)
    terms = Terms(tolerance, CONFIG, name, 1, whole, more.get("no_accuracy", ""))
    decision = sequential.decide(seen, terms, tolerance.margin(0.9), n_total)
    return decision.verdict, decision.reason, decision.comparison.n


def test_identity_fails_as_soon_as_more_changed_than_all_images_may() -> None:
    labels = np.zeros(400, dtype=np.int16)
    before, now = labels.copy(), labels.copy()
    before[100:111], now[100:111] = 5, 6  # 11 of 10,000, one more than 0.1 %; none of them was right
    seen = looks(before, now, labels, np.arange(400))
    assert seen is not None
    name, tolerance = CONFIG.of("fp32")
    decision = sequential.decide(seen, Terms(tolerance, CONFIG, name, whole=False), 0.0005, 10_000)
    assert (decision.verdict, decision.comparison.n) == (Verdict.FAIL, 111)
    assert decision.reason.startswith("11 of 111 predictions changed")
    assert decision.reason.endswith("of all 10,000")


def changed(n: int, *places: int) -> NDArray[np.int16]:
    """Predictions of n images, 0 being right; not so at these places."""
    return np.where(np.isin(np.arange(n), places), 5, 0).astype(np.int16)


PASS, FAIL, UNRESOLVED = Verdict.PASS, Verdict.FAIL, Verdict.UNRESOLVED
RANDOM = {"no_accuracy": "random weights"}


@pytest.mark.parametrize(
    ("now", "precision", "more", "expected", "after", "said"),
    [
        # Identity passes with bound and agreement; few images only when all of them are unchanged.
        (changed(20_000), "fp32", {}, PASS, (6000, 8000), "of 20,000 images"),
        (changed(400), "fp32", {}, PASS, (400, 400), ""),
        (changed(400), "fp32", {"whole": False}, UNRESOLVED, (400, 400), ""),
        (changed(400, 3), "fp16", {}, UNRESOLVED, (400, 400), "not decided against a margin of 0.1 points"),
        # Without accuracy only agreement is judged.
        (changed(4000, 0), "fp32", RANDOM, PASS, (4000, 4000), ""),
        (changed(4000, 0), "fp16", RANDOM, UNRESOLVED, (4000, 4000), ""),
        (changed(4000, *range(20)), "fp32", RANDOM, FAIL, (1, 20), ""),
        # A clear loss fails, and says after how many.
        (changed(8000, *range(0, 8000, 20)), "int8", {}, FAIL, (1, 2000), "top-1 is more than 0.9 points lower"),
    ],
)
def test_when_and_how_a_row_is_decided(now, precision, more, expected, after, said):
    labels = np.zeros(len(now), dtype=np.int16)
    seen = looks(labels, now, labels, np.arange(len(now)))
    verdict, reason, n = decided_of(seen, precision, len(now) if more.get("whole", True) else 2 * len(now), **more)
    assert verdict is expected
    assert after[0] <= n <= after[1]
    assert said in reason


def test_identity_fails_as_soon_as_a_lead_moved() -> None:
    labels, lead = np.zeros(400, dtype=np.int16), np.full(400, 0.5, dtype=np.float32)
    moved = lead.copy()
    moved[200] += 0.01
    rows = (row(labels, labels, margin=each) for each in (lead, moved))
    seen = rules.looks(*rows, labels, CONFIG.of("fp32")[1], np.arange(400))
    assert seen is not None
    assert decided_of(seen, "fp32", 400)[::2] == (Verdict.FAIL, 201)
    rows = (row(labels, labels, margin=each) for each in (lead, lead))
    same = rules.looks(*rows, labels, CONFIG.of("fp32")[1], np.arange(400))
    assert same is not None
    assert decided_of(same, "fp32", 400)[::2] == (Verdict.PASS, 400)


def test_identity_waits_for_the_agreement() -> None:
    """Nine early changes that cost nothing: the bound is met before 99.9 % of the images agree."""
    labels = np.zeros(12_000, dtype=np.int16)
    before, now = labels.copy(), labels.copy()
    before[:9], now[:9] = 5, 6  # wrong before, wrong now, another class
    seen = looks(before, now, labels, np.arange(12_000))
    assert seen is not None
    name, tolerance = CONFIG.of("fp32")
    decision = sequential.decide(seen, Terms(tolerance, CONFIG, name), 0.0005, 12_000)
    assert decision.verdict is Verdict.PASS
    assert decision.comparison.n == 9000


def test_blocks_double_up_to_all() -> None:
    assert list(block_sizes(3000, CONFIG)) == [256, 512, 1024, 2048, 3000]
    assert list(block_sizes(256, CONFIG)) == [256]
    assert list(block_sizes(100, CONFIG)) == [100]
