"""PyTorch on a GPU made of the CPU: precisions, CUDA graphs, proofs."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_cuda import FakeCuda, faked
from numpy.typing import NDArray
from torch import nn

from bench.backends import cuda
from bench.backends.base import ModelFiles, Unavailable, Unsupported
from bench.backends.pytorch import backend as pytorch
from bench.backends.pytorch import cuda as pytorch_cuda
from bench.backends.pytorch.backend import other_device
from bench.record.case import Case
from pipelines.base import DevicePixels

FILES = ModelFiles("scarlet_c", "random", "0", "", "0", state="none", input_size=16)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    yield from faked(monkeypatch)


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 10))
    module.eval()
    monkeypatch.setattr(ModelFiles, "network", lambda files: module)
    return module


def pixels_of(n: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).random((n, 3, 16, 16), dtype=np.float32)


def loaded(precision: str = "fp32", batch: int = 4, **options: str) -> pytorch.PyTorch:
    backend = pytorch.PyTorch()
    given = tuple(sorted(options.items()))
    backend.load(
        Case("scarlet_c", "random", "pytorch", device="cuda", precision=precision, batch=batch, options=given), FILES
    )
    return backend


@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [("fp32", "float32", 1e-5), ("tf32", "float32", 1e-5), ("fp16", "float16", 1e-2), ("bf16", "bfloat16", 1e-1)],
)
def test_each_precision_runs_in_its_type_and_proves_it(gpu, network, precision, dtype, tolerance):
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels_of(4))).numpy().copy()
    backend = loaded(precision)
    logits = backend.infer(pixels_of(4))
    assert logits.dtype == np.float32
    assert np.allclose(logits, expected, atol=tolerance)
    proof = backend.proof()
    assert proof["layer_counts"] == {f"Conv2d {dtype}": 1, f"Linear {dtype}": 1}
    assert proof["tf32"]["cudnn_allow_tf32"] is (precision == "tf32")
    assert proof["tf32"]["matmul_allow_tf32"] is (precision == "tf32")
    assert (proof["gpu"]["name"], proof["cudnn_benchmark"], proof["cuda_graph"]) == ("Fake GPU", True, "no")
    assert proof["l2"].startswith("warm")
    assert proof["fallback"] == ""
    backend.close()


def test_autocast_keeps_float32_weights(gpu: FakeCuda) -> None:
    proof = loaded("bf16", bf16="autocast").proof()
    assert (proof["dtypes"], proof["autocast"]) == (["float32"], True)
    assert proof["layer_counts"] == {"Conv2d bfloat16": 1, "Linear bfloat16": 1}


def test_one_graph_is_captured_and_smaller_batches_are_filled_up_to_it(gpu: FakeCuda) -> None:
    plain, graphed = loaded(), loaded(graph="yes")
    assert gpu.log.count("capture") == 1, "for the Case's batch, when it is loaded"
    for n, seed in ((4, 1), (4, 2), (2, 3), (4, 4), (2, 5)):
        pixels = pixels_of(n, seed)
        assert np.allclose(graphed.infer(pixels), plain.infer(pixels), atol=1e-6)
    on_device = graphed.infer_on_device(DevicePixels(torch.from_numpy(pixels_of(4, 6))))
    assert np.allclose(on_device, plain.infer(pixels_of(4, 6)), atol=1e-6)
    assert gpu.log.count("capture") == 1, "none while a pipeline is at work"
    proof = graphed.proof()
    assert (proof["cuda_graph"], proof["captured_batches"], proof["fallback"]) == ("yes", [4], "")
    graphed.close()


def test_stages_are_timed_and_the_logits_the_same(gpu: FakeCuda) -> None:
    backend = loaded()
    logits, stages = backend.infer_stages(pixels_of(4))
    assert np.array_equal(logits, backend.infer(pixels_of(4)))
    assert stages.pop("enqueue") > 0
    assert stages == {"h2d": 1_000_000, "compute": 1_000_000, "d2h": 1_000_000}


def test_switches_that_somebody_turned_make_a_fallback(gpu: FakeCuda) -> None:
    backend = loaded("fp32")
    backend.infer(pixels_of(4))
    cuda.set_tf32(True)
    assert "TF32 is on by matmul_allow_tf32 and cudnn_allow_tf32" in backend.proof()["fallback"]
    state = {"matmul_allow_tf32": False, "cudnn_allow_tf32": True}
    assert pytorch_cuda.tf32_sentence("tf32", state) == "TF32 is off by matmul_allow_tf32, and tf32 was asked for"
    assert pytorch_cuda.tf32_sentence("fp16", state) == ""


def test_weights_elsewhere_make_a_fallback() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    assert other_device("cuda", {"a": parameter}) == "these weights are not on the cuda: a"
    assert other_device("cpu", {"a": parameter}) == ""


def test_what_the_gpu_or_the_device_cannot_do_is_unsupported(gpu: FakeCuda) -> None:
    with pytest.raises(Unsupported, match="not quantised"):
        loaded("int8")
    gpu.capability = (7, 5)
    with pytest.raises(Unsupported, match=r"Fake GPU has no BF16; .* 8\.0"):
        loaded("bf16")
    backend = pytorch.PyTorch()
    with pytest.raises(Unsupported, match=r"pytorch\.graph .* leave it out"):
        backend.load(Case("scarlet_c", "random", "pytorch", options=(("graph", "yes"),)), FILES)


def test_compiling_is_for_the_batch_and_smaller_ones_are_filled_up(gpu, monkeypatch):
    sizes: list[int] = []

    def compiled(module: nn.Module, **how: object) -> object:
        def call(pixels: torch.Tensor) -> torch.Tensor:
            sizes.append(len(pixels))
            result: torch.Tensor = module(pixels)
            return result

        return call

    monkeypatch.setattr(pytorch_cuda, "require_triton", lambda: None)
    monkeypatch.setattr(torch, "compile", compiled)
    backend = loaded(compile="max-autotune")
    expected = loaded().infer(pixels_of(1))
    assert np.allclose(backend.infer(pixels_of(1)), expected, atol=1e-6)
    assert set(sizes) == {4}
    assert backend.proof()["compile"] == "max-autotune"


def test_compiling_needs_triton_a_c_compiler_and_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pytorch_cuda.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="package triton"):
        pytorch_cuda.require_triton()
    monkeypatch.setattr(pytorch_cuda.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(Unavailable, match="no no-such-compiler"):
        pytorch_cuda.require_triton()
    monkeypatch.setenv("CC", "sh")
    (tmp_path / "Python.h").touch()
    folders = iter([tmp_path, tmp_path / "none"])
    monkeypatch.setattr(pytorch_cuda.sysconfig, "get_path", lambda name: str(next(folders)))
    pytorch_cuda.require_triton()
    with pytest.raises(Unavailable, match="python3-dev"):
        pytorch_cuda.require_triton()
