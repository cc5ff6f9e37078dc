"""The real onnxruntime-gpu takes what our backend tells it, and gives every node to the GPU; no GPU is needed.

Off unless SCARLET_BENCH_CONTRACTS=1, for it fetches 250 MB. See ``onnxruntime_wheel``: no kernel is run.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from folders import FAKES
from onnx import TensorProto, helper
from onnxruntime_wheel import STUB_COUNTS, VERSION, ask

from bench.backends.onnxruntime.cuda import PROVIDER
from export.precision.audit import requested_by_onnx

pytestmark = pytest.mark.slow

KNOWN = json.loads((FAKES / "onnxruntime_cuda_options.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """SCARLET-C as our exporter writes it, in each precision."""
    from bench.worker.lower_precision import prepare_typed
    from export.onnx import export_onnx
    from export.precision.calibration import CalibrationSet
    from export.precision.recipe import default_recipe
    from scarlet import zoo

    ask([])  # skips before anything slow begins
    folder = tmp_path_factory.mktemp("graphs")
    fp32 = folder / "fp32.onnx"
    export_onnx(zoo.untrained(zoo.resolve("scarlet_c")), fp32, 224, {})
    noise = np.random.default_rng(0).standard_normal((4, 3, 224, 224)).astype(np.float32)
    found = {"fp32": str(fp32)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCARLET_BENCH_STORE", str(folder / "store"))
        for name, precision, dialect in (
            ("fp16", "fp16", ""),
            ("ort", "int8", "ort"),
            ("symmetric", "int8", "symmetric"),
        ):
            calibration = CalibrationSet.of([noise]) if dialect else None
            made = prepare_typed(str(fp32), name, default_recipe(precision, dialect), calibration, None)
            found[name] = made.path
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    from bench_fakes import make_graph

    path = tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    onnx.save(make_graph("batch"), path)
    return str(path)


def test_every_option_that_we_set_is_taken_as_it_was_said(tiny: str) -> None:
    choices: list[dict[str, Any]] = [
        {},
        {"graph": "yes"},
        {"layout": "nhwc"},
        {"search": "heuristic"},
        {"search": "default"},
    ]
    questions = [{"graph": tiny, "options": options} for options in choices]
    answers = ask([*questions, {"graph": tiny, "precision": "tf32"}])
    for found in answers:
        assert found.get("sentence") == "", found
        assert found["version"] == VERSION
        assert found["providers"][0] == PROVIDER
    assert answers[0]["told"]["use_tf32"] == "0"
    assert answers[-1]["told"]["use_tf32"] == "1"
    assert set(answers[0]["told"]) == set(KNOWN["provider_options"]), "the list is of this version"
    assert KNOWN["version"] == VERSION


@pytest.mark.parametrize("more", [{"use_tf33": "0"}, {"use_tf32": "maybe"}, {"cudnn_conv_algo_search": "FASTEST"}])
def test_a_misspelt_option_or_value_is_refused(tiny: str, more: dict[str, str]) -> None:
    (found,) = ask([{"graph": tiny, "more": more}])
    assert "provider_options_utils.h" in found["error"]


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("name", ["fp32", "fp16", "ort", "symmetric"])
def test_every_node_of_the_exported_network_has_a_cuda_kernel(graphs: dict[str, str], name: str, layout: str) -> None:
    precision = {"fp32": "fp32", "fp16": "fp16"}.get(name, "int8")
    question = {"graph": graphs[name], "precision": precision}
    plain, graphed = ask([{**question, "options": {"layout": layout, "graph": graph}} for graph in ("no", "yes")])
    for found in (plain, graphed):
        assert list(found["nodes"]) == [PROVIDER], found
        assert found["nodes"][PROVIDER]["Conv"] == 78
        assert not {"Shape", "Gather"} & set(found["nodes"][PROVIDER])


def test_int8_is_computed_in_float_and_fp16_in_float16(graphs: dict[str, str]) -> None:
    half, int8 = ask(
        [
            {"graph": graphs["fp16"], "precision": "fp16", "layers": True},
            {"graph": graphs["symmetric"], "precision": "int8", "layers": True},
        ]
    )
    assert half["layers"] == {"Conv float16": 78, "Gemm float16": 1}
    assert int8["layers"] == {"Conv float32": 78, "Gemm float32": 1}
    assert set(requested_by_onnx(Path(graphs["symmetric"])).values()) == {"int8"}


def test_a_node_without_a_cuda_kernel_is_refused_by_name(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 3]) for name in ("x", "y")]
    ends[1] = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("Det", ["x"], ["y"], "the_node")], "det", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "det.onnx")
    for found in ask([{"graph": str(tmp_path / "det.onnx"), "options": {"graph": use}} for use in ("no", "yes")]):
        assert found["refused"] == "Unsupported", found
        assert "no CUDA kernel for the_node (Det on CPUExecutionProvider)" in found["reason"]


@pytest.mark.parametrize("blank", [True, False])
def test_a_pipeline_spoils_no_capture_where_the_inferring_thread_has_called_before(blank: bool, tmp_path: Path) -> None:
    shape = [2, 3, 4, 4]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "relu", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "relu.onnx")
    (found,) = ask([{"graph": str(tmp_path / "relu.onnx"), "shape": shape, "blank": blank}])
    counts = dict(zip(STUB_COUNTS, found["counts"], strict=True))
    assert counts["on the legacy stream"] == 0
    assert dict(zip(STUB_COUNTS, found["loading"], strict=True))["captures"] == 1
    if blank:
        assert (counts["captures"], counts["captures spoilt"]) == (2, 0), "each thread has its own graph"
        assert set(found["errors"]) == {""}
    else:  # what would become of it otherwise
        assert counts["captures spoilt"] >= 1
        assert any(found["errors"])
