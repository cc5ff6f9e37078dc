"""What predictions show of labels, classes and logits that were read otherwise than meant; and no false alarms."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pandas as pd
import pytest

from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.accuracy.reading import Labels, Read, judge, read_real, score_real
from scarlet.errors import BenchError

PUBLISHED = Path(__file__).resolve().parents[4] / "results" / "published"
IMAGENET = Read(n_logits=1000, n_classes=1000, n_among=1000)
SHUFFLED = np.random.default_rng(0).permutation(1000)


@pytest.fixture(scope="module", params=["scarlet_c-cpu-2026-11-22", "gate-2026-11-30", "int8-2026-11-22"])
def rows(request: pytest.FixtureRequest) -> list[pd.DataFrame]:
    """Real predictions of the demo weights on 512 or 2,000 demo images: of each Case."""
    frame = pd.read_parquet(PUBLISHED / request.param / "predictions.parquet")
    return [rows for _, rows in frame.groupby("case_id", observed=True)]


def kinds(top1: Labels, labels: Labels, read: Read = IMAGENET) -> list[str]:
    return [finding.kind for finding in judge(np.asarray(top1), np.asarray(labels), read)]


def test_sound_rows_are_left_alone_however_few_images_they_have(rows: list[pd.DataFrame]) -> None:
    for row in rows:
        for n in (1, 7, 8, 32, 512, 2000):
            assert kinds(row["top1"].to_numpy()[:n], row["label"].to_numpy()[:n]) == []


@pytest.mark.parametrize("n", [32, 512])
@pytest.mark.parametrize(
    ("read_as", "kind"),
    [
        (lambda top1, labels: (top1 + 1, labels), "shifted"),
        (lambda top1, labels: (top1, labels + 1), "shifted"),
        (lambda top1, labels: (top1 * 0 + 7, labels), "one_class"),
        (lambda top1, labels: (top1, SHUFFLED[labels]), "chance or other_order"),
        (lambda top1, labels: (np.random.default_rng(1).integers(0, 1000, len(labels)), labels), "chance"),
    ],
)
def test_a_wrong_reading_is_noticed(rows, n, read_as, kind):
    top1, labels = (rows[0][name].to_numpy(dtype=np.int64)[:n] for name in ("top1", "label"))
    (found,) = kinds(*read_as(top1, labels))
    assert found in kind.split(" or ")
    assert kinds(*read_as(top1, labels), replace(IMAGENET, has_accuracy=False)) == []


def test_labels_in_another_order_are_told_from_chance_where_classes_have_several_images() -> None:
    labels = np.repeat(np.arange(100), 5)
    wrong = np.arange(500) % 5 == 0  # a network that is right on four images of five
    top1 = np.where(wrong, (labels + 17) % 100, labels)
    assert kinds(top1, labels) == []
    assert kinds(top1, np.random.default_rng(0).permutation(100)[labels]) == ["other_order"]


@pytest.mark.parametrize(
    ("top1", "labels"),
    [
        (np.array([3, 4] * 20), np.full(40, 3)),  # all images of one class
        (np.zeros(40, int), np.zeros(40, int)),  # and all of them right
        (np.array([1, 0] * 10 + [0, 1] * 10), np.array([0, 1] * 20)),  # two classes, at a loss
        (np.arange(40), np.where(np.arange(40) < 8, np.arange(40), 999)),  # hard images: one in five is right
    ],
)
def test_odd_sets_raise_no_alarm(top1: Labels, labels: Labels) -> None:
    assert kinds(top1, labels, Read(2, 2, 2) if labels.max() < 2 else IMAGENET) == []


@pytest.mark.parametrize(
    ("read", "expected"),
    [
        (Read(1001, 1000, 1001), ["more_classes"]),
        (Read(21841, 1000, 21841), ["more_classes"]),
        (Read(21841, 21841, 1000), []),  # the classes were named, and restricted
        (Read(1000, 10, 10), ["more_classes"]),
        (Read(21841, 1000, 200), ["more_classes"]),  # restricted, but to places in another list
        (Read(1000, 0, 1000), []),  # of a run that does not say
        (Read(20, 1000, 20), ["fewer_classes"]),
        (Read(40, 1000, 40), []),
        (replace(IMAGENET, are_probabilities=True), ["probabilities"]),
    ],
)
def test_heads_and_outputs(read: Read, expected: list[str]) -> None:
    assert kinds(np.arange(40), np.arange(40), read) == expected


def test_outputs_that_tie_are_of_a_dead_network() -> None:
    leads = np.zeros(40, dtype=np.float32)
    top1 = np.random.default_rng(0).integers(0, 1000, 40)  # ties are broken by the images' ids
    assert [one.kind for one in judge(top1, np.arange(40), IMAGENET, leads)] == ["one_class"]
    assert judge(np.arange(40), np.arange(40), IMAGENET, leads + 0.5) == []


def test_real_labels_count_any_of_an_images_classes(tmp_path: Path) -> None:
    path = tmp_path / "real.json"
    path.write_text("[[3], [], [5, 7], [9]]")
    ids = pd.Index([f"val/ILSVRC2012_val_{number:08d}.JPEG" for number in (3, 1, 2, 4, 9)])
    top = np.array([[7], [3], [1], [1], [1]], dtype=np.int16)
    one = SimpleNamespace(image_ids=ids, image=np.arange(5), top=top)
    run = cast("ScoredRun", SimpleNamespace(predicted={"a": one}))
    assert score_real(run, read_real(str(path))) == [{"text": "ReaL top-1 66.67 % of 3 images", "case_ids": ["a"]}]
    path.write_text('{"a": 1}')
    with pytest.raises(BenchError, match="ReaL"):
        read_real(str(path))
