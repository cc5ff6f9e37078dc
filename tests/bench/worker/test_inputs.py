"""What a worker imports, and the first batch that the workers of a run hand on as a file."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import SAYS_MODULES, fake_case, run_on, tiny_files

from bench.record.case import Case
from bench.worker import channel, inputs
from bench.worker.messages import Context


@pytest.fixture
def context(tmp_path: Path, image_folder: Path, tiny_graph: Path) -> Context:
    """A run of the small graph on eight images."""
    folder = run_on(tmp_path / "run", image_folder)
    return Context(str(folder.path), str(image_folder), tiny_files(tiny_graph), throughput_images=4)


def through(case: Case, context: Context) -> dict[str, Any]:
    """The last answer of a worker that took the Case from its start to its end."""
    with channel.LocalWorker(Path(context.run) / "logs" / "worker.log", 1, program=SAYS_MODULES) as worker:
        worker.ask({"do": "start", "case": case.to_dict(), "context": context.to_dict()}, 60.0)
        worker.ask({"do": "turn", "round": 0, "slice_ns": 10**9}, 60.0)
        return worker.ask({"do": "finish", "stop_reason": ""}, 60.0)


@pytest.mark.parametrize(
    ("backend", "pipeline", "scenario"),
    [
        ("onnxruntime", "turbo", "latency"),
        ("onnxruntime", "reference", "accuracy"),
        ("openvino", "dali", "accuracy"),
        ("fake", "reference", "throughput"),
    ],
)
def test_a_worker_imports_no_framework_that_its_runtime_does_not_need(backend, pipeline, scenario, context):
    for module in {"turbo": ("simplejpeg",), "dali": ("nvidia.dali",)}.get(pipeline, ()):
        pytest.importorskip(module)
    options = {"latency_ns": "80000000"} if backend == "fake" else {}
    case = replace(fake_case(scenario, **options), backend=backend, pipeline=pipeline)
    names = set(through(case, context)["modules"])
    other = {"onnxruntime", "openvino"} - {backend}
    assert not names & {"torch", "onnx", "pandas", "scipy.stats", "rich", "typer", *other}


def test_a_library_may_ask_a_worker_whether_pandas_is_there() -> None:
    """torch.export does; where the question failed, no model could be exported."""
    asks = "import importlib.util; from bench.worker import channel, serve; "
    asks += "channel.serve = lambda answer: importlib.util.find_spec('pandas'); serve.main()"
    subprocess.run([sys.executable, "-c", asks], check=True)


def test_workers_of_a_run_share_one_decoded_batch(context: Context) -> None:
    answers = [through(fake_case(batch=3), context) for _ in range(2)]
    (written,) = (Path(context.run) / inputs.FOLDER).glob("*.npy")
    assert np.load(written).shape == (3, 3, 224, 224)
    assert len({answer["metrics"]["input_sha256"] for answer in answers}) == 1
    assert not any("pipelines.reference.pipeline" in answer["modules"] for answer in answers)


def test_a_damaged_batch_is_decoded_anew(context: Context) -> None:
    case = fake_case(batch=2)
    before = through(case, context)["metrics"]["input_sha256"]
    (written,) = (Path(context.run) / inputs.FOLDER).glob("*.npy")
    np.save(written, np.zeros_like(np.load(written)))
    assert through(case, context)["metrics"]["input_sha256"] == before


def test_another_batch_size_and_changed_files_have_files_of_their_own(context, image_folder, tmp_path):
    first = through(fake_case(), context)["metrics"]["input_sha256"]
    assert through(fake_case(batch=2), context)["metrics"]["input_sha256"] != first
    image = context.images()[0].path
    kept = image.read_bytes()
    try:
        image.write_bytes(context.images()[1].path.read_bytes())
        assert through(fake_case(), context)["metrics"]["input_sha256"] != first
    finally:
        image.write_bytes(kept)


def test_a_run_that_is_over_keeps_no_batch(run_cases: Any) -> None:
    folder, recorder = run_cases(fake_case(), fake_case(batch=2), processes=True)
    assert [result.status.value for result in recorder.ended] == ["ok", "ok"]
    assert not (folder.path / inputs.FOLDER).exists()
