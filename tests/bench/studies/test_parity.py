"""The table of `parity`, its exit codes, and what reports say of pixels."""

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from report_run import INFO, add_predictions, case, end, make_run
from rich.console import Console

from bench import cli
from bench.analysis.table import load_frame
from bench.record.case import Status
from bench.report.sentences import pixel_lines
from bench.report.tables import tables
from bench.run.spec import RunSpec
from bench.studies import parity
from bench.studies.parity import compare, stage_table
from pipelines.base import STAGES
from pipelines.parity.check import Comparison, StageReport
from pipelines.parity.differences import TOLERANCES, WHOLE, StageDifference
from scarlet.errors import BenchError


def difference(stage: str, **more: Any) -> StageDifference:
    tolerance = TOLERANCES[stage]
    same = StageDifference(stage, 200, 0, 0.0, 0.0, 0.0, tolerance.max_levels, tolerance.mean_levels)
    return replace(same, **more)


def compared(n_images: int = 200, **more: Any) -> Comparison:
    return Comparison(tuple(map(difference, STAGES)), difference(WHOLE), n_images, 0, 0, **more)


def with_resize(part: Comparison, **more: Any) -> Comparison:
    stages = tuple(replace(stage, **more) if stage.stage == "resize" else stage for stage in part.stages)
    return replace(part, stages=stages)


def found(images: Comparison, probes: Comparison | None = None, reason: str = "", flips: bool = True) -> dict:
    counts = {**dict.fromkeys(STAGES, 0), "resize": 1234, WHOLE: None}
    report = StageReport("dali", images, probes or compared(7), "resize" if reason else "", reason)
    return {
        "status": "invalid" if reason else "ok",
        "reason": reason,
        "report": json.loads(json.dumps(report.to_dict())),
        "flips": {"n_images": 200, "by_stage": counts, "backend": "onnxruntime"} if flips else None,
    }


def test_the_table_has_a_row_a_stage() -> None:
    part = with_resize(compared(), max_level_diff=1.0, mean_level_diff=0.00051, share_of_pixels_differing=0.00134)
    table = stage_table("dali", found(replace(part, n_fallbacks=3)))
    assert table.title == "dali against reference, 200 images"
    assert table.rows == (
        ("decode", "0", "0", "0", "0", "within"),
        ("resize", "1.00", "0.000510", "0.134", "1,234", "within"),
        ("crop", "0", "0", "0", "0", "within"),
        ("normalise", "0", "0", "0", "0", "within"),
        ("whole path", "0", "0", "0", "", "within"),
    )
    notes = " | ".join(table.notes)
    assert "flips: changed top-1 predictions of 200 images, with this one stage swapped (onnxruntime)" in notes
    assert "3 of the images: left to the reference" in notes
    assert "unreadable" not in notes


def test_a_stage_outside_says_so_and_where_only_probes_show_it() -> None:
    far = {"max_level_diff": 40.0, "n_outside": 4}
    outside = stage_table("dali", found(with_resize(compared(), **far), reason="it resizes otherwise"))
    assert outside.rows[1][-1] == "outside"
    assert outside.notes[0] == "it resizes otherwise"
    probed = stage_table("dali", found(compared(), with_resize(compared(7), **far), "it does", flips=False))
    assert probed.rows[1][-1] == "outside, on probes"
    assert probed.rows[0][-1] == "within"
    assert [row[4] for row in probed.rows] == [""] * 5
    assert not any("flips" in note for note in probed.notes)
    none = dict.fromkeys(("max_level_diff", "mean_level_diff", "share_of_pixels_differing"))
    other_size = with_resize(compared(), **none, mismatch="it gives 9 x 9 x 3, not 8 x 8 x 3", n_outside=200)
    assert stage_table("dali", found(other_size)).rows[1] == ("resize", "", "", "", "1,234", "outside")


def test_reports_say_how_far_pixels_are_from_the_references() -> None:
    near = compared(32)
    near = replace(near, whole=replace(near.whole, max_level_diff=1.0, share_of_pixels_differing=0.00134))
    empty = replace(near, whole=replace(near.whole, max_level_diff=None))
    info = {
        "preprocessing": {
            "near": found(near),
            "equal": found(compared(32)),
            "empty": found(replace(empty, n_images=0)),
            "bad": found(compared(), reason="the pipeline bad crops otherwise"),
            "gone": {"status": "unavailable", "reason": "not installed"},
        }
    }
    assert pixel_lines(info) == (
        "near: at most 1.00 grey levels from the reference, in 0.1 % of the pixels on 32 images",
        "equal: the same pixels as the reference on 32 images",
        "empty: nothing was compared with the reference on 0 images",
        "the pipeline bad crops otherwise: rows of this pipeline are invalid",
        "gone: not compared with the reference: not installed",
    )
    assert pixel_lines({}) == ()


def test_tables_name_the_pipeline_where_a_run_has_several(tmp_path: Path) -> None:
    reference = case(pipeline="reference", scenario="accuracy", weights="random")
    dali = case(pipeline="dali", scenario="accuracy", weights="random")
    folder = make_run(tmp_path / "run", [reference, dali])
    for scored in (reference, dali):
        add_predictions(folder, scored, {"a": (1, [1, 2, 3, 4, 5])})
    end(folder, reference)
    end(folder, dali, Status.INVALID, reason="it crops otherwise")
    info = {**INFO, "preprocessing": {"dali": found(compared(), reason="it crops otherwise")}}
    accuracy, not_ok = tables(load_frame(folder.path), info)
    place = accuracy.header.index("Pipeline")
    assert [row[place] for row in accuracy.rows] == ["reference"]
    assert "it crops otherwise: rows of this pipeline are invalid" in accuracy.notes
    assert [row[not_ok.header.index("Pipeline")] for row in not_ok.rows] == ["dali"]
    alone = make_run(tmp_path / "alone", [reference])
    end(alone, reference)
    add_predictions(alone, reference, {"a": (1, [1, 2, 3, 4, 5])})
    (table,) = tables(load_frame(alone.path), INFO)
    assert "Pipeline" not in table.header


@pytest.mark.parametrize(("reason", "code"), [("", 0), ("the pipeline dali crops otherwise", 1)])
@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_prints_and_tells_by_its_exit_code(monkeypatch, capsys, reason, code, as_json):
    specs: list[RunSpec] = []

    def answered(spec: RunSpec, console: Console) -> dict[str, Any]:
        specs.append(spec)
        return {"data": "/data", "pipelines": {"dali": found(compared(), reason=reason)}}

    monkeypatch.setattr(parity, "compare", answered)
    monkeypatch.setattr("pipelines.fast_names", lambda: ("turbo", "dali"))  # as without a GPU
    words = ["scarlet-bench", "parity", "--images", "all", "--data", "/data", *(["--json"] if as_json else [])]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == code
    assert specs == [RunSpec(data="/data", pipeline="turbo,dali", images="all")]
    out = capsys.readouterr().out
    if as_json:
        assert json.loads(out)["pipelines"]["dali"]["reason"] == reason
    else:
        assert "whole path" in out
        assert reason in out


def spec_of(data: Path, graph: Path, pipeline: str, images: object) -> RunSpec:
    return RunSpec(data=str(data), model=f"onnx:{graph}", pipeline=pipeline, images=images)


def test_parity_counts_what_a_model_makes_of_it(planted: None, image_folder: Path, tiny_graph: Path) -> None:
    console = Console(file=io.StringIO())
    found = compare(spec_of(image_folder, tiny_graph, "reference,bgr", "all"), console)
    assert list(found["pipelines"]) == ["reference", "bgr"]
    assert found["pipelines"]["reference"]["status"] == "ok"
    assert set(found["pipelines"]["reference"]["flips"]["by_stage"].values()) == {0}
    flips = found["pipelines"]["bgr"]["flips"]["by_stage"]
    assert flips["decode"] == flips["whole path"] > 0
    assert flips["crop"] == flips["resize"] == flips["normalise"] == 0


def test_parity_says_why_it_cannot(planted: None, image_folder: Path, tiny_graph: Path) -> None:
    console = Console(file=io.StringIO())
    with pytest.raises(BenchError, match="the pipeline absent could not be compared") as caught:
        compare(spec_of(image_folder, tiny_graph, "absent", 4), console)
    assert "it is not installed here" in caught.value.what
    with pytest.raises(BenchError, match="unknown pipeline"):
        spec_of(image_folder, tiny_graph, "dally", 4)
