"""bench.analysis.accuracy.flips and bench.analysis.stats.paired: against plain loops, statsmodels and tables
made by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from report_run import case
from statsmodels.stats.contingency_tables import mcnemar

from bench.analysis.accuracy.flips import compare, margin_sentence
from bench.analysis.accuracy.predictions import FOREIGN_NOTE, RANDOM_NOTE, Predicted
from bench.analysis.stats.paired import min_detectable_difference, paired, paired_bound, resolvable
from scarlet.errors import BenchError

BASE = case(scenario="accuracy")
ORT = case(scenario="accuracy", backend="onnxruntime")


def predicted(rows, scored=BASE, run="run", no_accuracy="", image_ids=None):
    """Predictions from image id -> (label, top classes, margin)."""
    ids = image_ids if image_ids is not None else pd.Index(list(rows), dtype="str")
    return Predicted(
        run=run,
        case=scored,
        no_accuracy=no_accuracy,
        image_ids=ids,
        image=ids.get_indexer(list(rows)).astype(np.int32),
        label=np.array([label for label, _, _ in rows.values()], dtype=np.int16),
        top=np.array([top for _, top, _ in rows.values()], dtype=np.int16).reshape(-1, 5),
        margin=np.array([margin for _, _, margin in rows.values()], dtype=np.float32),
    )


TAIL = [11, 12, 13, 14]
FIRST = {
    "a": (1, [1, *TAIL], 0.9),  # right in both
    "b": (2, [2, *TAIL], 0.3),  # a loss
    "c": (3, [8, *TAIL], 0.01),  # a win
    "d": (4, [8, *TAIL], 0.021),  # both wrong, other class
    "e": (5, [9, *TAIL], 0.5),  # both wrong, same class
    "f": (6, [8, 6, 12, 13, 14], 0.2),  # top-5: a loss, the top-1 stays
    "only here": (1, [1, *TAIL], 0.1),
}
SECOND = {
    "f": (6, [8, *TAIL], 0.2),
    "z2": (1, [1, *TAIL], 0.1),
    "z1": (1, [1, *TAIL], 0.1),
    "d": (4, [7, *TAIL], 0.04),
    "c": (3, [3, *TAIL], 0.03),
    "b": (2, [8, *TAIL], 0.25),
    "a": (1, [1, 12, 11, 13, 14], 0.8),
    "e": (5, [9, *TAIL], 0.5),
}


def test_a_ledger_by_hand():
    ledger = compare(predicted(FIRST), predicted(SECOND, ORT, "later"))
    assert (ledger.base.run, ledger.base.case, ledger.other.run, ledger.other.case) == ("run", BASE, "later", ORT)
    assert ledger.n_images == 6
    assert (ledger.only_base.count, ledger.only_base.first_ids) == (1, ("only here",))
    assert (ledger.only_other.count, ledger.only_other.first_ids) == (2, ("z1", "z2"))
    assert ledger.agreement_percent == 50.0
    assert ledger.top5_ordered_agreement_percent == pytest.approx(100 / 6)  # e alone
    assert (ledger.top1.wins, ledger.top1.losses) == (1, 1)
    assert ledger.top1.base_percent == ledger.top1.other_percent == pytest.approx(100 * 2 / 6)
    assert (ledger.top5.wins, ledger.top5.losses) == (1, 2)
    assert ledger.top5.difference_points == pytest.approx(-100 / 6)
    rows = ledger.flips[["image_id", "label", "base_top1", "other_top1", "kind"]].itertuples(index=False, name=None)
    assert list(rows) == [("b", 2, 2, 8, "loss"), ("d", 4, 8, 7, "both wrong"), ("c", 3, 8, 3, "win")]
    assert ledger.flips.loc[0, ["base_margin", "other_margin"]].tolist() == [pytest.approx(0.3), 0.25]
    assert ledger.margins == "all 3 flips have a margin under 0.31 (half of them under 0.03), as have 4 of all 6 images"
    assert ledger.no_accuracy == ""


@pytest.mark.parametrize("seed", range(4))
def test_random_predictions_against_a_plain_loop_and_statsmodels(seed):
    """Images missing here and there, other orders, and image lists of two runs or of one."""
    source = np.random.default_rng(seed)
    ids = [f"image{place:03}" for place in range(300)]
    labels = dict(zip(ids, source.integers(0, 4, len(ids)).tolist(), strict=True))

    def side(scored, share):
        chosen = source.permutation(ids)[: int(share * len(ids))].tolist()
        return {name: (labels[name], source.permutation(7)[:5].tolist(), float(source.random())) for name in chosen}

    first, second = side(BASE, 0.9), side(ORT, 0.7)
    shared = pd.Index(ids, dtype="str") if seed % 2 else None
    ledger = compare(predicted(first, image_ids=shared), predicted(second, ORT, image_ids=shared))

    common = [name for name in first if name in second]
    assert ledger.n_images == len(common)
    assert ledger.only_base.count == len(first) - len(common)
    assert list(ledger.only_base.first_ids) == sorted(set(first) - set(second))[:5]
    for place, pair in ((1, ledger.top1), (5, ledger.top5)):
        table = np.zeros((2, 2), dtype=int)
        for name in common:
            base_right, other_right = (labels[name] in side[name][1][:place] for side in (first, second))
            table[int(base_right), int(other_right)] += 1
        assert (pair.wins, pair.losses) == (table[0, 1], table[1, 0])
        assert pair.base_percent == pytest.approx(100 * table[1].sum() / len(common))
        assert pair.other_percent == pytest.approx(100 * table[:, 1].sum() / len(common))
        assert pair.p_value == pytest.approx(mcnemar(table, exact=True).pvalue)
        interval = paired_bound(pair.wins, pair.losses, len(common), 0.025)
        ends = pytest.approx(100 * interval.low), pytest.approx(100 * interval.high)
        assert (pair.low_points, pair.high_points) == ends
        assert pair.low_points < pair.difference_points < pair.high_points
        assert pair.difference_points == pytest.approx(pair.other_percent - pair.base_percent)
    flipped = sorted((-np.float32(first[name][2]), name) for name in common if first[name][1][0] != second[name][1][0])
    listed = list(ledger.flips.itertuples())
    assert [flip.image_id for flip in listed] == [name for _, name in flipped]
    assert ledger.agreement_percent == pytest.approx(100 * (1 - len(flipped) / len(common)))
    assert ledger.top5_ordered_agreement_percent == pytest.approx(
        100 * sum(first[name][1] == second[name][1] for name in common) / len(common)
    )
    for flip in listed:
        kind = {(True, False): "loss", (False, True): "win", (False, False): "both wrong"}[
            flip.base_top1 == flip.label, flip.other_top1 == flip.label
        ]
        assert flip.kind == kind
        assert (flip.base_top1, flip.other_top1) == (first[flip.image_id][1][0], second[flip.image_id][1][0])
        assert flip.other_margin == pytest.approx(second[flip.image_id][2])
    assert sum(flip.kind == "win" for flip in listed) == ledger.top1.wins


@pytest.mark.parametrize("reason", [RANDOM_NOTE, FOREIGN_NOTE])
@pytest.mark.parametrize("which", [0, 1])
def test_where_nothing_may_be_scored_only_agreement_is_left(reason, which):
    reasons = ["", ""]
    reasons[which] = reason
    ledger = compare(predicted(FIRST, no_accuracy=reasons[0]), predicted(SECOND, ORT, no_accuracy=reasons[1]))
    assert ledger.top1 is None
    assert ledger.top5 is None
    assert ledger.no_accuracy == reason
    assert (ledger.agreement_percent, ledger.n_flips) == (50.0, 3)
    assert set(ledger.flips["kind"]) == {None}
    assert ledger.margins


def test_nothing_flipped():
    ledger = compare(predicted(FIRST), predicted(FIRST, ORT))
    assert (ledger.n_flips, ledger.margins, ledger.to_dict()["flips"]) == (0, "", [])
    assert ledger.only_base == ledger.only_other
    assert (ledger.top1.p_value, ledger.top1.difference_points) == (1.0, 0.0)


def test_equal_margins_are_ordered_by_image():
    rows = {name: (1, [1, *TAIL], 0.5) for name in "dbca"}
    other = {name: (1, [2, *TAIL], 0.5) for name in "cabd"}
    assert compare(predicted(rows), predicted(other)).flips["image_id"].tolist() == list("abcd")


def test_json_is_plain_and_whole():
    ledger = compare(predicted(FIRST), predicted(SECOND, ORT))
    made = ledger.to_dict()
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert made["base"] == {"run": "run", "case_id": BASE.case_id, "label": BASE.label, "case": BASE.to_dict()}
    assert made["n_flips"] == len(made["flips"]) == 3
    assert made["flips"][0]["kind"] == "loss"
    assert made["top1"]["wins"] == 1
    assert made["only_other"] == {"count": 2, "first_ids": ["z1", "z2"]}
    cut = ledger.to_dict(1)
    assert (cut["n_flips"], len(cut["flips"])) == (3, 1)
    assert ledger.to_dict(0)["flips"] == []


def test_labels_that_differ_are_an_error():
    other = {**SECOND, "c": (30, [3, *TAIL], 0.03), "a": (31, *SECOND["a"][1:])}
    with pytest.raises(BenchError) as caught:
        compare(predicted(FIRST), predicted(other, ORT, "later"))
    assert caught.value.what == (
        f"2 of 6 images have another label in Case {ORT.case_id} of later than in Case {BASE.case_id} of run: "
        "'c' is class 30 and was 3"
    )
    assert "ground truth" in caught.value.do


def test_no_image_in_common_is_an_error():
    with pytest.raises(BenchError, match="no image in common"):
        compare(predicted(FIRST), predicted({"q": FIRST["a"]}, ORT))
    with pytest.raises(BenchError, match="no image in common"):
        compare(predicted({}), predicted({}, ORT))


@pytest.mark.parametrize("which", [0, 1])
def test_an_image_counted_twice_is_an_error(which):
    sides = [predicted(FIRST), predicted(SECOND, ORT)]
    twice = sides[which]
    twice.image[1] = twice.image[0]
    with pytest.raises(BenchError, match=f"has 1 images more than once, '{twice.image_ids[twice.image[0]]}' first"):
        compare(*sides)


@pytest.mark.parametrize("n", [6, 100, 512, 50_000])
def test_resolvable_is_the_least_that_any_share_as_large_or_larger_allows(n):
    for share in [0.0, *np.geomspace(1e-5, 1.0, 60)]:
        least = resolvable(n, float(share))
        known = min_detectable_difference(n, float(share)) if share else None
        if known is not None:
            assert least == pytest.approx(known)
        else:  # fewer than resolve anything: the smallest share that does is the difference itself
            assert least > share
            assert min_detectable_difference(n, least * (1 + 1e-9)) == pytest.approx(least)
            assert min_detectable_difference(n, least * (1 - 1e-6)) is None


def test_four_images_resolve_something_and_two_nothing():
    assert resolvable(4, 0.5) is not None
    assert resolvable(2, 0.5) is None
    pair = paired(np.array([True, False]), np.array([True, True]))
    assert (pair.wins, pair.losses, pair.resolvable_points) == (1, 0, None)


@pytest.mark.parametrize(
    ("flipped", "others", "sentence"),
    [
        ([], [0.5], ""),
        ([0.013], [0.9], "the only flip has a margin under 0.02, as has 1 of all 2 images"),
        ([0.02, 0.013], [0.9], "both flips have a margin under 0.02, as have 2 of all 3 images"),
        (
            [0.011, 0.001, 0.0012],
            [0.015, 0.9],
            "all 3 flips have a margin under 0.02 (half of them under 0.002), as have 4 of all 5 images",
        ),
        ([0.31, 0.304, 0.302], [], "all 3 flips have a margin under 0.32 (half of them under 0.31), as have 3 of"),
        ([0.29], [], "the only flip has a margin under 0.29, as has 1 of"),  # as a float32 it is less
        ([0.0], [0.005, 0.01], "the only flip has a margin under 0.01, as have 3 of all 3 images"),
        ([1.0, 0.5, 0.5], [], "all 3 flips have a margin of up to 1"),
        ([0.995], [1.0], "the only flip has a margin under 1, as has 1 of all 2 images"),
    ],
)
def test_the_sentence_about_margins(flipped, others, sentence):
    own = np.array(flipped, dtype=np.float32)
    said = margin_sentence(own, np.array([*flipped, *others], dtype=np.float32))
    assert said.startswith(sentence)
    assert bool(said) == bool(flipped)


@pytest.mark.parametrize("seed", range(5))
def test_the_sentence_is_true_of_random_margins(seed):
    source = np.random.default_rng(seed)
    for _ in range(200):
        margins = (source.random(40) ** source.integers(1, 12)).astype(np.float32)
        flipped = margins[: source.integers(3, 20)]
        said = margin_sentence(flipped, margins)
        bound = float(said.split("under ")[1].split()[0].rstrip(",").rstrip(")"))
        exact = margins.astype(np.float64)
        assert (flipped.astype(np.float64) < bound).all()
        assert f"{int((exact < bound).sum())} of all 40" in said
        if "half of them" in said:
            half = float(said.split("half of them under ")[1].split(")")[0])
            assert (flipped.astype(np.float64) < half).mean() >= 0.5
            assert half < bound
