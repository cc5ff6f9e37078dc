"""The real backends on SCARLET-C with the demo weights, in this process."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from bench_fakes import SAYS_MODULES, WNIDS
from numpy.typing import NDArray

from bench.backends import REGISTRY, default_names, facts, make_backend
from bench.backends.base import ModelFiles, Unavailable, Unsupported
from bench.backends.onnxruntime.backend import session_options
from bench.record.case import Case
from bench.worker import channel
from bench.worker.prepare import Request, prepare
from scarlet.errors import BenchError

# OpenVINO comes with the extra for CPUs only.
BACKENDS = ("pytorch", "onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else []))


@pytest.fixture(scope="module")
def request_(image_folder: Path) -> Request:
    names = sorted(path.relative_to(image_folder).as_posix() for path in image_folder.rglob("*.JPEG"))
    images = [(name, WNIDS.index(name.split("/")[1])) for name in names]
    return Request("scarlet_c", "demo", str(image_folder), images)


@pytest.fixture(scope="module")
def files(request_: Request, shared_store: Path) -> ModelFiles:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCARLET_BENCH_STORE", str(shared_store))
        return prepare(request_)


@pytest.fixture(scope="module")
def pixels(image_folder: Path, files: ModelFiles) -> NDArray[np.float32]:
    from pipelines.imagenet.find import find_images
    from pipelines.reference.pipeline import ReferencePipeline

    pipeline = ReferencePipeline(find_images(image_folder).images, 8, 1, files.preprocessing)
    (batch,) = list(pipeline)
    return batch.pixels


def case_of(backend: str, **changes: object) -> Case:
    return dataclasses.replace(
        Case("scarlet_c", "demo", backend, batch=8),
        **changes,  # type: ignore[arg-type]
    )


def logits_of(case: Case, files: ModelFiles, pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict]:  # type: ignore[type-arg]
    backend = make_backend(case.backend)
    backend.load(case, files)
    logits = backend.infer(pixels)
    proof = backend.proof()
    backend.close()
    return logits, proof


def test_prepared_files_say_what_they_are(files: ModelFiles) -> None:
    assert (files.model, files.weights, files.classes, files.input_size) == ("scarlet_c", "demo", 1000, 224)
    assert (files.parameters, files.multiply_adds) == (6_073_684, 280_082_912)
    assert files.parity["ratio"] < 1e-4
    assert files.fixed_batch is None
    assert ModelFiles(**files.to_dict()) == files


def test_the_second_time_no_framework_is_imported(files, request_, shared_store, tmp_path, monkeypatch):
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(shared_store))
    with channel.LocalWorker(tmp_path / "prepare.log", 1, program=SAYS_MODULES) as worker:
        answer = worker.ask({"do": "prepare", "request": dataclasses.asdict(request_)}, 300.0)
    assert answer["files"] == files.to_dict()
    assert not {"torch", "onnx", "onnxruntime"} & set(answer["modules"])


def test_backends_agree_on_every_image_and_logits_differ_by_rounding_only(files, pixels):
    plain, _ = logits_of(case_of("pytorch", options=(("form", "plain"),)), files, pixels)
    spread = float(plain.std())
    assert len(set(plain.argmax(axis=1))) > 1, "a network that says the same of every image proves nothing"
    as_exported = case_of("onnxruntime", options=(("optimization", "none"),))
    for case in (as_exported, *(case_of(name) for name in BACKENDS)):
        logits, _ = logits_of(case, files, pixels)
        assert logits.shape == (8, 1000)
        assert logits.dtype == np.float32
        assert np.abs(logits - plain).max() < 1e-3 * spread
        assert (logits.argmax(axis=1) == plain.argmax(axis=1)).all()


def test_logits_do_not_depend_on_the_batch(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    for name in BACKENDS:
        backend = make_backend(name)
        backend.load(case_of(name), files)
        whole = backend.infer(pixels)
        parts = np.concatenate([backend.infer(np.ascontiguousarray(pixels[i : i + 3])) for i in (0, 3, 6)])
        assert np.abs(whole - parts).max() < 1e-4 * whole.std()


def test_pytorch_proves_its_form_threads_and_types(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    _, tuned = logits_of(case_of("pytorch", threads=2), files, pixels)
    _, plain = logits_of(case_of("pytorch", options=(("form", "plain"),)), files, pixels)
    assert tuned["form"] == "tuned"
    # Stem, depthwise and projection before the blocks, three in each of the 16 blocks that are no identity, last.
    assert tuned["batchnorms_folded"] == 3 + 3 * 16 + 1
    assert tuned["layout"] == "channels_last"
    assert tuned["intra_op_threads"] == 2
    assert tuned["dtypes"] == ["float32"]
    assert tuned["devices"] == ["cpu"]
    assert tuned["autocast"] is False
    assert (plain["form"], plain["batchnorms_folded"], plain["layout"]) == ("plain", 0, "contiguous_format")


def test_onnxruntime_proves_that_every_node_ran_on_the_provider_asked_for(files, pixels):
    _, proof = logits_of(case_of("onnxruntime", threads=2), files, pixels)
    assert proof["providers"] == ["CPUExecutionProvider"]
    assert proof["fallback"] == ""
    assert proof["intra_op_threads"] == 2
    assert set(proof["nodes_per_provider"]) == {"CPUExecutionProvider"}
    assert proof["nodes_per_provider"]["CPUExecutionProvider"]["Conv"] > 50
    assert proof["graph_optimization"] == "all"


def test_onnxruntime_of_the_oldest_pin_proves_by_a_profiled_pass_and_says_so(files, pixels, monkeypatch):
    """Python 3.10 has no version that tells which provider each node was given; where this is newer, it is made so."""
    import onnxruntime

    new, _ = logits_of(case_of("onnxruntime", threads=2), files, pixels)
    for class_ in onnxruntime.InferenceSession.__mro__:
        if "get_provider_graph_assignment_info" in vars(class_):
            monkeypatch.delattr(class_, "get_provider_graph_assignment_info")
    logits, proof = logits_of(case_of("onnxruntime", threads=2), files, pixels)
    assert (logits == new).all()
    assert (proof["providers"], proof["fallback"]) == (["CPUExecutionProvider"], "")
    assert set(proof["nodes_per_provider"]) == {"CPUExecutionProvider"}
    assert proof["nodes_per_provider"]["CPUExecutionProvider"]["Conv"] > 50
    assert "profiled" in proof["nodes_untold"]


def test_onnxruntime_runs_the_graph_as_it_was_exported_where_told(files: ModelFiles, tmp_path: Path) -> None:
    import onnxruntime

    operators: dict[str, set[str]] = {}
    for level in ("all", "none"):
        settings = session_options(onnxruntime, 1, level)
        settings.optimized_model_filepath = str(tmp_path / f"{level}.onnx")
        onnxruntime.InferenceSession(files.onnx, settings, providers=["CPUExecutionProvider"])
        operators[level] = {node.op_type for node in onnx.load(tmp_path / f"{level}.onnx").graph.node}
    exported = {node.op_type for node in onnx.load(files.onnx).graph.node}
    # HardSwish is a function of others by its definition; a runtime without a kernel for it writes it out.
    assert operators["none"] <= exported | {"HardSigmoid", "Mul"}
    assert not operators["all"] <= exported | {"HardSigmoid", "Mul"}, "nothing was fused"
    backend = make_backend("onnxruntime")
    backend.load(case_of("onnxruntime", options=(("optimization", "none"),)), files)
    assert backend.proof()["graph_optimization"] == "none"


@pytest.mark.skipif("openvino" not in BACKENDS, reason="openvino is not installed")
def test_openvino_proves_the_precision_of_every_layer(files: ModelFiles, pixels: NDArray[np.float32]) -> None:
    _, proof = logits_of(case_of("openvino"), files, pixels)
    arithmetic = [layer for layer in proof["layers"] if layer["type"] in ("Convolution", "FullyConnected")]
    # Stem, depthwise and projection, three in each of 16 blocks, two in each of 13 squeeze-excites, last, classifier.
    # Without AVX-512 its plugin fuses the stem's convolution with the depthwise one behind it.
    fused = 0 if "avx512f" in Path("/proc/cpuinfo").read_text() else 1
    assert len(arithmetic) == 3 + 3 * 16 + 2 * 13 + 1 + 1 - fused
    assert {layer["precision"] for layer in arithmetic} == {"f32"}
    assert proof["fallback"] == ""


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (case_of("pytorch", options=(("form", "fast"),)), "pytorch.form"),
        (case_of("pytorch", precision="fp16"), "fp16"),
        (case_of("onnxruntime", precision="bf16"), "runs no bf16 graph"),
        (case_of("onnxruntime", options=(("optimisation", "none"),)), r"did you mean onnxruntime\.optimization"),
    ],
)
def test_what_a_backend_cannot_do_is_unsupported(files: ModelFiles, case: Case, expected: str) -> None:
    with pytest.raises(Unsupported, match=expected):
        make_backend(case.backend).load(case, files)


@pytest.mark.parametrize(
    ("case", "key"),
    [
        (case_of("onnxruntime", precision="int8"), "int8/ort"),
        (case_of("onnxruntime", precision="fp16"), "fp16"),
        (case_of("openvino", precision="int8"), "int8/nncf"),
    ],
)
def test_a_graph_that_nobody_made_is_unavailable(files: ModelFiles, case: Case, key: str) -> None:
    with pytest.raises(Unavailable, match=f"the {key} graph was not prepared"):
        make_backend(case.backend).load(case, files)


def test_pytorch_cannot_run_an_onnx_file(files: ModelFiles) -> None:
    with pytest.raises(Unsupported, match="no PyTorch module"):
        make_backend("pytorch").load(case_of("pytorch"), dataclasses.replace(files, state=None))


def test_cuda_without_a_device_is_unavailable_with_what_to_do(files: ModelFiles) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    for name in ("pytorch", "onnxruntime"):
        with pytest.raises(Unavailable, match=r"make|doctor"):
            make_backend(name).load(case_of(name, device="cuda"), files)


def test_a_missing_package_is_unavailable_with_how_to_install_it(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(Unavailable, match="pip install onnxruntime"):
        make_backend("onnxruntime").load(case_of("onnxruntime"), files)


def test_openvino_is_compared_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_names() == ("pytorch", "onnxruntime", "openvino")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert default_names() == ("pytorch", "onnxruntime")


def test_every_registered_backend_can_be_made_and_bears_its_name() -> None:
    for name in REGISTRY:
        assert make_backend(name).FACTS.name == facts(name).name == name
    with pytest.raises(BenchError, match="unknown backend"):
        make_backend("nobody")
