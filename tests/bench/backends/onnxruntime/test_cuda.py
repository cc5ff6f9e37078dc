"""ONNX Runtime on a GPU made of the CPU: the real runtime, bound tensors and run options, on its CPU provider."""

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from fake_cuda import FakeCuda, faked
from numpy.typing import NDArray

from bench.backends.base import ModelFiles, Unavailable, Unsupported
from bench.backends.onnxruntime import backend as backend_module
from bench.backends.onnxruntime import cuda
from bench.backends.onnxruntime.backend import OnnxRuntime
from bench.backends.onnxruntime.proof import tells_assignment
from bench.record.case import Case
from pipelines.base import DevicePixels

pytestmark = pytest.mark.skipif(
    not tells_assignment(onnxruntime), reason="GPUs need a newer ONNX Runtime than Python 3.10 has"
)

CPU = "CPUExecutionProvider"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """The CPU provider under the name of the GPU's. It must not be forbidden, then."""
    monkeypatch.setattr(cuda, "PROVIDER", CPU)
    monkeypatch.setitem(backend_module.PROVIDERS, "cuda", CPU)
    monkeypatch.setattr(cuda, "NO_CPU", {})
    yield from faked(monkeypatch)


def case_of(precision: str = "fp32", batch: int = 2, **options: str) -> Case:
    given = tuple(sorted(options.items()))
    return Case("onnx:tiny", "user", "onnxruntime", device="cuda", precision=precision, batch=batch, options=given)


def files_of(graph: Path, **more: Any) -> ModelFiles:
    return ModelFiles("onnx:tiny", "user", "0", str(graph), "0", **more)


def loaded(file: Path, **options: str) -> OnnxRuntime:
    backend = OnnxRuntime()
    backend.load(case_of(**options), files_of(file))
    return backend


def pixels_of(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((n, 3, 224, 224), dtype=np.float32)


@pytest.fixture
def expected(tiny_graph: Path) -> Any:
    session = onnxruntime.InferenceSession(str(tiny_graph), providers=[CPU])
    return lambda pixels: session.run(None, {"input": pixels})[0]


def test_logits_come_through_bound_tensors(gpu: FakeCuda, tiny_graph: Path, expected: Any) -> None:
    backend = loaded(tiny_graph)
    for n, seed in ((2, 1), (1, 2), (2, 3)):
        assert np.allclose(backend.infer(pixels_of(n, seed)), expected(pixels_of(n, seed)), atol=1e-5)
    on_device = backend.infer_on_device(DevicePixels(torch.from_numpy(pixels_of(2, 4))))
    assert np.allclose(on_device, expected(pixels_of(2, 4)), atol=1e-5)
    logits, stages = backend.infer_stages(pixels_of(2))
    assert np.allclose(logits, expected(pixels_of(2)), atol=1e-5)
    assert list(stages) == ["h2d", "compute", "d2h", "enqueue"]
    backend.close()


def test_the_proof_names_provider_options_and_nodes(gpu: FakeCuda, tiny_graph: Path) -> None:
    backend = loaded(tiny_graph, graph="yes", layout="nhwc")
    backend.infer(pixels_of(1))
    proof = backend.proof()
    assert proof["fallback"] == ""
    assert proof["nodes_per_provider"][CPU]["GlobalAveragePool"] == 1
    assert (proof["tf32"], proof["cuda_graph"], proof["cuda_graph_ids"]) == (False, "yes", [2])
    assert proof["provider_options"]["prefer_nhwc"] == "1"
    assert proof["provider_options"]["user_compute_stream"] == "4096"
    assert proof["gpu"]["name"] == "Fake GPU"


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", "0"), ("tf32", "1"), ("fp16", "0"), ("int8", "0")])
def test_tf32_is_on_where_it_is_asked_for_and_nowhere_else(precision: str, tf32: str) -> None:
    assert cuda.provider_options(case_of(precision), 1)["use_tf32"] == tf32


def test_options_decide_what_the_provider_is_told() -> None:
    plain = cuda.provider_options(case_of(), 7)
    assert (plain["prefer_nhwc"], plain["enable_cuda_graph"], plain["cudnn_conv_algo_search"]) == (
        *("0", "0"),
        "EXHAUSTIVE",
    )
    told = cuda.provider_options(case_of(search="heuristic", graph="yes", layout="nhwc"), 7)
    assert {name for name in told if told[name] != plain[name]} == {
        *("prefer_nhwc", "enable_cuda_graph", "cudnn_conv_algo_search")
    }
    assert told["cudnn_conv_algo_search"] == "HEURISTIC"


def test_a_call_does_not_synchronise_and_each_size_has_a_graph_of_its_own() -> None:
    assert cuda.run_config(8, False) == {"disable_synchronize_execution_providers": "1"}
    assert cuda.run_config(8, True)["gpu_graph_id"] == "8"


def test_an_option_that_was_not_taken_makes_a_fallback() -> None:
    asked = {"use_tf32": "0", "enable_cuda_graph": "1", "prefer_nhwc": "0"}
    assert cuda.options_sentence(asked, {"use_tf32": "0", "enable_cuda_graph": "true"}) == ""
    told = {"use_tf32": "1", "enable_cuda_graph": "1"}
    assert cuda.options_sentence(asked, told) == "the provider did not take its options: use_tf32 is 1"


def test_a_version_that_tells_no_assignment_is_refused_before_anything_is_timed(gpu, tiny_graph, monkeypatch):
    monkeypatch.setattr(backend_module, "tells_assignment", lambda onnxruntime: False)
    with pytest.raises(Unavailable, match=r"Python 3\.11"):
        loaded(tiny_graph)


class Runtime:
    """Stands for the module where the provider does not come up, or refuses nodes."""

    def __init__(self, provider: str, refuses: bool) -> None:
        self.provider, self.refuses, self.asked = provider, refuses, []  # type: ignore[var-annotated]

    def InferenceSession(self, graph: str, options: Any, providers: Any, enable_fallback: int) -> Any:  # noqa: N802
        assert enable_fallback == 0
        self.asked.append(providers)
        if self.refuses and len(providers) == 1:
            raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : nodes, but {cuda.REFUSALS[0]} by the user.")
        nodes = [types.SimpleNamespace(name=f"node_{place}", op_type="Shape") for place in range(7)]
        elsewhere = types.SimpleNamespace(ep_name=CPU, get_nodes=lambda: nodes)
        return types.SimpleNamespace(
            get_providers=lambda: [self.provider, CPU], get_provider_graph_assignment_info=lambda: [elsewhere]
        )

    def SessionOptions(self) -> Any:  # noqa: N802
        return types.SimpleNamespace(add_session_config_entry=lambda key, value: None)


def test_nodes_without_a_cuda_kernel_are_named() -> None:
    runtime = Runtime(cuda.PROVIDER, refuses=True)
    with pytest.raises(Unsupported) as refusal:
        cuda._made(runtime, "graph", None, {"enable_cuda_graph": "1"})
    assert "no CUDA kernel for node_0 (Shape on CPUExecutionProvider)" in str(refusal.value)
    assert str(refusal.value).endswith("2 more")
    (_, settings), _ = runtime.asked[1]
    assert settings["enable_cuda_graph"] == "0"


@pytest.mark.parametrize("refuses", [True, False])
def test_a_provider_that_does_not_come_up_is_unavailable(refuses: bool) -> None:
    with pytest.raises(Unavailable, match=r"runs on .*CPUExecutionProvider instead of CUDA.*doctor"):
        cuda._made(Runtime("AzureExecutionProvider", refuses), "graph", None, {})


def test_another_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Runtime(cuda.PROVIDER, refuses=True)
    monkeypatch.setattr(runtime, "InferenceSession", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory"):
        cuda._made(runtime, "graph", None, {})


def test_a_node_elsewhere_makes_a_fallback_that_names_it(gpu: FakeCuda, tiny_graph: Path) -> None:
    backend = loaded(tiny_graph)
    backend_module.PROVIDERS["cuda"] = "CUDAExecutionProvider"
    sentence = backend.proof()["fallback"]
    assert sentence.startswith("not on CUDAExecutionProvider ran ")
    assert "GlobalAveragePool on CPUExecutionProvider" in sentence


def test_int8_that_computes_in_float_is_a_fallback(gpu, tiny_graph, monkeypatch):
    from bench.backends.precision import Layer
    from export.precision import audit

    monkeypatch.setattr(audit, "requested_by_onnx", lambda path: {"conv": "int8"})
    providers: list[Any] = []

    def final(module: Any, graph: str, options: Any, given: Any) -> list[Layer]:
        providers.extend(given)
        return [Layer("conv", "Conv", "float32")]

    monkeypatch.setattr(backend_module, "final_layers", final)
    typed = {"path": str(tiny_graph), "sha256": "0", "facts": {"recipe": {"precision": "int8", "dialect": "ort"}}}
    backend = OnnxRuntime()
    backend.load(case_of("int8"), files_of(tiny_graph, typed={"int8/ort": typed}))
    assert "1 of 1 layers" in backend.proof()["fallback"]
    assert "conv (float32)" in backend.proof()["fallback"]
    ((_, settings), *_) = providers
    assert "user_compute_stream" not in settings

    def broken(*_: Any) -> list[Layer]:
        raise RuntimeError("cannot be written")

    monkeypatch.setattr(backend_module, "final_layers", broken)
    assert "could not be read (cannot be written)" in backend.proof()["fallback"]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (case_of("bf16"), "no BF16 kernels"),
        (Case("onnx:tiny", "user", "onnxruntime", precision="tf32"), "runs no tf32 graph on the cpu"),
        (Case("onnx:tiny", "user", "onnxruntime", options=(("layout", "nhwc"),)), "about GPUs"),
    ],
)
def test_what_cannot_be_is_unsupported(tiny_graph: Path, case: Case, reason: str) -> None:
    with pytest.raises(Unsupported, match=reason):
        OnnxRuntime().load(case, files_of(tiny_graph))


def test_an_older_gpu_has_no_tf32(gpu: FakeCuda, tiny_graph: Path) -> None:
    gpu.capability = (7, 5)
    with pytest.raises(Unsupported, match="has no TF32"):
        loaded(tiny_graph, precision="tf32")


def test_a_graph_whose_ends_are_not_float32_is_unsupported(gpu: FakeCuda, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["n", 3, 224, 224]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "half", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "half.onnx")
    with pytest.raises(Unsupported, match=r"'x' is tensor\(float16\)"):
        loaded(tmp_path / "half.onnx")
