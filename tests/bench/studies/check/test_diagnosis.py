"""What predictions prove about a fault: each relation is found, and an unrelated change proves nothing."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from snapshots import row, snapshot

from bench.studies.check.rows import Pair, of_labels, of_order, of_rows

N, BATCH = 320, 32
SOURCE = np.random.default_rng(0)
LABELS = np.sort(SOURCE.choice(1000, 60, replace=False))[np.sort(SOURCE.integers(0, 60, N))].astype(np.int16)
# As a network does: one in ten wrong.
BEFORE = np.where(SOURCE.random(N) < 0.1, SOURCE.integers(0, 1000, N), LABELS).astype(np.int16)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (np.insert(BEFORE, 50, BEFORE[49])[:N], "off by 1: an image was counted twice"),
        (np.insert(BEFORE, 50, BEFORE[48:50])[:N], "off by 2: 2 images were counted twice"),
        # The two images of that place are predicted alike.
        (
            np.append(np.delete(BEFORE, 50), np.int16(3)),
            "image 52 on the predictions are off by 1: an image was skipped",
        ),
        (np.roll(BEFORE, 1), "off by 1"),
        (np.roll(BEFORE, -40), "another order of the images"),
        (BEFORE[::-1].copy(), "another order of the images"),
        (BEFORE.reshape(-1, BATCH)[::-1].ravel(), "the batches of 32 in another order"),
        (np.random.default_rng(1).permutation(BEFORE), "another order of the images"),
    ],
)
def test_the_same_predictions_in_another_order_are_recognised(after: NDArray[np.int16], said: str) -> None:
    assert said in of_order(BEFORE, after, BATCH)


def test_unrelated_changes_prove_nothing() -> None:
    """Seeded changes of any extent: no relation may be found where there is none."""
    for seed in range(200):
        source = np.random.default_rng(seed)
        after = BEFORE.copy()
        places = source.choice(N, source.integers(1, N), replace=False)
        after[places] = source.integers(0, 1000, len(places))
        assert of_order(BEFORE, after, BATCH) == "", seed
    few = BEFORE.copy()
    few[:4] = few[3::-1]
    assert of_order(BEFORE, few, BATCH) == ""


def test_labels_by_folder_rank_are_proven() -> None:
    ranks = np.unique(LABELS, return_inverse=True)[1].astype(np.int16)
    assert "rank of its folder among the" in of_labels(LABELS, ranks)
    for other in (LABELS, LABELS + 1, np.random.default_rng(0).permutation(LABELS)):
        assert of_labels(LABELS, other.astype(np.int16)) == ""


CHANGED = np.where(np.arange(N) % 3 == 0, 999, BEFORE).astype(np.int16)


def pair(backend: str, after: Any = CHANGED, precision: str = "fp32", pixels: str = "p") -> Pair:
    return Pair(row(BEFORE, LABELS, backend, precision), row(after, LABELS, backend, precision, pixels=pixels))


def common(failing: list[Pair], passing: list[Pair], graph: str = "o" * 64, **more: Any) -> list[tuple[str, str]]:
    weights = {"label": "official", "sha256": "w" * 64, "onnx_sha256": graph}
    before, now = snapshot(LABELS, []), snapshot(LABELS, [], weights=weights, **more)
    return list(of_rows(failing, passing, before, now))


def test_all_backends_alike_on_the_same_pixels_are_the_network() -> None:
    ((stage, text),) = common([pair("pytorch"), pair("onnxruntime"), pair("openvino")], [])
    assert stage == "weights"
    assert "onnxruntime and openvino and pytorch changed alike" in text


def test_other_pixels_are_no_backends_fault() -> None:
    failing = [pair("pytorch", pixels="q"), pair("onnxruntime", pixels="q")]
    ((stage, text),) = common(failing, [])
    assert stage == ""
    assert "their digests differ" in text
    assert common(failing, [], info={"blame": {"dali": "crop"}})[0][0] == "crop"


def test_other_pixels_of_the_reference_itself_name_its_stage() -> None:
    before = {"probes": {"files": "f", "decode": "d", "resize": "r", "crop": "c", "normalise": "n"}}
    floored = {"probes": {**before["probes"], "crop": "x", "normalise": "y"}}
    failing = [pair("onnxruntime", pixels="q"), pair("pytorch", pixels="q")]
    known, now = (snapshot(LABELS, [], reference=made) for made in (before, floored))
    (((stage, text), members),) = of_rows(failing, [], known, now).items()
    assert (stage, len(members)) == ("crop", 2)
    assert "the reference itself makes other pixels of the same files, from the stage crop on" in text
    (((stage, _), _),) = of_rows(failing, [], known, known).items()
    assert stage == ""


def test_all_users_of_the_graph_but_not_pytorch_are_the_export() -> None:
    passing = [pair("pytorch", BEFORE)]
    ((stage, text),) = common([pair("onnxruntime"), pair("openvino")], passing)
    assert (stage, "exported graph" in text) == ("export", True)
    ((stage, text),) = common([pair("onnxruntime")], passing, graph="x" * 64)
    assert stage == "export"
    assert "whose digest is not the baseline's" in text


def test_one_backend_alone_is_the_backend_and_its_update_is_named() -> None:
    passing = [pair("pytorch", BEFORE), pair("openvino", BEFORE)]
    ((stage, text),) = common([pair("onnxruntime")], passing, packages={"onnxruntime": "1.1", "torch": "2.0"})
    assert stage == "backend"
    assert "onnxruntime 1.0 before, 1.1 now" in text
    assert common([pair("pytorch")], [pair("openvino", BEFORE)])[0][0] == "backend"


def test_what_differs_in_different_ways_proves_nothing() -> None:
    other = np.where(np.arange(N) % 3 == 0, 998, BEFORE).astype(np.int16)
    assert common([pair("pytorch"), pair("onnxruntime", other)], []) == []
    assert common([pair("onnxruntime")], []) == []
    assert common([pair("onnxruntime", pixels="")], [pair("pytorch", BEFORE)]) == []


def test_precisions_are_looked_at_apart() -> None:
    failing = [pair("onnxruntime", precision="int8")]
    assert common(failing, [pair("pytorch", BEFORE), pair("onnxruntime", BEFORE)]) == []
    both = [
        pair(backend, precision=precision) for precision in ("fp32", "fp16") for backend in ("pytorch", "onnxruntime")
    ]
    ((_, members),) = of_rows(both, [], snapshot(LABELS, []), snapshot(LABELS, [])).items()
    assert members == both, "the same sentence explains the rows of both"
