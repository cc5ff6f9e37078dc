"""What a GPU check reads from its steps' files, and what it writes: on runs made by hand, without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from tests.gpu.acceptance import carry_out, evidence, machine, summary
from tests.gpu.acceptance.__main__ import app
from tests.gpu.acceptance.carry_out import Record
from tests.gpu.acceptance.machine import GpuMachine

H200 = GpuMachine("NVIDIA H200", "9.0", "2.13.0", "13.0")


def case(**fields: Any) -> Case:
    known = {
        "model": "scarlet_c",
        "weights": "demo",
        "backend": "pytorch",
        "device": "cuda",
        "pipeline": "reference",
    }
    return Case(**{**known, **fields})


def run_folder(path: Path, results: list[CaseResult]) -> RunFolder:
    folder = RunFolder.create(path)
    plan = {"cases": [result.case.to_dict() for result in results]}
    folder.write_run_info({"plan": plan, "host": {"cpu_model": "some"}, "dataset": {"is_demo": True}})
    for result in results:
        folder.append_case(result)
    return folder


def predict(folder: RunFolder, of: Case, top1: list[int]) -> None:
    n = len(top1)
    folder.write_predictions_part(
        of.case_id,
        image_id=[f"{number}.JPEG" for number in range(n)],
        label=np.zeros(n, np.int16),
        top=np.array(top1, np.int16)[:, None],
        margin=np.ones(n, np.float32),
    )


def timed(folder: RunFolder, of: Case, stage: str, latency_ns: list[int], images: int) -> None:
    n = len(latency_ns)
    folder.write_samples_part(
        of.case_id,
        round=np.arange(n, dtype=np.int32),
        stage=stage,
        images=np.full(n, images, np.int32),
        warmup=np.zeros(n, bool),
        latency_ns=np.array(latency_ns, np.int64),
    )


@pytest.fixture
def accuracy(tmp_path: Path) -> Path:
    cpu = case(device="cpu", scenario="accuracy")
    cuda, ort = case(scenario="accuracy"), case(scenario="accuracy", backend="onnxruntime")
    trt = case(scenario="accuracy", backend="tensorrt")
    gpu = case(scenario="accuracy", pipeline="dali_gpu")
    engine = case(scenario="accuracy", pipeline="dali_gpu_engine")
    rows = [CaseResult(made, Status.OK, stage="end_to_end") for made in (cpu, cuda, ort, gpu)]
    rows += [
        CaseResult(engine, Status.INVALID, "it decodes otherwise", stage="end_to_end"),
        CaseResult(trt, Status.UNAVAILABLE, "tensorrt is not installed"),
    ]
    folder = run_folder(tmp_path / "accuracy", rows)
    predict(folder, cpu, [1, 2, 3, 4])
    predict(folder, cuda, [1, 2, 3, 4])
    predict(folder, ort, [1, 2, 3, 5])
    predict(folder, gpu, [1, 2, 9, 4])
    predict(folder, engine, [7, 8, 9, 4])
    folder.merge_parts()
    return tmp_path


def test_agreement_is_counted_image_by_image(accuracy):
    found = evidence.gather(accuracy, [])
    assert found.backends["pytorch"].n_different == 0
    assert (found.backends["onnxruntime"].n_images, found.backends["onnxruntime"].n_different) == (4, 1)
    assert "tensorrt is not installed" in found.backends["tensorrt"].why_not
    assert found.pixels["dali_gpu"].n_different == 1
    assert found.pixels["dali_gpu_engine"].n_different == 3, "pixels outside of the tolerance are judged too"


def test_steps_that_are_missing_leave_gaps_with_their_reason(tmp_path):
    records = [Record("accuracy", "", "not run", "no time"), Record("decode", "", "failed", "it died")]
    found = evidence.gather(tmp_path, records)
    assert {agreement.why_not for agreement in found.backends.values()} == {"no time"}
    assert (found.decoding, found.passes, found.graphs, found.tests) == ({}, (), (), None)
    assert found.reasons == {"accuracy": "no time", "decode": "it died"}


def test_rows_without_a_common_image_cannot_be_compared(tmp_path):
    cpu, cuda = case(device="cpu", scenario="accuracy"), case(scenario="accuracy")
    folder = run_folder(tmp_path / "accuracy", [CaseResult(made, Status.OK) for made in (cpu, cuda)])
    predict(folder, cpu, [1])
    found = evidence.gather(tmp_path, [])
    assert "no image in common" in found.backends["pytorch"].why_not


def test_graphs_are_compared_round_by_round(tmp_path):
    def row(graph: str, **fields: Any) -> Case:
        return case(options=(("graph", graph),), **fields)

    plain, graphs = row("no"), row("yes")
    rows = [CaseResult(made, Status.OK, stage="compute") for made in (plain, graphs)]
    rows += [
        CaseResult(row("no", backend="tensorrt"), Status.UNAVAILABLE, "none here"),
        CaseResult(row("yes", backend="tensorrt"), Status.UNAVAILABLE, "none here"),
        CaseResult(row("no", backend="onnxruntime"), Status.OK, stage="compute"),  # has no twin
    ]
    folder = run_folder(tmp_path / "graphs", rows)
    drift = [1000 + 50 * round_ for round_ in range(20)]
    timed(folder, plain, "compute", drift, 1)
    timed(folder, graphs, "compute", [time // 4 for time in drift], 1)
    pytorch, tensorrt = evidence.gather(tmp_path, []).graphs
    assert pytorch.ratio == pytest.approx(0.25, rel=1e-2)
    assert pytorch.low is not None
    assert pytorch.high is not None
    assert pytorch.high < 0.26
    assert tensorrt.ratio is None
    assert "none here" in tensorrt.why_not


def test_passes_decoding_and_tests_are_read(tmp_path):
    made = case(scenario="throughput", pipeline="dali_gpu", precision="fp16", batch=64)
    metrics = {"decodes_on_gpu": True, "decode_threads": 8, "cores": 8}
    folder = run_folder(
        tmp_path / "throughput", [CaseResult(made, Status.OK, stage="end_to_end", metrics=metrics)]
    )
    n = 12
    folder.write_samples_part(
        made.case_id,
        round=np.repeat(np.arange(n, dtype=np.int32), 3),
        stage=["end_to_end", "decode", "compute"] * n,
        images=np.full(3 * n, 1000, np.int32),
        warmup=np.zeros(3 * n, bool),
        latency_ns=np.tile(np.array([125_000_000, 100_000_000, 50_000_000], np.int64), n),
    )
    (tmp_path / "decode.json").write_text(
        '{"images_per_s": {"turbo": 3.0}, "missing": {"dali_gpu": "no device"}}'
    )
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite tests="9" failures="1" errors="1" skipped="3"/></testsuites>'
    )
    found = evidence.gather(tmp_path, [])
    (passed,) = found.passes
    assert passed.images_per_s == pytest.approx(8000.0)
    assert passed.percent_of_limit == pytest.approx(80.0)
    assert passed.bound_by == "decode"
    assert (found.decoding, found.not_decoding) == ({"turbo": 3.0}, {"dali_gpu": "no device"})
    assert found.tests == {"passed": 4, "failed": 2, "skipped": 3}
    (tmp_path / "tests.xml").write_text("<testsuites><tests")
    assert evidence.gather(tmp_path, []).tests is None, "torn when the tests were ended"


def test_the_folder_tells_all_of_it(accuracy):
    records = [
        Record("doctor", "what this is", "ok", seconds=1.0),
        Record("accuracy", "accuracy", "timeout", "it was ended | after 9 s", 9.0),
    ]
    figures = summary.write(accuracy, H200, records)
    text = (accuracy / "summary.md").read_text()
    assert "# GPU check: NVIDIA H200" in text
    for figure in figures:
        assert f"| {figure.verdict} |" in text
    assert "[accuracy](accuracy/report.md)" in text
    assert "ended \\| after" in text, "text from outside does not break the table"
    stored = json.loads((accuracy / "summary.json").read_text())
    assert stored["gpu"]["name"] == "NVIDIA H200"
    assert [figure["verdict"] for figure in stored["figures"]] == [figure.verdict for figure in figures]
    assert stored["evidence"]["pixels"]["dali_gpu"]["n_different"] == 1
    table = (accuracy / "table.csv").read_text().splitlines()
    assert len(table) == 7
    assert "tensorrt is not installed" in (accuracy / "table.md").read_text()
    proof = json.loads((accuracy / "proof.json").read_text())
    assert len(proof["accuracy"]) == 6
    assert json.loads((accuracy / "host.json").read_text())["host"]["cpu_model"] == "some"


def test_a_check_that_measured_nothing_has_a_summary_too(tmp_path):
    assert {figure.verdict for figure in summary.write(tmp_path, H200, [])} == {"not run"}
    assert (tmp_path / "summary.md").exists()
    assert not (tmp_path / "table.csv").exists()


def test_the_command_carries_out_and_judges(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "find", lambda: H200)
    seen: dict[str, Any] = {}

    def pretend(steps: Any, folder: Path, minutes: float, say: Any, after: Any) -> list[Record]:
        seen.update(names=[step.name for step in steps], minutes=minutes)
        with monkeypatch.context() as patched:
            patched.setattr(summary, "write", lambda *_: 1 / 0)
            after([Record("doctor", "", "ok")])
        return [Record("doctor", "", "ok")]

    monkeypatch.setattr(carry_out, "carry_out", pretend)
    answer = CliRunner().invoke(app, ["--out", str(tmp_path), "--minutes", "5", "--quick"])
    assert answer.exit_code == 1, "nothing was measured"
    assert seen["minutes"] == 5.0
    assert "latency-256" not in seen["names"]
    (folder,) = list(tmp_path.iterdir())
    assert folder.name.startswith("nvidia-h200-20")
    assert "not run  pytorch on the GPU" in answer.output
    assert "cannot be written yet: division by zero" in answer.output, "and the check goes on"
    as_json = CliRunner().invoke(app, ["--out", str(tmp_path), "--json"])
    assert json.loads(as_json.stdout)["gpu"]["capability"] == "9.0"
