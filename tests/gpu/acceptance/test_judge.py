"""How the GPU check judges what its steps left, and what it writes down: on runs made by hand, without a GPU."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_run import add_predictions, add_samples, case, end, make_run

from bench.record.case import Case, Status
from bench.record.run_folder import RunFolder
from tests.gpu.acceptance import judge, summary
from tests.gpu.acceptance.judge import Figure, Reading, Target
from tests.gpu.acceptance.steps import Record

H200 = {"name": "NVIDIA H200", "capability": "9.0", "torch": "2.13.0", "cuda": "13.0"}


def gpu_case(scenario: str, **fields: Any) -> Case:
    return case(**{"device": "cuda", "pipeline": "reference", "scenario": scenario, **fields})


def figures_of(folder: Path, step: str, records: Sequence[Record] = ()) -> dict[str, Figure]:
    """The figures of a step by what they are of."""
    names = {target.name for target in judge.load_targets() if target.step == step}
    judged = {figure.name: figure for figure in judge.judge(folder, records)}
    return {name: figure for name, figure in judged.items() if name.partition(": ")[0] in names}


def outcome(figure: Figure) -> tuple[str, str]:
    return figure.verdict, figure.why


@pytest.mark.parametrize(
    ("bound", "number", "verdict"),
    [
        ({"at_most": 0.2}, 0.2, "met"),
        ({"at_most": 0.2}, 0.3, "not met"),
        ({"at_least": 90}, 90.0, "met"),
        ({"at_least": 90}, 89.9, "not met"),
        ({"below": 1}, 0.99, "met"),
        ({"below": 1}, 1.0, "not met"),
        ({}, 7.0, "measured"),
    ],
)
def test_a_figure_is_held_against_its_bound(bound, number, verdict):
    target = Target("x", "x", "speed", "fast", bound=bound, otherwise="too slow")
    figure = judge.judged(target, Reading("gpu", number, "so much"), "no time")
    assert (figure.name, figure.verdict) == ("speed: gpu", verdict)
    assert figure.why == ("too slow" if verdict == "not met" else "")


def test_without_a_figure_the_reason_is_the_row_s_or_the_step_s():
    target = Target("x", "x", "speed", "fast", bound={"below": 1})
    assert outcome(judge.judged(target, Reading(why="none here"), "no time")) == ("not run", "none here")
    assert outcome(judge.judged(target, Reading(), "no time")) == ("not run", "no time")
    few = judge.judged(target, Reading("", None, "2 times", "too few rounds"), "no time")
    assert outcome(few) == ("not met", "too few rounds"), "a figure that cannot be told from noise"


def test_what_was_not_run_says_why(tmp_path):
    steps = ("tests", "accuracy", "throughput", "graphs")
    records = [Record(name, "not run", "no time was left") for name in steps]
    figures = judge.judge(tmp_path, records)
    assert {(figure.verdict, figure.why) for figure in figures} == {("not run", "no time was left")}
    assert len(figures) == 10
    assert all("left no such figure" in figure.why for figure in judge.judge(tmp_path, []))


@pytest.mark.parametrize(
    ("attributes", "verdict", "value"),
    [
        ('tests="9" failures="0" errors="0" skipped="3"', "met", "6 passed, 0 failed, 3 skipped"),
        ('tests="9" failures="1" errors="1" skipped="3"', "not met", "4 passed, 2 failed, 3 skipped"),
        ('tests="9" failures="0" errors="0" skipped="9"', "not run", ""),
        ("", "not run", ""),  # torn when the tests were ended
    ],
)
def test_tests_that_fail_or_are_all_skipped_are_no_proof(attributes, verdict, value, tmp_path):
    end_of_file = "/></testsuites>" if attributes else ""
    (tmp_path / "tests.xml").write_text(f"<testsuites><testsuite {attributes}{end_of_file}")
    (figure,) = figures_of(tmp_path, "tests").values()
    assert (figure.verdict, figure.value) == (verdict, value)


@pytest.fixture
def accuracy(tmp_path: Path) -> Path:
    """1000 images; every row differs from the reference's pixels on PyTorch's CPU on so many of them."""
    differing: dict[Case, int] = {
        gpu_case("accuracy", device="cpu"): 0,
        gpu_case("accuracy"): 0,
        gpu_case("accuracy", backend="onnxruntime"): 1,
        gpu_case("accuracy", pipeline="dali_gpu"): 2,
        gpu_case("accuracy", pipeline="dali_gpu_engine"): 3,
    }
    absent = gpu_case("accuracy", backend="tensorrt")
    folder = make_run(tmp_path / "accuracy", [*differing, absent])
    for scored, n_different in differing.items():
        is_engine = scored.pipeline == "dali_gpu_engine"
        status = Status.INVALID if is_engine else Status.OK
        rows = {f"{n}.JPEG": (0, (5 if n < n_different else 1,)) for n in range(1000)}
        add_predictions(folder, scored, rows)
        end(folder, scored, status, reason="other pixels" if is_engine else "", stage="end_to_end")
    end(folder, absent, Status.UNAVAILABLE, reason="tensorrt is not installed | see README")
    folder.merge_parts()
    return tmp_path


def test_agreement_is_counted_image_by_image(accuracy):
    figures = {name.partition(": ")[2]: figure for name, figure in figures_of(accuracy, "accuracy").items()}
    assert {name: figure.verdict for name, figure in figures.items()} == {
        "pytorch": "met",
        "onnxruntime": "met",
        "tensorrt": "not run",
        "dali_gpu": "met",
        "dali_gpu_engine": "not met",  # pixels outside of their tolerance are judged too
    }
    assert figures["dali_gpu"].value == "2 of 1000 images differ (0.20 %)"
    assert figures["dali_gpu"].number == pytest.approx(0.2)
    assert "tensorrt is not installed" in figures["tensorrt"].why


def test_rows_without_a_common_image_cannot_be_compared(tmp_path):
    both = [gpu_case("accuracy", device="cpu"), gpu_case("accuracy")]
    folder = make_run(tmp_path / "accuracy", both)
    for scored in both:
        add_predictions(folder, scored, {f"{scored.device}.JPEG": (0, (1,))})
        end(folder, scored)
    assert "no image in common" in next(iter(figures_of(tmp_path, "accuracy").values())).why


def test_graphs_are_compared_round_by_round(tmp_path):
    def pair(backend: str) -> list[Case]:
        return [gpu_case("latency", backend=backend, options=(("graph", graph),)) for graph in ("no", "yes")]

    fast, few, absent = pair("pytorch"), pair("onnxruntime"), pair("tensorrt")
    alone = gpu_case("latency", precision="fp16", options=(("graph", "no"),))
    folder = make_run(tmp_path / "graphs", [*fast, *few, *absent, alone])
    for cases, n_rounds in ((fast, 20), (few, 2), ([alone], 20)):
        drift = [1000 + 50 * round_ for round_ in range(n_rounds)]
        for timed, factor in zip(cases, (4, 1), strict=False):
            add_samples(folder, timed, [factor * time for time in drift])
            end(folder, timed, stage="compute")
    for timed in absent:
        end(folder, timed, Status.UNAVAILABLE, reason="none here")
    pytorch, onnxruntime, tensorrt = figures_of(tmp_path, "graphs").values()
    assert pytorch.verdict == "met"
    assert pytorch.number == pytest.approx(0.25, rel=1e-2)
    assert pytorch.value.startswith("4.00 times as fast (")
    assert (onnxruntime.verdict, onnxruntime.number) == ("not met", None)
    assert "too few rounds" in onnxruntime.why
    assert tensorrt.verdict == "not run"
    assert "none here" in tensorrt.why


def add_passes(folder: RunFolder, pipeline: str, milliseconds: dict[str, int], **fields: Any) -> None:
    """Twelve passes of 1000 images, with what each and its parts took."""
    timed = gpu_case("throughput", pipeline=pipeline, precision="fp16", batch=64, **fields)
    metrics = {"decodes_on_gpu": "gpu" in pipeline, "decode_threads": 8, "cores": 8}
    n = 12 * len(milliseconds)
    folder.write_samples_part(
        timed.case_id,
        round=np.repeat(np.arange(12, dtype=np.int32), len(milliseconds)),
        stage=[*milliseconds] * 12,
        images=np.full(n, 1000, np.int32),
        warmup=np.zeros(n, bool),
        latency_ns=np.tile(np.array([*milliseconds.values()], np.int64) * 1_000_000, 12),
    )
    end(folder, timed, stage="end_to_end", metrics=metrics)


def test_passes_and_decoding_alone_are_read_of_the_same_rows(tmp_path):
    folder = make_run(tmp_path / "throughput", [])
    add_passes(folder, "dali_gpu", {"end_to_end": 110, "decode": 100, "compute": 50})
    add_passes(folder, "dali_gpu", {"end_to_end": 125, "decode": 80, "compute": 100}, backend="onnxruntime")
    absent = gpu_case("throughput", pipeline="dali_gpu_engine")
    end(folder, absent, Status.UNAVAILABLE, reason="no engine")
    first = figures_of(tmp_path, "throughput")["decoding alone, against the CPU: dali_gpu"]
    assert (first.verdict, first.value) == ("measured", "10,000 images/s")
    assert "no pipeline of the CPU" in first.why
    add_passes(folder, "turbo", {"end_to_end": 500, "decode": 300, "preprocess": 100, "compute": 50})
    figures = figures_of(tmp_path, "throughput")
    assert {name: (figure.verdict, figure.value) for name, figure in figures.items()} == {
        "decoding alone, against the CPU: dali_gpu": ("measured", "10,000 images/s, turbo 2,500 (4.00 times)"),
        "decoding alone, against the CPU: dali_gpu_engine": ("not run", ""),
        "from files to top-5, decoded on the GPU: dali_gpu, pytorch": (
            "met", "9,091 images/s, 91 % of what decode alone reaches",
        ),
        "from files to top-5, decoded on the GPU: dali_gpu, onnxruntime": (
            "not met", "8,000 images/s, 80 % of what compute alone reaches",
        ),
        "from files to top-5, decoded on the GPU: dali_gpu_engine, pytorch": ("not run", ""),
    }  # fmt: skip
    assert {figure.why for figure in figures.values() if figure.verdict == "not run"} == {"unavailable: no engine"}


def test_the_folder_holds_all_of_it(accuracy):
    records = [Record("doctor", "ok", seconds=1.0), Record("accuracy", "timeout", "it was ended | after 9 s", 9.0)]
    figures = summary.write(accuracy, H200, records)
    text = (accuracy / "summary.md").read_text()
    assert "# GPU check: NVIDIA H200" in text
    assert all(f"| {figure.verdict} |" in text for figure in figures)
    assert "ended \\| after" in text, "text from outside does not break the table"
    stored = json.loads((accuracy / "summary.json").read_text())
    assert stored["gpu"] == H200
    assert [figure["verdict"] for figure in stored["figures"]] == [figure.verdict for figure in figures]
    assert stored["steps"][1]["reason"] == "it was ended | after 9 s"
    with (accuracy / "table.csv").open() as rows:
        assert [row["run"] for row in csv.DictReader(rows)] == ["accuracy"] * 6
    table = (accuracy / "table.md").read_text()
    assert "## accuracy: Not ok" in table
    assert "tensorrt is not installed" in table
    assert len(json.loads((accuracy / "proof.json").read_text())["accuracy"]) == 6
    assert json.loads((accuracy / "host.json").read_text())["host"]["cpu_model"] == "Test CPU"


def test_a_check_that_measured_nothing_has_a_summary_too(tmp_path):
    assert {figure.verdict for figure in summary.write(tmp_path, H200, [])} == {"not run"}
    assert (tmp_path / "summary.md").exists()
    assert not (tmp_path / "table.csv").exists()
