"""What predictions prove about a fault: each relation is found, and an unrelated change proves nothing."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from snapshots import row, snapshot

from bench.studies.check.diagnosis import STAGES, Finding, Pair, folder_rank, of_labels, of_row, of_rows

N, BATCH = 320, 32
SOURCE = np.random.default_rng(0)
LABELS = np.sort(SOURCE.choice(1000, 60, replace=False))[np.sort(SOURCE.integers(0, 60, N))].astype(np.int16)
# As a network does: one in ten wrong.
BEFORE = np.where(SOURCE.random(N) < 0.1, SOURCE.integers(0, 1000, N), LABELS).astype(np.int16)


def found(after: NDArray[np.int16]) -> Finding:
    finding = of_row(BEFORE, after, LABELS, BATCH)
    assert finding.stage in (*STAGES, "")
    return finding


@pytest.mark.parametrize("places", [1, -1, 5, 32, -40])
def test_a_shift_is_found_with_its_length(places: int) -> None:
    finding = found(np.roll(BEFORE, places))
    assert finding.stage == "order"
    assert f"{abs(places)} images {'later' if places > 0 else 'earlier'}" in finding.text


def test_a_shift_with_a_few_other_changes_is_still_one() -> None:
    after = np.roll(BEFORE, 7)
    after[5] = 1
    assert found(after).stage == "order"


@pytest.mark.parametrize(("places", "what"), [(1, "an image was counted twice"), (2, "2 images were counted twice")])
def test_an_image_counted_twice_puts_the_rest_off(places: int, what: str) -> None:
    after = np.insert(BEFORE, 50, BEFORE[50 - places : 50])[:N]
    finding = found(after)
    assert finding.stage == "order"
    assert what in finding.text
    assert "off by" in finding.text


def test_a_skipped_image_is_told_from_one_counted_twice() -> None:
    after = np.append(np.delete(BEFORE, 50), np.int16(3))
    finding = found(after)
    assert "an image was skipped" in finding.text
    assert "from image 52 on" in finding.text  # the two images of that place are predicted alike


def test_ranks_among_more_folders_than_these_images_show_are_recognised() -> None:
    classes = np.array([3, 40, 41, 90, 300, 500, 501, 502, 640, 990], dtype=np.int16)
    ranks = np.array([1, 9, 10, 30, 120, 200, 201, 202, 300, 500], dtype=np.int16)
    assert "closer together" in of_labels(classes, ranks)
    assert "closer together" not in of_labels(classes, ranks[::-1].copy())
    assert "closer together" not in of_labels(classes, (classes - 3).astype(np.int16))


def test_orders_are_told_apart() -> None:
    batches = BEFORE.reshape(-1, BATCH)
    source = np.random.default_rng(1)
    assert "reverse" in found(BEFORE[::-1].copy()).text
    assert "inside the batches of 32" in found(source.permuted(batches, axis=1).ravel()).text
    assert "the batches of 32 in another order" in found(batches[source.permutation(10)].ravel()).text
    anyhow = found(source.permutation(BEFORE))
    assert anyhow.stage == "order"
    assert "another order of the images" in anyhow.text


def test_ranks_in_place_of_classes_are_a_fault_of_labels() -> None:
    finding = found(folder_rank(BEFORE, LABELS))
    assert finding.stage == "labels"
    assert "ranks of the folders" in finding.text


def test_a_constant_offset_of_classes_is_a_fault_of_labels() -> None:
    finding = found((BEFORE + 1).astype(np.int16))
    assert (finding.stage, finding.text) == ("labels", "every predicted class is 1 higher than in the baseline")


def test_classes_renamed_one_to_one_are_a_fault_of_labels() -> None:
    renamed = np.random.default_rng(2).permutation(1000).astype(np.int16)
    finding = found(renamed[BEFORE])
    assert finding.stage == "labels"
    assert "renamed one to one" in finding.text


def test_one_class_for_everything_is_told_without_a_stage() -> None:
    finding = found(np.full(N, 7, dtype=np.int16))
    assert finding.stage == ""
    assert "100 % of the images are predicted as class 7" in finding.text


def test_unrelated_changes_prove_nothing() -> None:
    """Seeded changes of any extent: no relation may be found where there is none."""
    for seed in range(200):
        source = np.random.default_rng(seed)
        after = BEFORE.copy()
        places = source.choice(N, source.integers(1, N), replace=False)
        after[places] = source.integers(0, 1000, len(places))
        assert of_row(BEFORE, after, LABELS, BATCH) is None, seed


def test_a_few_images_prove_nothing() -> None:
    after = BEFORE.copy()
    after[:4] = after[3::-1]
    assert of_row(BEFORE, after, LABELS, BATCH) is None


def test_labels_by_folder_rank_are_proven() -> None:
    assert "rank of its folder among the" in of_labels(LABELS, folder_rank(LABELS, LABELS))
    assert of_labels(LABELS, LABELS) == ""
    assert "every label is 1 higher" in of_labels(LABELS, (LABELS + 1).astype(np.int16))
    assert of_labels(LABELS, np.random.default_rng(0).permutation(LABELS)) == ""


CHANGED = np.where(np.arange(N) % 3 == 0, 999, BEFORE).astype(np.int16)


def pair(backend: str, after: Any = CHANGED, precision: str = "fp32", pixels: str = "p") -> Pair:
    return Pair(row(BEFORE, LABELS, backend, precision), row(after, LABELS, backend, precision, pixels=pixels))


def common(failing: list[Pair], passing: list[Pair], graph: str = "o" * 64, **more: Any) -> list[tuple[str, str]]:
    weights = {"label": "official", "sha256": "w" * 64, "onnx_sha256": graph}
    before, now = snapshot(LABELS, []), snapshot(LABELS, [], weights=weights, **more.pop("snapshot", {}))
    return [(finding.stage, finding.text) for finding in of_rows(failing, passing, before, now, **more)]


def test_all_backends_alike_on_the_same_pixels_are_the_network() -> None:
    ((stage, text),) = common([pair("pytorch"), pair("onnxruntime"), pair("openvino")], [])
    assert stage == "weights"
    assert "onnxruntime and openvino and pytorch changed alike" in text


def test_other_pixels_are_no_backends_fault() -> None:
    failing = [pair("pytorch", pixels="q"), pair("onnxruntime", pixels="q")]
    ((stage, text),) = common(failing, [])
    assert stage == ""
    assert "their digests differ" in text
    assert common(failing, [], blame={"dali": "crop"})[0][0] == "crop"


def test_other_pixels_of_the_reference_itself_name_its_stage() -> None:
    before = {"probes": {"files": "f", "decode": "d", "resize": "r", "crop": "c", "normalise": "n"}}
    floored = {"probes": {**before["probes"], "crop": "x", "normalise": "y"}}
    failing = [pair("onnxruntime", pixels="q"), pair("pytorch", pixels="q")]
    known, now = (snapshot(LABELS, [], reference=made) for made in (before, floored))
    (finding,) = of_rows(failing, [], known, now)
    assert (finding.stage, len(finding.case_ids)) == ("crop", 2)
    assert "the reference itself makes other pixels of the same files, from the stage crop on" in finding.text
    (finding,) = of_rows(failing, [], known, known)
    assert finding.stage == ""


def test_all_users_of_the_graph_but_not_pytorch_are_the_export() -> None:
    passing = [pair("pytorch", BEFORE)]
    ((stage, text),) = common([pair("onnxruntime"), pair("openvino")], passing)
    assert (stage, "exported graph" in text) == ("export", True)
    ((stage, text),) = common([pair("onnxruntime")], passing, graph="x" * 64)
    assert stage == "export"
    assert "whose digest is not the baseline's" in text


def test_one_backend_alone_is_the_backend_and_its_update_is_named() -> None:
    passing = [pair("pytorch", BEFORE), pair("openvino", BEFORE)]
    update = {"packages": {"onnxruntime": "1.1", "torch": "2.0"}}
    ((stage, text),) = common([pair("onnxruntime")], passing, snapshot=update)
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
