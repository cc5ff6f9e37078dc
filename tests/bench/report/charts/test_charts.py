"""The charts of a run: which there are, what they say, and that they are drawn from the run's own numbers."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair
import numpy as np
import pytest
from charts_run import (
    BACKENDS,
    N_ROUNDS,
    PER_ROUND,
    add_times,
    add_wrong,
    drawn,
    fixed_run,
    flattened,
    latency_run,
    scored,
)
from folders import GOLDEN
from report_run import case, end, make_run

from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.accuracy.waterfall import steps
from bench.analysis.table import DEMO_NOTE, load_frame, load_info
from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.report.charts import Chart, charts, themed
from bench.report.charts.series import MOST_SERIES
from bench.report.charts.theme import DARK, PALETTE

CHARTS = GOLDEN / "charts"

NAMES = (
    "accuracy_latency",
    "latency_ratio",
    "throughput_ratio",
    "latency_ecdf",
    "latency_ecdf_batch_2",
    "latency_ecdf_batch_8",
    "latency_rounds",
    "throughput_rounds",
    "compute_batch",
    "throughput_batch",
    "waterfall",
)

HOSTILE = "</script><img src=x onerror=alert(1)>\"'`${datum}\\\x1b[31m\u202e{signal}" + "x" * 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fixed_run(tmp_path_factory.mktemp("charts") / "run")


@pytest.fixture(scope="module")
def found(folder: RunFolder) -> dict[str, Chart]:
    return drawn(folder)


def text_of(spec: Any) -> str:
    return json.dumps(spec, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def is_valid(spec: Any) -> None:
    """Raises where the spec breaks Vega-Lite's schema."""
    altair.LayerChart.from_dict(spec, validate=True)


# --- all of them --------------------------------------------------------------------------------------------


def test_the_charts_come_in_the_order_of_reading(found: dict[str, Chart]) -> None:
    assert tuple(found) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_specs_are_as_they_were_reviewed(found: dict[str, Chart], name: str) -> None:
    """To accept new ones: SCARLET_BENCH_GOLDEN=write pytest tests/bench/report/charts/test_charts.py"""
    path, text = CHARTS / f"{name}.json", text_of(found[name].spec)
    if os.environ.get("SCARLET_BENCH_GOLDEN") == "write":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_specs_keep_to_the_schema(found: dict[str, Chart], name: str) -> None:
    is_valid(dict(found[name].spec))
    is_valid(themed(found[name].spec, dark=True, width="container"))


def test_a_run_read_twice_gives_the_same_bytes(folder: RunFolder, found: dict[str, Chart]) -> None:
    again = drawn(folder)
    assert [text_of(chart.spec) for chart in again.values()] == [
        text_of(chart.spec) for chart in found.values()
    ]
    assert again == found


def test_predictions_that_are_read_already_are_not_read_again(
    folder: RunFolder, found: dict[str, Chart], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ScoredRun.open(folder.path)
    frame, info = load_frame(folder.path), load_info(folder.path)
    monkeypatch.setattr(ScoredRun, "open", None)
    assert charts(folder.path, frame, info, scored=run)[-1] == found["waterfall"]


def test_every_figure_can_be_traced(folder: RunFolder, found: dict[str, Chart]) -> None:
    known = {result.case.case_id for result in folder.case_results()}
    for chart in found.values():
        values = chart.spec["data"]["values"]
        assert set(chart.case_ids) <= known
        assert {value["case_id"] for value in values} <= set(chart.case_ids)
        told = [entry["field"] for entry in tooltips(chart.spec["layer"])]
        assert "case_id" in told
        assert {"file", "files"} & set(told)
        for value in values:
            for file in (value.get("file") or value["files"]).split(", "):
                assert (folder.path / file).is_file()


def tooltips(layers: list[Any]) -> list[Any]:
    return [
        entry
        for layer in layers
        if "data" not in layer
        for entry in layer["encoding"].get("tooltip", ())
        if "field" in entry
    ]


def test_every_chart_says_what_is_to_be_seen(found: dict[str, Chart]) -> None:
    for chart in found.values():
        assert chart.title
        assert 40 < len(chart.alt) < 600
        assert chart.alt.endswith(".")
        assert chart.spec["description"] == chart.alt
        assert any(sign.isdigit() for sign in chart.alt)
        assert chart.name.replace("_", "").isalnum()
    assert found["accuracy_latency"].alt.count(" ms, ") == 2
    assert "ONNX Runtime INT8" in found["accuracy_latency"].alt
    assert "6 faster" in found["latency_ratio"].alt
    assert "1 lost, 2 not resolved" in found["waterfall"].alt


def test_axes_have_units(found: dict[str, Chart]) -> None:
    wanted = {
        "accuracy_latency": ("ms", "top-1, %"),
        "latency_ecdf": ("latency of a call, ms", "share of calls, %"),
        "latency_rounds": ("change of time, %",),
        "compute_batch": ("images/s", "batch"),
        "waterfall": ("top-1, %",),
        "latency_ratio": ("time over that of PyTorch FP32",),
    }
    for name, titles in wanted.items():
        for title in titles:
            assert title in text_of(found[name].spec)


# --- what runs lack -----------------------------------------------------------------------------------------


def test_a_run_without_data_has_no_chart(tmp_path: Path) -> None:
    planned = [case(), scored("pytorch", "fp32"), case(scenario="throughput")]
    assert drawn(make_run(tmp_path / "none", [])) == {}
    assert drawn(make_run(tmp_path / "planned", planned)) == {}
    failed = make_run(tmp_path / "failed", planned)
    for one in planned:
        end(failed, one, Status.FAILED, reason="broken")
    assert drawn(failed) == {}
    lost = make_run(tmp_path / "lost", planned)
    for one in planned:
        end(lost, one, stage="compute")  # its samples and predictions are gone
    assert drawn(lost) == {}


def test_one_case_alone_has_the_charts_that_need_no_other(tmp_path: Path) -> None:
    one = case()
    folder = make_run(tmp_path / "run", [one])
    add_times(folder, one, 5.0, 0)
    found = drawn(folder)
    assert tuple(found) == ("latency_ecdf", "latency_rounds")
    both = scored("pytorch", "fp32")
    add_wrong(folder, both, 3)
    assert tuple(drawn(folder)) == ("accuracy_latency", "latency_ecdf", "latency_rounds")
    assert "1 row." in drawn(folder)["accuracy_latency"].alt


def test_random_weights_have_no_accuracy_to_draw(tmp_path: Path) -> None:
    found = drawn(fixed_run(tmp_path / "run", weights="random"))
    assert "accuracy_latency" not in found
    assert "waterfall" not in found
    assert "latency_ratio" in found


def test_demo_accuracies_are_marked(tmp_path: Path) -> None:
    folder = fixed_run(tmp_path / "run")
    info = load_info(folder.path)
    info["dataset"] = {**info["dataset"], "is_demo": True}
    marked = {
        chart.name: chart.spec["title"]["subtitle"]
        for chart in charts(folder.path, load_frame(folder.path), info)
    }
    assert {name for name, lines in marked.items() if DEMO_NOTE in lines} == {"accuracy_latency", "waterfall"}


def test_what_ran_elsewhere_than_asked_is_not_drawn(tmp_path: Path) -> None:
    one, other = case(), case(backend="onnxruntime")
    folder = make_run(tmp_path / "run", [one, other])
    add_times(folder, one, 5.0, 0)
    add_times(folder, other, 5.0, 0)
    end(folder, other, Status.FALLBACK, reason="on another provider", stage="compute")
    assert {id_ for chart in drawn(folder).values() for id_ in chart.case_ids} == {one.case_id}


def test_a_clock_that_stood_still_breaks_no_chart(tmp_path: Path) -> None:
    one, other = case(), case(batch=4)
    folder = latency_run(
        tmp_path / "run",
        [one, other],
        {one.case_id: np.zeros(50, np.int64), other.case_id: np.arange(50)},
    )
    for chart in drawn(folder).values():
        is_valid(dict(chart.spec))
        text_of(chart.spec)


def test_labels_that_do_not_fit_leave_the_waterfall_out(tmp_path: Path) -> None:
    one, other = scored("pytorch", "fp32"), scored("onnxruntime", "fp32")
    folder = make_run(tmp_path / "run", [one, other])
    for each, label in ((one, 0), (other, 1)):
        folder.write_predictions_part(
            each.case_id,
            image_id=["a", "b"],
            label=np.full(2, label),
            top=np.zeros((2, 5), np.int16),
            margin=np.full(2, 0.5, np.float32),
        )
        end(folder, each)
    assert drawn(folder) == {}


def test_distributions_that_are_not_drawn_are_named(tmp_path: Path) -> None:
    planned = [case(batch=batch) for batch in range(1, 10)]
    ns = {one.case_id: np.arange(1_000_000, 1_000_100) * one.batch for one in planned}
    found = drawn(latency_run(tmp_path / "run", planned, ns))
    curves = [chart for name, chart in found.items() if "ecdf" in name]
    assert [chart.name for chart in curves] == [
        "latency_ecdf",
        *(f"latency_ecdf_batch_{n}" for n in range(2, 7)),
    ]
    assert "not drawn: the distributions at batch 7, 8, 9" in curves[-1].spec["title"]["subtitle"]
    assert len(found["latency_rounds"].case_ids) == 9


def test_a_long_run_is_drawn_in_blocks_of_rounds(tmp_path: Path) -> None:
    one = case()
    folder = make_run(tmp_path / "run", [one])
    add_times(folder, one, 5.0, 0, n_rounds=1001)
    chart = drawn(folder)["latency_rounds"]
    assert chart.spec["title"]["subtitle"][0].startswith("medians of blocks of up to 3 rounds")
    assert len(flattened(chart, "round", "percent")) == 334
    assert "1001 rounds" in chart.alt


# --- texts from outside -------------------------------------------------------------------------------------


def test_hostile_names_are_data_and_nothing_else(found: dict[str, Chart], tmp_path: Path) -> None:
    folder = fixed_run(tmp_path / "hostile", model=f"onnx:{HOSTILE}", options=(("mode", HOSTILE),))
    more = case(model="onnx:=cmd()", options=(("a", "'}; alert(1); {"), ("b", "\n\n")))
    add_times(folder, more, 7.0, 99)
    plain, hostile = found, drawn(folder)
    assert tuple(hostile) == tuple(plain)
    for chart in hostile.values():
        assert expressions(chart.spec) <= set.union(*(expressions(other.spec) for other in plain.values()))
        assert fields(chart.spec) <= set.union(*(fields(other.spec) for other in plain.values()))
        text = text_of(chart.spec)
        assert "\\u001b" not in text
        assert "\u202e" not in text
        assert "x" * 120 not in text
        is_valid(dict(chart.spec))


def expressions(spec: Any) -> set[str]:
    return collected(spec, ("filter", "expr", "calculate", "test", "labelExpr"))


def fields(spec: Any) -> set[str]:
    return collected(spec, ("field",))


def collected(value: Any, names: tuple[str, ...]) -> set[str]:
    if isinstance(value, dict):
        own = {json.dumps(item) for key, item in value.items() if key in names}
        return own.union(*(collected(item, names) for key, item in value.items() if key != "values"))
    return set().union(*(collected(item, names) for item in value)) if isinstance(value, list) else set()


# --- size ---------------------------------------------------------------------------------------------------


def test_two_hundred_cases_stay_small(tmp_path: Path) -> None:
    planned = [
        case(backend=backend, precision=precision, batch=batch, threads=threads, options=(("way", way),))
        for backend in ("pytorch", "onnxruntime", "openvino", "tensorrt")
        for precision in ("fp32", "int8")
        for batch in (1, 2, 4, 8, 16)
        for threads in (1, 2)
        for way in ("a-rather-long-option", "b", "c")
    ][:200]
    source = np.random.default_rng(0)
    ns = {one.case_id: source.lognormal(15, 0.4, 500).astype(np.int64) for one in planned}
    found = drawn(latency_run(tmp_path / "run", planned, ns))
    assert len(found["latency_ecdf"].case_ids) > MOST_SERIES
    assert len(found["latency_rounds"].case_ids) == 200
    for chart in found.values():
        size = len(json.dumps(chart.spec["data"], separators=(",", ":")))
        assert size < 200_000, chart.name
        is_valid(dict(chart.spec))
        legend = {value.get("legend") for value in chart.spec["data"]["values"]}
        assert len(legend) <= MOST_SERIES
    together = sum(len(json.dumps(chart.spec["data"])) for name, chart in found.items() if "ecdf" in name)
    assert together < 250_000


def test_fifty_thousand_samples_are_all_counted(tmp_path: Path) -> None:
    one = case()
    samples = np.random.default_rng(1).lognormal(15, 0.5, 50_000).astype(np.int64)
    found = drawn(latency_run(tmp_path / "run", [one], {one.case_id: samples}))
    curve = flattened(found["latency_ecdf"], "ms", "percent")
    assert len(curve) <= 200
    assert curve["n"].unique().tolist() == [50_000]
    for ms, percent in zip(curve["ms"], curve["percent"], strict=True):
        share = 100.0 * np.mean(samples <= ms * 1e6 * (1 + 1e-5))
        assert percent == pytest.approx(share, abs=0.02)


# --- from the same numbers ----------------------------------------------------------------------------------


def test_points_are_the_frames(folder: RunFolder, found: dict[str, Chart]) -> None:
    frame = load_frame(folder.path).set_index("case_id")
    for value in found["accuracy_latency"].spec["data"]["values"]:
        timed, right = frame.loc[value["case_id"]], frame.loc[value["accuracy_case_id"]]
        assert value["ms"] == pytest.approx(timed["latency_ns_p50"] / 1e6, rel=1e-5)
        assert value["ms_low"] == pytest.approx(timed["latency_ns_p50_low"] / 1e6, rel=1e-5)
        assert value["top1"] == pytest.approx(right["top1_percent"], rel=1e-5)
        assert value["top1_low"] < value["top1"] < value["top1_high"]
        assert (timed["batch"], right["pipeline"]) == (1, "dali")
        for name in ("backend", "precision", "model"):
            assert timed[name] == right[name]
    for value in found["latency_ratio"].spec["data"]["values"]:
        row = frame.loc[value["case_id"]]
        assert value["ratio"] == pytest.approx(row["ratio"], rel=1e-5)
        assert (value["verdict"], value["baseline_case_id"]) == (row["verdict"], row["baseline_case_id"])
    for value in found["throughput_batch"].spec["data"]["values"]:
        row = frame.loc[value["case_id"]]
        assert value["rate"] == pytest.approx(row["throughput_images_per_s"], rel=1e-5)
        assert value["low"] == pytest.approx(row["throughput_images_per_s_low"], rel=1e-5)
    for value in found["compute_batch"].spec["data"]["values"]:
        row = frame.loc[value["case_id"]]
        assert value["rate"] == pytest.approx(row["batch"] * 1e9 / row["latency_ns_p50"], rel=1e-5)
        assert value["low"] < value["rate"] < value["high"]


def test_the_waterfall_is_that_of_the_table(folder: RunFolder, found: dict[str, Chart]) -> None:
    by_case = {step.case.case_id: step for step in steps(ScoredRun.open(folder.path))}
    values = found["waterfall"].spec["data"]["values"]
    assert [value["case_id"] for value in values] == list(by_case)
    assert [value["effect"] for value in values] == ["start", "not resolved", "not resolved", "lost"]
    for value in values[1:]:
        pair = by_case[value["case_id"]].ledger.top1
        assert (value["from"], value["to"]) == pytest.approx((pair.base_percent, pair.other_percent))
        assert value["low"] == pytest.approx(pair.base_percent + pair.low_points, rel=1e-5)
    assert [value["name"] for value in values[1:]] == ["pixels by dali", "the ONNX graph", "INT8"]


def test_rounds_are_relative_to_the_cases_own_median(folder: RunFolder, found: dict[str, Chart]) -> None:
    curve = flattened(found["latency_rounds"], "round", "percent")
    assert len(curve) == 9 * N_ROUNDS
    samples = folder.samples()
    one = found["latency_rounds"].case_ids[0]
    own = samples[(samples["case_id"] == one) & ~samples["warmup"]]
    assert len(own) == N_ROUNDS * PER_ROUND
    medians = own.groupby("round")["latency_ns"].median()
    mine = curve[curve["case_id"] == one]
    expected = 100.0 * (medians / medians.median() - 1.0)
    assert mine["percent"].to_numpy(float) == pytest.approx(expected.to_numpy(), abs=1e-4)
    bands = found["latency_rounds"].spec["layer"][0]["data"]["values"]
    assert [(band["from"], band["to"]) for band in bands] == [(9.5, 11.5), (29.5, 30.5)]
    assert {band["reason"] for band in bands} == {"load"}
    assert "(3)" in " ".join(found["latency_rounds"].spec["title"]["subtitle"])
    assert "3 of them disturbed" in found["latency_rounds"].alt


# --- light and dark -----------------------------------------------------------------------------------------


def test_a_row_looks_the_same_in_every_chart(found: dict[str, Chart]) -> None:
    seen: dict[str, set[str]] = {}
    for name in ("accuracy_latency", "latency_ecdf", "compute_batch", "throughput_batch"):
        scale = found[name].spec["layer"][-1]["encoding"]["color"]["scale"]
        for entry, colour in zip(scale["domain"], scale["range"], strict=True):
            seen.setdefault(entry, set()).add(colour)
    assert set(seen) == {"PyTorch FP32", "ONNX Runtime FP32", "ONNX Runtime INT8"}
    assert all(len(colours) == 1 for colours in seen.values())
    assert seen["ONNX Runtime FP32"] == seen["ONNX Runtime INT8"] != seen["PyTorch FP32"]
    shapes = found["accuracy_latency"].spec["layer"][-1]["encoding"]["shape"]["scale"]["range"]
    assert shapes[1] != shapes[2]
    dashes = found["latency_ecdf"].spec["layer"][-1]["encoding"]["strokeDash"]["scale"]["range"]
    assert dashes[1] != dashes[2]


def test_dark_changes_greys_and_nothing_else(found: dict[str, Chart]) -> None:
    for chart in found.values():
        before = text_of(chart.spec)
        dark = themed(chart.spec, dark=True)
        assert text_of(chart.spec) == before, "the chart itself stays as it is"
        assert not set(DARK) & strings({**dark, "data": None})
        light = themed(chart.spec)
        assert light["data"] == dark["data"]
        assert (strings(light["layer"]) ^ strings(dark["layer"])) <= {*DARK, *DARK.values()}
        assert dark["config"]["background"] == "transparent"


def strings(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set().union(*map(strings, value.values()))
    if isinstance(value, list):
        return set().union(*map(strings, value))
    return {value} if isinstance(value, str) else set()


def contrast(first: str, second: str) -> float:
    """Of two colours, by WCAG 2.2."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_letters_and_lines_stand_out_from_the_page() -> None:
    from bench.report.charts.theme import FAINT, GREY, INK

    for background, colours in (("#FFFFFF", {}), ("#16181D", DARK)):
        for ink in (INK, FAINT):
            assert contrast(colours.get(ink, ink), background) > 4.5
        # The colours of the four backends and of the verdicts; the spare ones are helped by shapes.
        for colour in (*PALETTE[:3], GREY):
            assert contrast(colours.get(colour, colour), background) > 3.0


def test_a_width_sets_lines_and_legend(found: dict[str, Chart]) -> None:
    spec = found["latency_ecdf"].spec
    narrow, wide = themed(spec, width=237, font_size=8), themed(spec, width=900)
    assert (narrow["width"], wide["width"]) == (237, 900)
    assert themed(spec)["width"] == spec["width"]
    assert themed(spec, width="container")["width"] == "container"
    assert narrow["config"]["legend"]["columns"] < wide["config"]["legend"]["columns"]
    assert len(narrow["title"]["subtitle"]) >= len(wide["title"]["subtitle"])
    assert " ".join(narrow["title"]["text"]) == spec["title"]["text"]


def test_names_that_differ_in_one_thing_are_told_apart(tmp_path: Path) -> None:
    one = case()
    planned = [one, replace(one, threads=2), replace(one, options=(("a", "b"),)), replace(one, device="cuda")]
    ns = {each.case_id: np.arange(1_000_000, 1_000_100) for each in planned}
    scale = drawn(latency_run(tmp_path / "run", planned, ns))["latency_ecdf"].spec["layer"][-1]["encoding"]
    assert scale["color"]["scale"]["domain"] == [
        "PyTorch FP32 CPU 1 thread",
        "PyTorch FP32 CPU 2 threads",
        "PyTorch FP32 CPU a=b 1 thread",
        "PyTorch FP32 CUDA 1 thread",
    ]
    looks = list(
        zip(scale["color"]["scale"]["range"], map(tuple, scale["strokeDash"]["scale"]["range"]), strict=True)
    )
    assert len(set(looks)) == len(planned)


def test_the_fixed_run_has_the_rows_that_the_tests_speak_of(found: dict[str, Chart]) -> None:
    assert len(found["latency_ratio"].case_ids) == 3 * (len(BACKENDS) - 1)
