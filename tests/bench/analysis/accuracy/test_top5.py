from functools import partial

import numpy as np
import pytest

from bench.analysis.accuracy.top5 import Predictions, top_and_margin


def test_leads_of_probabilities_are_those_of_the_logits_that_gave_them():
    logits = np.random.default_rng(0).standard_normal((64, 1000)).astype(np.float32) * 9
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    ids = [str(number) for number in range(64)]
    (_, top, margin), (_, of_shares, lead) = (kept.columns() for kept in map(partial(added, ids), (logits, shares)))
    np.testing.assert_array_equal(of_shares, top)
    np.testing.assert_allclose(lead, margin, atol=1e-5)
    assert [added(ids, values).are_probabilities for values in (logits, shares)] == [False, True]


def added(ids, logits, among=()):
    kept = Predictions(ids, among)
    kept.add(np.arange(len(ids)), logits)
    return kept


def test_predictions_are_chosen_among_the_classes_that_are_named():
    logits = np.array([[9.0, 1.0, 5.0, 2.0, 0.0]], dtype=np.float32)
    _, top, margin = added(["a"], logits, (1, 2, 3)).columns()
    assert top.tolist() == [[2, 3, 1, -1, -1]]
    assert margin[0] == pytest.approx((np.exp(5) - np.exp(2)) / np.exp([1, 5, 2]).sum())


def test_top_five_are_in_order_and_the_margin_is_of_probabilities() -> None:
    logits = np.log(np.array([[0.05, 0.4, 0.1, 0.25, 0.15, 0.05]], dtype=np.float32))
    top, margin = top_and_margin(logits)
    assert top.tolist() == [[1, 3, 4, 2, 0]]
    assert margin[0] == pytest.approx(0.4 - 0.25, abs=1e-6)
    top, margin = top_and_margin(np.zeros((2, 7), dtype=np.float32))
    assert top.tolist() == [[0, 1, 2, 3, 4]] * 2, "equal logits by class"
    assert margin.tolist() == [0.0, 0.0]


def test_ties_are_decided_by_image_alike_for_all_and_favour_no_class() -> None:
    ids = [f"valid/{place}.JPEG" for place in range(400)]
    logits = np.zeros((400, 9), dtype=np.float32)
    logits[:, [2, 6]] = 3.0
    logits[:, 4] = 1.0
    top, margin = top_and_margin(logits, ids)
    assert not margin.any()
    assert (np.sort(top[:, :2], axis=1) == [2, 6]).all()
    assert (top[:, 2] == 4).all()
    assert 160 < np.count_nonzero(top[:, 0] == 6) < 240
    # Whatever else the logits hold, and whoever asks: the same image, the same choice.
    other, _ = top_and_margin(logits[::-1] * 2 - 1, ids[::-1])
    assert (other[::-1, 0] == top[:, 0]).all()
    # Six of equal logits for the last two of the five places.
    assert len(set(map(tuple, top[:, 3:].tolist()))) > 20


def test_without_ties_ids_change_nothing() -> None:
    logits = np.random.default_rng(0).standard_normal((50, 20)).astype(np.float32)
    for plain, named in zip(top_and_margin(logits), top_and_margin(logits, list("ab" * 25)), strict=True):
        np.testing.assert_array_equal(plain, named)


def test_large_logits_do_not_overflow() -> None:
    top, margin = top_and_margin(np.array([[3e38, 1.0, 0.0, 0.0, 0.0, 0.0]], dtype=np.float32))
    assert top[0, 0] == 0
    assert margin[0] == 1.0


def test_fewer_classes_than_five_are_filled_with_minus_one() -> None:
    top, margin = top_and_margin(np.array([[0.0, 1.0]], dtype=np.float32))
    assert top.tolist() == [[1, 0, -1, -1, -1]]
    top, margin = top_and_margin(np.array([[0.0]], dtype=np.float32))
    assert top.tolist() == [[0, -1, -1, -1, -1]]
    assert margin.tolist() == [1.0]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_refused(poison: float) -> None:
    logits = np.zeros((3, 10), dtype=np.float32)
    logits[1, 4] = poison
    with pytest.raises(ValueError, match="NaN or infinite"):
        top_and_margin(logits)


def test_predictions_add_up_over_batches() -> None:
    source = np.random.default_rng(0)
    logits = source.standard_normal((10, 20)).astype(np.float32)
    ids = [f"{place}.JPEG" for place in range(10)]
    whole, parts = Predictions(ids), Predictions(ids)
    whole.add(np.arange(10), logits)
    for start in (0, 4, 8):
        parts.add(np.arange(10)[start : start + 4], logits[start : start + 4])
    assert parts.n_images == 10
    for one, other in zip(whole.columns(), parts.columns(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [column.shape for column in Predictions([]).columns()] == [(0,), (0, 5), (0,)]


def test_a_row_too_few_is_noticed() -> None:
    with pytest.raises(ValueError, match="3 images went in and 2 rows"):
        Predictions([]).add(np.arange(3), np.zeros((2, 5), dtype=np.float32))
