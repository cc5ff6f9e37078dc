"""The TensorRT backend over a fake runtime, and what its proof makes of the inspector's JSON."""

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from folders import CONTRACTS

from bench.backends import default_names, make_backend
from bench.backends.base import ModelFiles, OnDevice, TimesStages, Unavailable, Unsupported
from bench.backends.tensorrt import backend as backend_module
from bench.backends.tensorrt import engine as engine_module
from bench.backends.tensorrt.backend import TensorRt
from bench.backends.tensorrt.profiler import TensorRtProfiler
from bench.backends.tensorrt.proof import engine_layers, engine_proof
from bench.record.case import Case
from export import tensorrt as builder
from export.store import Artefact
from pipelines.base import DevicePixels
from scarlet.files import file_sha256


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fake runtime in place of TensorRT, the host in place of a GPU, and plans built in this process."""
    monkeypatch.syspath_prepend(CONTRACTS)
    module = importlib.import_module("tensorrt_drive")
    module.stand_in(monkeypatch)
    module.on_the_host(monkeypatch, engine_module)
    module.without_gpu(monkeypatch, backend_module)

    def built_here(spec: Any, gpu: Any, version: str, store: Any) -> Any:
        path = Path(spec.onnx).with_suffix(".plan")
        facts = builder.write_plan(spec, path, None)
        return Artefact(path, file_sha256(path), facts)

    monkeypatch.setattr(backend_module, "plan_for", built_here)
    return module


@pytest.fixture
def files(drive: Any, tmp_path: Path) -> ModelFiles:
    graph = drive.small_graph(tmp_path / "graph.onnx")
    return ModelFiles(
        "onnx:graph", "user", "0" * 64, str(graph), file_sha256(graph), input_size=drive.SIZE, classes=drive.CLASSES
    )


def a_case(batch: int = 4, precision: str = "fp32", device: str = "cuda", **options: str) -> Case:
    return Case(
        model="onnx:graph",
        weights="user",
        backend="tensorrt",
        device=device,
        precision=precision,
        batch=batch,
        options=tuple(sorted(options.items())),
    )


def loaded(case: Case, files: ModelFiles) -> TensorRt:
    backend = TensorRt()
    backend.load(case, files)
    return backend


def test_the_engine_runs_and_refuses_as_it_should(drive: Any, tmp_path: Path) -> None:
    drive.walk_engine(engine_module, tmp_path)


@pytest.mark.parametrize("graph", ["no", "yes"])
def test_batches_up_to_the_cases_are_inferred(graph: str, drive: Any, files: ModelFiles) -> None:
    backend = loaded(a_case(graph=graph), files)
    for n in (4, 2, 4, 1):
        pixels = drive.some_pixels(n, seed=n)
        logits = backend.infer(pixels)
        np.testing.assert_allclose(logits, drive.right_logits(files.onnx, pixels), rtol=1e-6)
    with pytest.raises(ValueError, match="up to 4, and got one of 5"):
        backend.infer(drive.some_pixels(5))
    proof = backend.proof()
    assert proof["cuda_graph"] == (graph == "yes")
    assert proof["other_batches"] == "enqueued in a second execution context"
    assert ("replay",) in drive.fake.CALLS or graph == "no"
    backend.close()


@pytest.mark.parametrize("graph", ["no", "yes"])
def test_stages_and_pixels_on_the_device_give_the_same_logits(graph: str, drive: Any, files: ModelFiles) -> None:
    backend = loaded(a_case(graph=graph), files)
    assert isinstance(backend, TimesStages)
    assert isinstance(backend, OnDevice)
    pixels = drive.some_pixels(4)
    right = drive.right_logits(files.onnx, pixels)
    logits, stages = backend.infer_stages(pixels)
    np.testing.assert_allclose(logits, right, rtol=1e-6)
    assert list(stages) == ["h2d", "compute", "d2h"]
    np.testing.assert_allclose(
        backend.infer_on_device(DevicePixels(torch.from_numpy(pixels).clone())), right, rtol=1e-6
    )


def test_pixels_that_are_not_aligned_are_copied(drive: Any, files: ModelFiles) -> None:
    backend = loaded(a_case(), files)
    pixels = drive.some_pixels(4)
    room = torch.zeros(pixels.size + 1)
    shifted = room[1:].view(pixels.shape).copy_(torch.from_numpy(pixels))
    assert shifted.data_ptr() % 64
    right = drive.right_logits(files.onnx, pixels)
    np.testing.assert_allclose(backend.infer_on_device(DevicePixels(shifted)), right, rtol=1e-6)


def test_a_captured_graph_takes_pixels_from_one_place_only(drive: Any, tmp_path: Path) -> None:
    _, plan = drive.plan_file(tmp_path)
    engine = drive.engine_on(engine_module, plan, graph=True)
    held = torch.zeros(4, 3, drive.SIZE, drive.SIZE)
    engine.compute(held)
    with pytest.raises(ValueError, match="one place only"):
        engine.compute(held.clone())


def test_shape_and_address_are_set_once_for_batches_alike(drive: Any, files: ModelFiles) -> None:
    backend = loaded(a_case(), files)
    drive.fake.CALLS.clear()
    for _ in range(3):
        backend.infer(drive.some_pixels(4))
    assert drive.fake.CALLS == [("execute", False)] * 3


def test_a_graph_of_several_outputs_is_refused(drive: Any, files: ModelFiles, tmp_path: Path) -> None:
    graph = drive.small_graph(tmp_path / "two.onnx", outputs=2)
    with pytest.raises(Exception, match="1 inputs and 2 outputs"):
        loaded(a_case(), ModelFiles("onnx:two", "user", "0" * 64, str(graph), "0" * 64, input_size=8, classes=10))


def test_the_case_decides_what_is_built(drive: Any, files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    build = backend_module.plan_for
    monkeypatch.setattr(
        backend_module, "plan_for", lambda spec, gpu, *rest: asked.append((spec, gpu)) or build(spec, gpu, *rest)
    )
    loaded(a_case(), files)
    loaded(a_case(batch=2, precision="tf32", level="5", build="3"), files)
    (first, gpu), (second, _) = asked
    assert (first.opt_batch, first.max_batch, first.tf32, first.level, first.build) == (4, 4, False, 3, 0)
    assert (second.opt_batch, second.max_batch, second.tf32, second.level, second.build) == (2, 2, True, 5, 3)
    assert (first.onnx, first.onnx_sha256) == (files.onnx, files.onnx_sha256)
    assert gpu == {"name": "a GPU", "compute_capability": "9.0", "multiprocessors": "132", "driver": "580.1"}


def test_a_typed_graph_is_built_where_the_case_is_of_lower_precision(drive: Any, tmp_path: Path) -> None:
    graph = drive.small_graph(tmp_path / "typed.onnx")
    facts = {"recipe": {"precision": "fp16", "dialect": ""}}
    typed = {"fp16": {"path": str(graph), "sha256": "f" * 64, "facts": facts}}
    files = ModelFiles("m", "user", "0" * 64, "none.onnx", "0" * 64, input_size=8, classes=10, typed=typed)
    proof = loaded(a_case(precision="fp16"), files).proof()
    assert proof["graph_sha256"] == "f" * 64
    assert proof["build"]["number"] == 0


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (a_case(device="cpu"), "--devices cuda"),
        (a_case(graph="maybe"), "tensorrt.graph is 'maybe'"),
        (a_case(build="0"), "whole number above 0"),
        (a_case(precision="int8", dialect="ort"), "no dialect|dialect is 'ort'"),
    ],
)
def test_what_it_cannot_do_is_unsupported(case: Case, words: str, files: ModelFiles) -> None:
    with pytest.raises(Unsupported, match=words):
        loaded(case, files)


def test_a_graph_of_another_fixed_batch_is_unsupported(drive: Any, tmp_path: Path) -> None:
    graph = drive.small_graph(tmp_path / "fixed.onnx", batch=4)
    files = ModelFiles("m", "user", "0" * 64, str(graph), "0" * 64, input_size=8, classes=10, fixed_batch=4)
    with pytest.raises(Unsupported, match="batches of 4 only"):
        loaded(a_case(batch=2), files)
    backend = loaded(a_case(batch=4), files)
    pixels = drive.some_pixels(4)
    np.testing.assert_allclose(backend.infer(pixels), drive.right_logits(graph, pixels), rtol=1e-6)


def test_without_tensorrt_the_case_is_unavailable(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(Unavailable, match="pip install tensorrt"):
        loaded(a_case(), files)


def test_it_is_compared_on_a_gpu_whether_it_is_installed_or_not() -> None:
    assert "tensorrt" in default_names(("cuda",))
    assert "openvino" not in default_names(("cuda",))
    assert "tensorrt" not in default_names()
    assert make_backend("tensorrt").FACTS.name == "tensorrt"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_run_without_a_gpu_has_an_unavailable_row(run_cases: Callable[..., Any]) -> None:
    folder, _ = run_cases(a_case())
    (result,) = folder.case_results()
    assert result.status.value == "unavailable"
    assert "CUDA" in result.reason or "CPU build" in result.reason


def test_the_proof_of_an_fp32_case(drive: Any, files: ModelFiles) -> None:
    backend = loaded(a_case(), files)
    backend.infer(drive.some_pixels(4))
    proof = backend.proof()
    assert proof["fallback"] == ""
    assert proof["asked_counts"] == {"float32": 1}
    assert proof["layer_counts"] == {"gemm float32": 1, "kgen float32": 2}
    assert proof["tf32"] == {"allowed": False, "kernels": 0}
    assert proof["profile"] == {name: [n, 3, 8, 8] for name, n in (("min", 1), ("opt", 4), ("max", 4))}
    assert proof["other_batches"] == "none"
    assert proof["plan_sha256"] == file_sha256(Path(files.onnx).with_suffix(".plan"))
    assert proof["build"]["timing_cache"] == "none"
    json.dumps(proof)


def test_the_proof_of_a_tf32_case(files: ModelFiles) -> None:
    proof = loaded(a_case(precision="tf32"), files).proof()
    assert proof["tf32"] == {"allowed": True, "kernels": 1}
    assert proof["fallback"] == ""


def layer(name: str, type_: str, kind: str = "CaskConvolution", **more: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": [{"Name": "x", "Format/Datatype": type_}], "Outputs": [], **more}


def of_layers(*layers: Any, tensors: str = "Bindings") -> str:
    return json.dumps({"Layers": layers, tensors: ["input", "logits"]})


@pytest.mark.parametrize("tensors", ["Bindings", "I/O Tensors"])
def test_layers_of_both_versions_are_read(tensors: str) -> None:
    first = layer("conv1 + relu1", "Channel major FP16 format where channel % 8 == 0", TacticName="sm80_f16")
    second = layer(
        "__myl_Conv", "BFloat16", "kgen", Metadata="[ONNX Layer: a/b]\x1f[ONNX Layer: c[0]]\x1e[ONNX Layer: d]"
    )
    found = engine_layers(of_layers(first, second, "by name only + other", tensors=tensors))
    assert [one.type for one in found] == ["float16", "bfloat16", "unknown"]
    assert [one.heavy for one in found] == [True, False, False]
    assert found[0].nodes == {"conv1", "relu1"}
    assert {"a/b", "c[0]", "d"} <= found[1].nodes
    assert found[2].nodes == {"by name only", "other"}


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ("Row major linear FP32", "float32"),
        ("Float", "float32"),
        ("Half", "float16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("FP8", "float8"),
        ("Int32", "int32"),
        ("N/A due to dynamic shapes", "unknown"),
    ],
)
def test_types_are_read_in_each_versions_words(text: str, type_: str) -> None:
    (found,) = engine_layers(of_layers(layer("conv", text)))
    assert found.type == type_


def test_the_weights_tell_the_type_where_the_input_does_not() -> None:
    (found,) = engine_layers(of_layers(layer("conv", "?", Weights={"Type": "Half", "Count": 9})))
    assert found.type == "float16"


@pytest.mark.parametrize("text", ["[]", '{"Layers": null}', "no JSON"])
def test_an_inspector_that_says_something_else_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"'Layers'|Expecting"):
        engine_layers(text)


def test_convolutions_that_ran_in_float_are_a_fallback() -> None:
    asked = {"conv1": "int8", "conv2": "int8", "conv3": "int8"}
    text = of_layers(layer("conv1", "Int8"), layer("dq + conv2", "Row major linear FP32"))
    proof = engine_proof(text, asked, "int8")
    assert proof["not_as_asked"] == {"conv2": "float32", "conv3": "not among the layers"}
    assert proof["not_found"] == ["conv3"]
    assert proof["fallback"].startswith("2 of 3 layers")


def test_names_that_are_not_found_prove_nothing_of_a_half_precision_graph() -> None:
    asked = {"conv1": "float16", "conv2": "float16"}
    proof = engine_proof(of_layers(layer("conv1", "Half")), asked, "fp16")
    assert (proof["fallback"], proof["not_found"]) == ("", ["conv2"])
    none = engine_proof(of_layers(layer("something", "Half")), asked, "fp16")
    assert "names none of the graph's convolutions" in none["fallback"]


def test_of_the_layers_made_of_a_node_the_one_that_multiplies_counts() -> None:
    text = of_layers(layer("cast", "Float", "kgen", Metadata="[ONNX Layer: conv1]"), layer("conv1", "Half"))
    assert engine_proof(text, {"conv1": "float16"}, "fp16")["fallback"] == ""
    assert engine_proof(text, {"conv1": "float32"}, "fp32")["not_as_asked"] == {"conv1": "float16"}


def test_tf32_that_nobody_asked_for_is_a_fallback() -> None:
    text = of_layers(layer("conv1", "Float", TacticName="sm80_xmma_fprop_tf32f32_tf32f32_f32"))
    proof = engine_proof(text, {"conv1": "float32"}, "fp32")
    assert proof["fallback"] == "1 layers ran in TF32, which was not asked for: conv1"
    assert engine_proof(text, {"conv1": "float32"}, "tf32")["fallback"] == ""


def test_a_runtime_that_does_not_start_is_unavailable(drive: Any, files: ModelFiles, monkeypatch) -> None:
    def nothing(log: Any) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(drive.fake, "Runtime", nothing)
    with pytest.raises(Unavailable, match="cannot start here"):
        TensorRt().load(a_case(), files)


def test_a_failed_capture_says_why(drive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def graph(*args: Any, **more: Any) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("capture_end: the capture is invalid")

    def work() -> None:
        raise RuntimeError("TensorRT would not enqueue: no memory")

    monkeypatch.setattr(torch.cuda, "graph", graph)
    with pytest.raises(RuntimeError, match="would not enqueue"):
        engine_module.captured(work, torch.cuda.Stream())


def test_layers_are_profiled_by_tensorrt_itself(drive: Any, files: ModelFiles) -> None:
    backend = loaded(a_case(), files)
    profiler = TensorRtProfiler(a_case(), files, backend)
    pixels = drive.some_pixels(4)
    assert len(profiler.turn(pixels, 2, 3)) == 3
    nodes = {node.name: node for node in profiler.nodes()}
    names = [layer.name for layer in engine_layers(backend.engine.information())]
    assert nodes.keys() == {*names, "Reformatting CopyNode"}
    for name, node in nodes.items():
        assert node.samples_ns == (250_000.0 * names.count(name) or 125_000.0,) * 3
    heavy = [node for node in nodes.values() if node.op == "gemm"]
    assert {node.kernel for node in heavy} == {"sm90_f32f32"}
    graph_names = {node.name or node.output[0] for node in onnx.load(files.onnx).graph.node}
    assert all(graph_names & {*node.originals} for node in heavy)
    assert nodes["Reformatting CopyNode"].originals == ("Reformatting CopyNode",)
    drive.fake.CALLS.clear()
    backend.infer(pixels)
    assert profiler.nodes()[0].samples_ns == nodes[names[0]].samples_ns, "plain calls are not watched"
    profiler.close()
    with pytest.raises(Unsupported, match=r"leave tensorrt\.graph out"):
        TensorRtProfiler(a_case(graph="yes"), files, backend)
