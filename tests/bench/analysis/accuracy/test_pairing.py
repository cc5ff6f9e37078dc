"""bench.analysis.accuracy.pairing and bench.analysis.accuracy.predictions: which Cases of which runs are
compared, and what a mistake looks like."""

import json
from pathlib import Path

import numpy as np
import pytest
from report_run import add_predictions, case, end, make_run

from bench.analysis.accuracy.pairing import TIMED_NOTE, against_reference, compare_named
from bench.analysis.accuracy.predictions import FOREIGN_NOTE, RANDOM_NOTE, ScoredRun, no_accuracy, reference_case
from bench.analysis.table import load_frame
from bench.record.case import Status
from bench.record.run_folder import CaseResult
from scarlet.errors import BenchError

TORCH = case(scenario="accuracy", batch=32)
ORT = case(scenario="accuracy", batch=32, backend="onnxruntime")
INT8 = case(scenario="accuracy", batch=32, backend="onnxruntime", precision="int8")
TIMED = case()

RIGHT = {name: (label, [label, 6, 7, 8, 9]) for label, name in enumerate("abcde")}
WRONG_C = {**RIGHT, "c": (2, [5, 2, 7, 8, 9])}


def make(path, scored, info=None, planned=()):
    """A run in which each of these Cases predicted these rows; a Status instead of rows is how it ended."""
    folder = make_run(path, [*scored, *planned], info)
    for one, rows in scored.items():
        if isinstance(rows, Status):
            end(folder, one, rows, reason="because\n of it")
            continue
        if rows:
            add_predictions(folder, one, rows)
        end(folder, one)
    return folder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Runs ``one`` and ``two`` in the working folder; ``results/latest`` is the second."""
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "one", {ORT: WRONG_C, TORCH: RIGHT, INT8: WRONG_C, TIMED: None})
    make(tmp_path / "two", {TORCH: RIGHT, ORT: RIGHT, INT8: Status.FAILED})
    (tmp_path / "results").mkdir()
    (tmp_path / "results/latest").symlink_to("../two")
    return tmp_path


def named(base, other=None):
    return compare_named(base, other, Path("results/latest"))


def pairs(comparison):
    return [
        (each.base.run, each.base.case, each.other.run, each.other.case, each.n_flips) for each in comparison.ledgers
    ]


def mistake(*names):
    with pytest.raises(BenchError) as caught:
        named(*names)
    assert "\n" not in caught.value.what + caught.value.do
    return caught.value


def test_a_run_alone_is_compared_with_its_reference(runs):
    made = named("one")
    assert pairs(made) == [("one", TORCH, "one", ORT, 1), ("one", TORCH, "one", INT8, 1)]
    assert made.title == f"Run one against its reference {TORCH.label}"
    assert made.left_out == ()
    assert made.notes == (TIMED_NOTE,)
    assert not made.is_demo
    frame = load_frame(Path("one"))
    assert set(frame["reference_case_id"]) - {""} == {TORCH.case_id}


def test_a_case_alone_is_compared_with_the_reference_of_its_run(runs):
    assert pairs(named(f"one:{INT8.case_id}")) == [("one", TORCH, "one", INT8, 1)]
    assert pairs(named(ORT.case_id[:4])) == [("two", TORCH, "two", ORT, 0)]
    assert "is the reference" in mistake(f"one:{TORCH.case_id}").what


def test_what_cannot_be_paired_with_the_reference_is_left_out_with_the_reason(tmp_path):
    relabelled = {**RIGHT, "a": (4, [4, 6, 7, 8, 9])}
    folder = make(tmp_path / "run", {TORCH: RIGHT, ORT: relabelled, INT8: {"z": RIGHT["a"]}})
    ledgers, left_out = against_reference(ScoredRun.open(folder.path))
    assert ledgers == []
    assert [left.case for left in left_out] == [ORT, INT8]
    assert "1 of 5 images have another label" in left_out[0].reason
    assert "no image in common" in left_out[1].reason


def test_one_case_is_nothing_to_compare(tmp_path):
    make(tmp_path / "run", {TORCH: RIGHT, ORT: Status.OOM})
    assert "has 1 accuracy Case with predictions" in mistake(str(tmp_path / "run")).what
    make(tmp_path / "none", {TIMED: None})
    assert "has no accuracy Cases with predictions" in mistake(str(tmp_path / "none")).what
    assert against_reference(ScoredRun.open(tmp_path / "none")) == ([], [])


def test_two_runs_are_compared_case_by_case_and_the_rest_is_listed(runs):
    made = named("two", "one")
    assert pairs(made) == [("two", TORCH, "one", TORCH, 0), ("two", ORT, "one", ORT, 1)]
    assert made.title == "Run one against run two"
    ((run, left, reason),) = [(left.run, left.case, left.reason) for left in made.left_out]
    assert (run, left, reason) == ("one", INT8, "in two it is failed: because of it")
    written = made.to_dict(0)
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["left_out"] == [{"run": "one", "case_id": INT8.case_id, "label": INT8.label, "reason": reason}]
    assert [ledger["n_flips"] for ledger in written["ledgers"]] == [0, 1]
    assert written["ledgers"][1]["flips"] == []


def test_runs_without_a_case_in_common_name_what_could_be_compared(runs):
    make(runs / "three", {case(scenario="accuracy", batch=64): RIGHT})
    found = mistake("two", "three")
    assert "no accuracy Case in common" in found.what
    assert f"two:{TORCH.case_id}" in found.do
    assert "three:" in found.do


def test_any_two_cases_can_be_compared(runs):
    made = named(f"two:{ORT.case_id}", f"one:{INT8.case_id}")
    assert pairs(made) == [("two", ORT, "one", INT8, 1)]
    assert made.title == f"{INT8.label} ({INT8.case_id}) of one against {ORT.label} ({ORT.case_id}) of two"
    assert pairs(named(f"one:{ORT.case_id}", f"one:{TORCH.case_id}")) == [("one", ORT, "one", TORCH, 1)]


def test_a_run_beside_a_case_stands_for_the_same_case(runs):
    assert pairs(named("one", ORT.case_id)) == [("one", ORT, "two", ORT, 1)]
    assert pairs(named(ORT.case_id, "one")) == [("two", ORT, "one", ORT, 1)]
    assert "is failed: because of it (run two)" in mistake(f"one:{INT8.case_id}", "two").what


def test_other_images_are_noted_and_demo_is_marked(tmp_path):
    datasets = [{"is_demo": False, "fingerprint": "ab" * 32}, {"is_demo": True, "fingerprint": "cd" * 32}]
    for name, dataset in zip(("one", "two"), datasets, strict=True):
        make(tmp_path / name, {TORCH: RIGHT}, {"dataset": dataset})
    made = named(str(tmp_path / "one"), str(tmp_path / "two"))
    assert made.notes == ("the image sets differ (fingerprints abababababab, cdcdcdcdcdcd): images are paired by id",)
    assert made.is_demo


def test_demo_weights_are_marked_and_scored_on_demo_images_only(tmp_path):
    scored = {case(scenario="accuracy", weights="demo", backend=name): RIGHT for name in ("pytorch", "onnxruntime")}
    for is_demo in (True, False):
        folder = make(tmp_path / f"run{is_demo}", scored, {"dataset": {"is_demo": is_demo}})
        made = named(str(folder.path))
        assert made.is_demo
        assert (made.ledgers[0].top1 is None) is not is_demo
        assert made.ledgers[0].no_accuracy == ("" if is_demo else FOREIGN_NOTE)


def test_names_that_lead_nowhere(runs):
    assert mistake("no/such").what == "there is no folder 'no/such'"
    assert mistake("nothing:abc").what == "there is no folder 'nothing'"
    assert mistake("results").what.startswith("results holds no run")
    found = mistake("zzz")
    assert found.what == "run two has no Case 'zzz'"
    assert ORT.case_id in found.do
    assert "no Case ''" in mistake("one:").what
    assert mistake("one", "one").what == "both sides are run one"
    assert "both sides are Case" in mistake(f"one:{ORT.case_id}", f"./one:{ORT.case_id}").what
    timed = mistake(f"one:{TIMED.case_id}")
    assert "is timed: latencies are compared only inside one run" in timed.what
    assert TORCH.case_id in timed.do
    (runs / "results/latest").unlink()
    assert "there is no results/latest" in mistake("zzz").what


def test_ids_may_be_cut_short_while_they_are_unambiguous(tmp_path):
    """Seventeen ids share a first sign somewhere."""
    scored = {case(scenario="accuracy", batch=batch): RIGHT for batch in range(1, 18)}
    run = ScoredRun.open(make(tmp_path / "run", scored).path)
    for one in scored:
        assert run.find(one.case_id) is run.predicted[one.case_id]
        others = [other.case_id for other in scored if other != one]
        sign = one.case_id[0]
        if any(other.startswith(sign) for other in others):
            with pytest.raises(BenchError, match=f"'{sign}' is the beginning of"):
                run.find(sign)
        else:
            assert run.find(sign).case == one
    assert len({one.case_id[0] for one in scored}) < len(scored)


def test_a_short_id_means_the_accuracy_case(tmp_path):
    by_sign = {}
    for batch in range(1, 200):
        by_sign.setdefault(case(batch=batch).case_id[0], case(batch=batch))
    timed = by_sign[TORCH.case_id[0]]
    run = ScoredRun.open(make(tmp_path / "run", {timed: None, TORCH: RIGHT}).path)
    assert run.find(TORCH.case_id[0]).case == TORCH


def test_lost_predictions_are_told(tmp_path):
    run = ScoredRun.open(make(tmp_path / "run", {TORCH: RIGHT, ORT: None}).path)
    with pytest.raises(BenchError, match="has lost its predictions"):
        run.find(ORT.case_id)
    empty = ScoredRun.open(make(tmp_path / "empty", {ORT: None}).path)
    with pytest.raises(BenchError, match="--scenarios accuracy"):
        empty.find(ORT.case_id)


def test_predictions_are_read_as_they_were_written(tmp_path):
    folder = make(tmp_path / "run", {TORCH: RIGHT, ORT: dict(reversed(WRONG_C.items()))})
    for _ in range(2):
        run = ScoredRun.open(folder.path)
        assert list(run.predicted) == [TORCH.case_id, ORT.case_id]
        own, other = run.predicted.values()
        assert own.image_ids is other.image_ids
        assert list(other.image_ids[other.image]) == list("edcba")
        assert other.label.tolist() == [4, 3, 2, 1, 0]
        assert other.top[2].tolist() == [5, 2, 7, 8, 9]
        np.testing.assert_array_equal(other.margin, np.full(5, 0.5, dtype=np.float32))
        assert run.reference is own
        folder.merge_parts()


@pytest.mark.parametrize(
    ("weights", "is_demo", "reason"),
    [
        ("random", False, RANDOM_NOTE),
        ("random", True, RANDOM_NOTE),
        ("demo", False, FOREIGN_NOTE),
        ("demo", True, ""),
        ("user", True, ""),
        ("official", False, ""),
    ],
)
def test_who_may_be_scored(weights, is_demo, reason):
    assert no_accuracy(case(weights=weights), is_demo) == reason


def test_the_reference_needs_predictions():
    results = [CaseResult(one, Status.OK) for one in (TIMED, ORT, TORCH)]
    everything = [one.case.case_id for one in results]
    assert reference_case(results, everything) == TORCH
    assert reference_case(results, [TIMED.case_id, ORT.case_id]) == ORT
    assert reference_case(results, [TIMED.case_id]) is None
