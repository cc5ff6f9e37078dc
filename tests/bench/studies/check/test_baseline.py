"""Snapshots of runs, and baseline files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from baseline_run import IMAGES, ORT, PYTORCH, made_run
from report_run import add_samples, case, end, make_run
from snapshots import row, snapshot

from bench.record.case import Status
from bench.studies.check import baseline
from bench.studies.check.snapshot import UNREADABLE, Snapshot, of_run
from pipelines.imagenet.find import DEMO_MARKER
from scarlet.errors import BenchError


def test_a_snapshot_holds_predictions_in_the_order_of_the_images(tmp_path: Path) -> None:
    found = of_run(made_run(tmp_path / "run", {PYTORCH: [0, 1, 2, 9, -1, 5]}))
    (scored,) = found.rows
    assert scored.top1.tolist() == [0, 1, 2, 9, UNREADABLE, 5]
    assert (scored.n_images, scored.top1_right, scored.input_sha256) == (5, 4, "p")
    assert found.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert found.weights == {"label": "official", "sha256": "w" * 64, "onnx_sha256": "o" * 64}


MIXED = {"blame": "whole path", "images": {"problem": ""}, "probes": {"problem": "1 image did not come out"}}


@pytest.mark.parametrize(
    ("report", "status", "reason", "stage"),
    [
        ({"blame": "resize"}, Status.INVALID, "other  pixels", "resize"),
        # A pipeline that mixes up its images.
        (MIXED, Status.INVALID, "other  pixels", "order"),
        ({**MIXED, "probes": {"problem": ""}}, Status.INVALID, "other  pixels", ""),
        ({}, Status.FAILED, "RuntimeError: 6 images went in; 4 predictions came out", "order"),
        ({}, None, "", ""),
    ],
)
def test_a_row_that_is_not_ok_keeps_reason_and_stage(tmp_path, report, status, reason, stage):
    info = {"preprocessing": {"dali": {"status": "invalid", "report": report}}}
    folder = make_run(tmp_path / "run", [PYTORCH], info)
    folder.write_images(IMAGES)
    if status:
        end(folder, PYTORCH, status, reason=reason)
    (found,) = of_run(folder).rows
    assert (found.status, found.stage) == (status or Status.INTERRUPTED, stage)
    assert " ".join(reason.split()) in found.reason


def test_a_baseline_keeps_what_the_references_stages_made(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", {PYTORCH: [0, 1, 2, 3, 4, 5]})
    made = {"probes": {"files": "f" * 16, "decode": "d" * 16}}
    run.write_run_info({**run.read_run_info(), "reference": made})
    baseline.write(of_run(run), tmp_path / "b.json")
    assert baseline.read(tmp_path / "b.json").reference == made
    older = json.loads((tmp_path / "b.json").read_text())
    del older["reference"]
    (tmp_path / "b.json").write_text(json.dumps(older))
    assert baseline.read(tmp_path / "b.json").reference == {}


@pytest.mark.parametrize(
    ("spoil", "stage", "said"),
    [
        ("twice", "order", "1 image is counted more than once"),
        ("dropped", "order", "2 of 6 images have no prediction"),
        ("foreign", "data", "1 predictions are of images that are not in the run's list"),
        ("labels", "labels", "labels beside the predictions"),
        ("lost", "", "predictions are missing"),
    ],
)
def test_predictions_that_are_not_one_an_image_are_invalid(tmp_path: Path, spoil: str, stage: str, said: str) -> None:
    folder = make_run(tmp_path / "run", [PYTORCH])
    folder.write_images(IMAGES)
    rows = [(name, label, label) for name, label in IMAGES]
    if spoil == "twice":
        rows[3] = rows[2]
    rows = rows[:4] if spoil == "dropped" else rows
    if spoil == "foreign":
        rows[0] = ("valid/other.JPEG", 0, 0)
    if spoil == "labels":
        rows[0] = (rows[0][0], 7, 0)
    if spoil != "lost":
        folder.write_predictions_part(
            PYTORCH.case_id,
            image_id=[name for name, _, _ in rows],
            label=np.array([label for _, label, _ in rows]),
            top=np.array([[top1] for _, _, top1 in rows]),
            margin=np.zeros(len(rows), dtype=np.float32),
        )
    end(folder, PYTORCH)
    (found,) = of_run(folder).rows
    assert (found.status, found.stage, found.top1) == (Status.INVALID, stage, None)
    assert said in found.reason


def test_a_run_without_its_list_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"there is no images\.json"):
        of_run(make_run(tmp_path / "run", [PYTORCH]))


def written(tmp_path: Path, source: Snapshot) -> Path:
    path = tmp_path / "baselines" / "some.json"
    baseline.write(source, path)
    return path


def test_a_baseline_comes_back_as_it_was(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", {PYTORCH: [0, 1, 2, 9, -1, 5], ORT: [0, 1, 2, 9, -1, 5]})
    source = of_run(run)
    path = written(tmp_path, source)
    found = baseline.read(path)
    assert [each.case for each in found.rows] == [ORT, PYTORCH]
    by_case = {each.case: each for each in source.rows}
    for each in found.rows:
        before = by_case[each.case]
        assert each.top1.tolist() == before.top1.tolist()
        assert each.predictions_sha256 == before.predictions_sha256
        assert (each.top1_right, each.top5_right) == (before.top1_right, before.top5_right)
    assert found.ids_sha256 == source.ids_sha256
    assert found.labels.tolist() == source.labels.tolist()
    content = json.loads(path.read_text())
    assert len(content["predictions"]) == 1  # both rows predicted the same
    assert list(content) == sorted(content)


def test_leads_are_kept_and_may_be_missing(tmp_path: Path) -> None:
    labels = np.arange(60) % 7
    lead = np.linspace(0, 1, 60, dtype=np.float32)
    info = {"settings": {}, "git": {}, "host": {}, "created_at": "x"}
    path = written(tmp_path, snapshot(labels, [row(labels, labels, margin=lead)], info=info))
    (kept,) = baseline.read(path).rows
    assert kept.margin.dtype == np.float32
    assert kept.margin.tolist() == lead.tolist()
    content = json.loads(path.read_text())
    spoilt = {**content, "leads": {key: lines[::-1] for key, lines in content["leads"].items()}}
    path.write_text(json.dumps(spoilt))
    with pytest.raises(BenchError, match="was edited"):
        baseline.read(path)
    # As files were before leads were kept.
    del content["leads"], content["accuracy"][0]["leads"]
    path.write_text(json.dumps(content))
    assert baseline.read(path).rows[0].margin is None


def test_a_change_of_one_prediction_changes_a_few_lines(tmp_path: Path) -> None:
    labels = np.arange(512) % 100
    first = row(labels, labels)
    changed = labels.copy()
    changed[300] = 7
    info = {"settings": {}, "git": {}, "host": {}, "created_at": "x"}
    one = written(tmp_path / "a", snapshot(labels, [first], info=info)).read_text().splitlines()
    two = written(tmp_path / "b", snapshot(labels, [row(changed, labels)], info=info)).read_text().splitlines()
    assert len(one) == len(two)
    differing = [(a, b) for a, b in zip(one, two, strict=True) if a != b]
    # The row's digests and count, the key of its predictions, and one line of them.
    assert len(differing) == 5
    assert max(map(len, one)) < 140
    assert sum(map(len, one)) < 12_000


def test_a_baseline_tells_which_rows_it_left_out_and_none_is_made_of_nothing(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", {PYTORCH: [0] * 6})
    end(run, ORT, Status.UNAVAILABLE, reason="not installed")
    left_out = baseline.write(of_run(run), tmp_path / "b.json")
    assert [each.case for each in left_out] == [ORT]
    none = make_run(tmp_path / "none", [PYTORCH])
    none.write_images(IMAGES)
    end(none, PYTORCH, Status.UNAVAILABLE, reason="not installed")
    with pytest.raises(BenchError, match="unavailable, not installed"):
        baseline.write(of_run(none), tmp_path / "b.json")


def test_ratios_are_kept(tmp_path: Path) -> None:
    slow, fast = case(batch=8), case(backend="onnxruntime", batch=8)
    run = made_run(tmp_path / "run", {PYTORCH: [0] * 6})
    info = run.read_run_info()
    info["plan"]["cases"] += [slow.to_dict(), fast.to_dict()]
    run.write_run_info(info)
    for timed, time in ((slow, 2000), (fast, 1000)):
        add_samples(run, timed, [time + place for place in range(40)])
        end(run, timed, stage="compute")
    source = of_run(run, with_timed=True)
    (kept,) = baseline.read(written(tmp_path, source)).timed
    assert (kept.case, kept.reference) == (fast, slow)
    assert kept.ratio == pytest.approx(0.5, abs=0.01)
    assert kept.low is not None
    settings = baseline.spec_of(baseline.read(written(tmp_path, source)), latency=True)
    assert settings.scenarios == ("accuracy", "latency")


def test_the_settings_repeat_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {
        "model": "scarlet_c",
        "data": str(tmp_path / "data" / "mine"),
        "checkpoint": "/elsewhere/net.pth",
        "images": "",
        "backends": "pytorch",
        "scenarios": "latency",
        "options": ["pytorch.form=plain"],
        "exclude": [],
        "of_a_later_version": 1,
    }
    run = made_run(tmp_path / "run", {PYTORCH: [0] * 6}, info={"settings": settings})
    found = baseline.read(written(tmp_path, of_run(run)))
    again = baseline.spec_of(found)
    assert (again.data, again.checkpoint, again.images) == ("data/mine", "/elsewhere/net.pth", "6")
    assert (again.scenarios, again.backends, again.options) == (
        ("accuracy",),
        ("pytorch",),
        {"pytorch": {"form": ("plain",)}},
    )
    moved = baseline.spec_of(found, "/other", "/other.pth")
    assert (moved.data, moved.checkpoint) == ("/other", "/other.pth")


def test_a_baseline_of_demo_images_names_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "data" / "demo" / "6"
    dataset = {"root": str(root), "n_images_in_set": 6, "is_demo": True, "fingerprint": "f"}
    info = {"dataset": dataset, "settings": {"data": str(root)}}
    source = of_run(made_run(tmp_path / "run", {PYTORCH: [0] * 6}, info=info))
    assert str(tmp_path) not in written(tmp_path, source).read_text()
    assert baseline.default_path("scarlet_c", True) == Path("results/baselines/scarlet_c-demo.json")
    assert baseline.default_path("onnx:/a/net v2.onnx", False).name == "net_v2.onnx.json"
    assert baseline.is_demo(None)
    assert not baseline.is_demo(str(tmp_path))
    (tmp_path / DEMO_MARKER).touch()
    assert baseline.is_demo(str(tmp_path))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda text: None, "cannot be read"),
        (lambda text: "{", "is no baseline"),
        (lambda text: "[]", "is no baseline"),
        (lambda text: text.replace('"schema": 1', '"schema": 9'), "newer"),
        (lambda text: text.replace('"top1": "', '"top1": "x'), "was edited"),
        (lambda text: text.replace("AAABAAIA", "AAABAAEA", 1), "labels"),
        (lambda text: text.replace("AAABAAIACQ", "AAABAAIAAQ", 1), "predictions"),
        (lambda text: text.replace("AAABAAIACQ", "!!!!", 1), "was edited"),
    ],
)
def test_a_damaged_baseline_is_refused_with_what_to_do(tmp_path: Path, spoil: Any, said: str) -> None:
    path = written(tmp_path, of_run(made_run(tmp_path / "run", {PYTORCH: [0, 1, 2, 9, -1, 5]})))
    spoilt = spoil(path.read_text())
    path.unlink() if spoilt is None else path.write_text(spoilt)
    with pytest.raises(BenchError) as raised:
        baseline.read(path)
    assert said in raised.value.what
    assert "scarlet-bench baseline" in raised.value.do
