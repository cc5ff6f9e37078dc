"""The charts of a run: which there are, what they say, and that they are drawn from the run's own numbers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import altair
import numpy as np
import pytest
from altair.utils.schemapi import SchemaValidationError
from charts_run import N_ROUNDS, PER_ROUND, add_times, add_wrong, drawn, fixed_run, flattened, latency_run, scored
from report_run import case, end, make_run

from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.accuracy.waterfall import steps
from bench.analysis.table import DEMO_NOTE, load
from bench.backends import colour
from bench.record.case import Status
from bench.record.run_folder import RunFolder
from bench.report.charts import charts
from bench.report.charts.chart import Chart
from bench.report.charts.looks import MOST_SERIES
from bench.report.charts.theme import DARK, FAINT, GREY, INK, PALETTE, darkened

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


@pytest.fixture(scope="module")
def specs(found: dict[str, Chart]) -> dict[str, dict[str, Any]]:
    """As they are sent; building them checks them against Vega-Lite's schema."""
    return {name: chart.spec() for name, chart in found.items()}


def encodings(spec: dict[str, Any], channel: str) -> list[Any]:
    """What each layer that has this channel encodes there."""
    return [layer["encoding"][channel] for layer in spec["layer"] if channel in layer["encoding"]]


def scale_of(spec: dict[str, Any], channel: str) -> dict[str, Any]:
    """What stands for each word, by an encoding of the front."""
    scale = encodings(spec, channel)[-1]["scale"]
    return dict(zip(scale["domain"], scale["range"], strict=True))


def test_the_charts_come_in_the_order_of_reading(found: dict[str, Chart]) -> None:
    assert tuple(found) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_mark_is_placed_by_fields_that_its_data_have(found, specs, name):
    chart, spec = found[name], specs[name]
    for layer in spec["layer"]:
        rows = chart.data[(layer.get("data") or spec["data"])["name"]]
        fields = {field for row in rows for field in row}
        fields |= {made["as"] for made in layer.get("transform", ()) if "calculate" in made}
        encoding = layer["encoding"]
        assert {"x", "y"} & set(encoding)
        if layer["mark"]["type"] not in ("rule", "rect"):
            assert {"x", "y"} <= set(encoding)
        for channel, entry in encoding.items():
            for each in entry if channel == "tooltip" else [entry]:
                if rows and each.get("title") not in ("from", "to"):  # an interval may be unknown
                    assert each.get("field") in {None, *fields}, (channel, each)
    legend = {row[field] for row in chart.data["rows"] for field in ("legend", "verdict", "effect") if field in row}
    assert set(chart.legend) == legend == set(scale_of(spec, "color"))


def test_a_chart_that_breaks_the_schema_is_not_drawn(found: dict[str, Chart]) -> None:
    broken = replace(found["waterfall"], layers=[altair.Chart().mark_point().encode(x=altair.X(sort=5))])
    with pytest.raises(SchemaValidationError):
        broken.spec()


def test_a_run_read_twice_gives_the_same_bytes(folder, specs, monkeypatch):
    """Also with predictions that are read already, which are not read again."""
    run = load(folder.path)
    assert run.scored.results
    monkeypatch.setattr(ScoredRun, "open", None)
    again = {chart.name: chart.spec() for chart in charts(run)}
    assert json.dumps(again) == json.dumps(specs)


def test_every_figure_can_be_traced(folder, found, specs):
    ids = {result.case.case_id for result in folder.case_results()}
    for chart in found.values():
        rows = chart.data["rows"]
        assert {row["case_id"] for row in rows} <= set(chart.case_ids) <= ids
        (tooltip,) = [entry for entry in encodings(specs[chart.name], "tooltip") if entry[0]["field"] != "reason"]
        fields = [entry["field"] for entry in tooltip]
        assert (fields[0], *fields[-2:]) == ("name", "case_id", "file")
        for file in {file for row in rows for file in row["file"].split(", ")}:
            assert (folder.path / file).is_file()


def test_every_chart_says_what_is_to_be_seen(found: dict[str, Chart]) -> None:
    for chart in found.values():
        assert chart.title
        assert 40 < len(chart.alt) < 600
        assert chart.alt.endswith(".")
        assert any(sign.isdigit() for sign in chart.alt)
        assert chart.name.replace("_", "").isalnum()
    assert found["accuracy_latency"].alt.count(" ms, ") == 2
    assert "ONNX Runtime INT8" in found["accuracy_latency"].alt
    assert "6 faster" in found["latency_ratio"].alt
    assert "1 lost, 2 not resolved" in found["waterfall"].alt


def test_axes_have_units(specs: dict[str, dict[str, Any]]) -> None:
    for name, x, y in (
        ("accuracy_latency", "median latency at batch 1, ms", "top-1, %"),
        ("latency_ecdf", "latency of a call, ms", "share of calls, %"),
        ("latency_rounds", "round", "change of time, %"),
        ("compute_batch", "batch", "images/s"),
        ("throughput_batch", "batch", "images/s"),
        ("waterfall", "top-1, %", None),
        ("latency_ratio", "time over that of PyTorch FP32", None),
    ):
        assert x in {entry.get("title") for entry in encodings(specs[name], "x")}
        assert y in {entry.get("title") for entry in encodings(specs[name], "y")}


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


def test_demo_accuracies_are_marked(folder: RunFolder) -> None:
    run = load(folder.path)
    marked = charts(replace(run, info={**run.info, "dataset": {**run.info["dataset"], "is_demo": True}}))
    assert [chart.name for chart in marked if DEMO_NOTE in chart.notes] == ["accuracy_latency", "waterfall"]


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
        tmp_path / "run", [one, other], {one.case_id: np.zeros(50, np.int64), other.case_id: np.arange(50)}
    )
    for chart in drawn(folder).values():
        json.dumps(chart.spec(), allow_nan=False)


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


def test_a_long_run_is_drawn_in_blocks_of_rounds(tmp_path: Path) -> None:
    one = case()
    folder = make_run(tmp_path / "run", [one])
    add_times(folder, one, 5.0, 0, n_rounds=1001)
    chart = drawn(folder)["latency_rounds"]
    assert chart.notes[0].startswith("medians of blocks of up to 3 rounds")
    assert len(flattened(chart, "round", "percent")) == 334
    assert "1001 rounds" in chart.alt


def test_hostile_names_are_data_and_nothing_else(specs: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    folder = fixed_run(tmp_path / "hostile", model=f"onnx:{HOSTILE}", options=(("mode", HOSTILE),))
    more = case(model="onnx:=cmd()", options=(("a", "'}; alert(1); {"), ("b", "\n\n")))
    add_times(folder, more, 7.0, 99)
    hostile = {name: chart.spec() for name, chart in drawn(folder).items()}
    assert tuple(hostile) == tuple(specs)
    for keys in (("filter", "expr", "calculate", "test", "labelExpr"), ("field", "as")):
        assert collected(list(hostile.values()), keys) <= collected(list(specs.values()), keys)
    for spec in hostile.values():
        text = json.dumps(spec, ensure_ascii=False)
        assert "\\u001b" not in text
        assert "\u202e" not in text
        assert "x" * 120 not in text


def collected(value: Any, names: tuple[str, ...]) -> set[str]:
    if isinstance(value, dict):
        own = {json.dumps(item) for key, item in value.items() if key in names}
        return own.union(*(collected(item, names) for key, item in value.items() if key != "datasets"))
    return set().union(*(collected(item, names) for item in value)) if isinstance(value, list) else set()


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
    sizes = {name: len(json.dumps(chart.spec())) for name, chart in found.items()}
    assert max(sizes.values()) < 200_000
    assert all(len(chart.legend) <= MOST_SERIES for chart in found.values())
    together = sum(size for name, size in sizes.items() if "ecdf" in name)
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


def test_points_are_the_frames(folder: RunFolder, found: dict[str, Chart]) -> None:
    frame = load(folder.path).frame.set_index("case_id")
    for value in found["accuracy_latency"].data["rows"]:
        timed, right = frame.loc[value["case_id"]], frame.loc[value["accuracy_case_id"]]
        assert value["ms"] == pytest.approx(timed["latency_ns_p50"] / 1e6, rel=1e-5)
        assert value["ms_low"] == pytest.approx(timed["latency_ns_p50_low"] / 1e6, rel=1e-5)
        assert value["top1"] == pytest.approx(right["top1_percent"], rel=1e-5)
        assert value["top1_low"] < value["top1"] < value["top1_high"]
        assert (timed["batch"], right["pipeline"]) == (1, "dali")
        for name in ("backend", "precision", "model"):
            assert timed[name] == right[name]
    for value in found["latency_ratio"].data["rows"]:
        row = frame.loc[value["case_id"]]
        assert value["ratio"] == pytest.approx(row["ratio"], rel=1e-5)
        assert (value["verdict"], value["baseline_case_id"]) == (row["verdict"], row["baseline_case_id"])
    for value in found["throughput_batch"].data["rows"]:
        row = frame.loc[value["case_id"]]
        assert value["rate"] == pytest.approx(row["throughput_images_per_s"], rel=1e-5)
        assert value["low"] == pytest.approx(row["throughput_images_per_s_low"], rel=1e-5)
    for value in found["compute_batch"].data["rows"]:
        row = frame.loc[value["case_id"]]
        assert value["rate"] == pytest.approx(row["batch"] * 1e9 / row["latency_ns_p50"], rel=1e-5)
        assert value["low"] < value["rate"] < value["high"]


def test_the_waterfall_is_that_of_the_table(folder: RunFolder, found: dict[str, Chart]) -> None:
    by_case = {step.case.case_id: step for step in steps(ScoredRun.open(folder.path))}
    values = found["waterfall"].data["rows"]
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
    bands = found["latency_rounds"].data["disturbed"]
    assert [(band["from"], band["to"]) for band in bands] == [(9.5, 11.5), (29.5, 30.5)]
    assert {band["reason"] for band in bands} == {"load"}
    assert "(3)" in " ".join(found["latency_rounds"].notes)
    assert "3 of them disturbed" in found["latency_rounds"].alt


def test_a_row_looks_the_same_in_every_chart_in_the_colour_of_its_backend(specs: dict[str, dict[str, Any]]) -> None:
    colours = {
        "PyTorch FP32": colour("pytorch"),
        "ONNX Runtime FP32": colour("onnxruntime"),
        "ONNX Runtime INT8": colour("onnxruntime"),
    }
    for name in ("accuracy_latency", "latency_ecdf", "latency_rounds", "compute_batch", "throughput_batch"):
        assert scale_of(specs[name], "color") == colours
    for name, channel in (("accuracy_latency", "shape"), ("latency_ecdf", "strokeDash")):
        way = scale_of(specs[name], channel)
        assert way["ONNX Runtime FP32"] == way["PyTorch FP32"] != way["ONNX Runtime INT8"]


def test_dark_changes_greys_and_nothing_else(specs: dict[str, dict[str, Any]]) -> None:
    for light in specs.values():
        before = json.dumps(light)
        dark = {key: darkened(light[key]) for key in ("layer", "config")}
        assert json.dumps(light) == before, "the chart itself stays as it is"
        assert not set(DARK) & strings(dark)
        for key, part in dark.items():
            assert strings(light[key]) ^ strings(part) <= {*DARK, *DARK.values()}
        assert dark["config"]["background"] == "transparent"


def test_paper_has_one_font_nothing_translucent_and_no_hidden_points(found: dict[str, Chart]) -> None:
    """What vl-convert would write into a PDF in an order that changes from call to call."""
    for chart in found.values():
        spec = chart.spec(356, is_paper=True)
        assert spec["config"]["title"]["fontWeight"] == "normal"
        marks = [layer["mark"] for layer in spec["layer"]]
        assert {mark.get("opacity", 1) for mark in marks} == {1}
        assert not any(mark.get("point") for mark in marks)


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
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_and_lines_stand_out_from_the_page() -> None:
    for background, greys in (("#FFFFFF", [INK, FAINT]), ("#16181D", [DARK[INK], DARK[FAINT]])):
        assert min(contrast(grey, background) for grey in greys) > 4.5
        # The colours of backends and verdicts; the spare ones are helped by shapes.
        assert min(contrast(colour, background) for colour in (*PALETTE[:3], GREY)) > 3.0


def test_a_width_sets_lines_and_legend(found: dict[str, Chart]) -> None:
    chart = found["latency_ecdf"]
    narrow, wide = chart.spec(356, is_paper=True), chart.spec(900)
    assert (narrow["width"], wide["width"]) == (356, 900)
    assert chart.spec(width="container")["width"] == "container"
    assert narrow["config"]["legend"]["columns"] < wide["config"]["legend"]["columns"]
    assert len(narrow["title"]["subtitle"]) >= len(wide["title"]["subtitle"])
    assert " ".join(narrow["title"]["text"]) == chart.title


def test_names_that_differ_in_one_thing_are_told_apart(tmp_path: Path) -> None:
    one = case()
    planned = [one, replace(one, threads=2), replace(one, options=(("a", "b"),)), replace(one, device="cuda")]
    ns = {each.case_id: np.arange(1_000_000, 1_000_100) for each in planned}
    chart = drawn(latency_run(tmp_path / "run", planned, ns))["latency_ecdf"]
    spec = chart.spec()
    colours, dashes = scale_of(spec, "color"), scale_of(spec, "strokeDash")
    assert list(colours) == [
        "PyTorch FP32 CPU 1 thread",
        "PyTorch FP32 CPU 2 threads",
        "PyTorch FP32 CPU a=b 1 thread",
        "PyTorch FP32 CUDA 1 thread",
    ]
    assert len({(colours[name], *dashes[name]) for name in colours}) == len(planned)
