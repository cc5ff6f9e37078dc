"""The forms, types and compilation of the PyTorch backend, on a network of a few layers."""

import dataclasses
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from bench.backends import check_options
from bench.backends.base import ModelFiles, Unavailable, Unsupported
from bench.backends.pytorch import backend as pytorch
from bench.record.case import Case
from scarlet.errors import BenchError

FILES = ModelFiles("scarlet_c", "random", "0", "", "0", state="none", input_size=16)


@pytest.fixture(autouse=True)
def network(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """Every backend of this file loads this network."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(1568, 10))
    module[1].running_mean = torch.rand(8)
    module.eval()
    monkeypatch.setattr(ModelFiles, "network", lambda files: module)
    return module


@pytest.fixture
def pixels() -> NDArray[np.float32]:
    return np.random.default_rng(0).random((4, 3, 16, 16), dtype=np.float32)


def case_of(precision: str = "fp32", **options: str) -> Case:
    return Case("scarlet_c", "random", "pytorch", precision=precision, batch=4, options=tuple(options.items()))


def loaded(case: Case) -> pytorch.PyTorch:
    backend = pytorch.PyTorch()
    backend.load(case, FILES)
    return backend


@pytest.mark.parametrize(
    ("form", "folded", "layout"),
    [
        ("plain", 0, "contiguous_format"),
        ("channels_last", 0, "channels_last"),
        ("folded", 1, "contiguous_format"),
        ("tuned", 1, "channels_last"),
    ],
)
def test_each_form_is_what_it_says_and_gives_the_same_logits(form, folded, layout, network, pixels):
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels)).numpy().copy()
    backend = loaded(case_of(form=form))
    assert np.allclose(backend.infer(pixels), expected, atol=1e-5)
    proof = backend.proof()
    assert (proof["form"], proof["batchnorms_folded"], proof["layout"]) == (form, folded, layout)
    assert proof["layer_counts"] == {"Conv2d float32": 1, "Linear float32": 1}
    assert proof["fallback"] == ""
    assert "compile" not in proof
    backend.close()


@pytest.mark.parametrize(("way", "dtypes"), [("cast", ["bfloat16"]), ("autocast", ["float32"])])
def test_bf16_is_proved_layer_by_layer(way: str, dtypes: list[str], pixels: NDArray[np.float32]) -> None:
    exact = loaded(case_of()).infer(pixels)
    backend = loaded(case_of("bf16", bf16=way))
    logits, proof = backend.infer(pixels), backend.proof()
    assert logits.dtype == np.float32
    assert 0 < np.abs(logits - exact).max() < 0.1 * exact.std()
    assert (proof["dtypes"], proof["autocast"]) == (dtypes, way == "autocast")
    assert proof["layer_counts"] == {"Conv2d bfloat16": 1, "Linear bfloat16": 1}
    assert proof["fallback"] == ""


def test_a_layer_that_keeps_another_type_makes_a_fallback_that_names_it(pixels: NDArray[np.float32]) -> None:
    class Stubborn(nn.Linear):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return super().forward(given).float()

    backend = loaded(case_of("bf16"))
    assert isinstance(backend._module, nn.Sequential)
    stubborn = Stubborn(1568, 10).to(torch.bfloat16)
    backend._module[4] = stubborn
    backend.infer(pixels)
    assert backend.proof()["fallback"] == "these layers gave another type than bfloat16: 4 (float32)"


@pytest.mark.parametrize("precision", ["fp16", "int8", "tf32"])
def test_other_precisions_are_refused_with_a_reason(precision: str) -> None:
    with pytest.raises(Unsupported) as refusal:
        loaded(case_of(precision))
    assert len(str(refusal.value)) > 20


def test_compiling_without_a_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match=r"no no-such-compiler; install g\+\+"):
        loaded(case_of(compile="default"))


@pytest.mark.slow
def test_compiled_logits_are_those_of_eager_and_the_time_to_compile_is_told_apart(pixels, monkeypatch):
    try:
        pytorch.require_compiler()
    except Unavailable as missing:
        pytest.skip(str(missing))
    # From an empty cache a C++ compiler works for half a minute; this test is not about that.
    monkeypatch.setattr(pytorch, "_empty_cache", nullcontext)
    expected = loaded(case_of()).infer(pixels)
    backend = loaded(case_of(compile="default"))
    assert np.allclose(backend.infer(pixels), expected, atol=1e-5)
    assert np.allclose(backend.infer(pixels[:1]), expected[:1], atol=1e-5)
    proof = backend.proof()
    assert (proof["compile"], proof["compiled_graphs"], proof["graph_breaks"]) == ("default", 1, 0)
    assert proof["compile_seconds"] > 0
    assert proof["graphs_compiled_later"] == 0, "a smaller batch is filled up, not compiled for"
    assert proof["fallback"] == ""
    torch._dynamo.reset()


def test_compiling_begins_with_an_empty_cache_and_leaves_the_users_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "TORCHINDUCTOR_CACHE_DIR"
    for before in ("/nowhere/as/before", None):
        monkeypatch.setenv(name, before) if before else monkeypatch.delenv(name, raising=False)
        with pytorch._empty_cache():
            folder = Path(os.environ[name])
            assert list(folder.iterdir()) == []
            (folder / "kernel.so").touch()
        assert not folder.exists()
        assert os.environ.get(name) == before


def test_a_compiler_that_found_nothing_to_compile_is_a_fallback(pixels, monkeypatch):
    monkeypatch.setattr(pytorch, "require_compiler", lambda: None)
    monkeypatch.setattr(torch, "compile", lambda module, **_: module)
    backend = loaded(case_of(compile="default"))
    backend.infer(pixels)
    assert backend.proof()["fallback"] == "torch.compile found nothing to compile"


@pytest.mark.parametrize(
    ("backend", "options", "what", "do"),
    [
        ("pytorch", {"from": "plain"}, "no option 'from'", "pytorch.form"),
        ("pytorch", {"form": "fast"}, "pytorch.form is 'fast'", "plain"),
        ("onnxruntime", {"optimization": "some"}, "is 'some'", "all or none"),
        ("openvino", {"streams": "two"}, "is 'two'", "whole number"),
        ("fake", {"latencyns": "5"}, "no option 'latencyns'", "fake.latency_ns"),
        ("nobody", {}, "unknown backend", ""),
    ],
)
def test_a_wrong_option_is_refused_before_a_run_with_what_to_write(backend, options, what, do):
    with pytest.raises(BenchError) as refusal:
        check_options(backend, options)
    assert what in refusal.value.what
    assert do in refusal.value.do


def test_right_options_pass_and_need_no_runtime() -> None:
    check = (
        "import sys\n"
        "from bench.backends import check_options\n"
        "check_options('pytorch', {'form': 'plain', 'compile': 'default', 'bf16': 'autocast'})\n"
        "check_options('onnxruntime', {'optimization': 'none'})\n"
        "check_options('openvino', {'hint': 'throughput', 'streams': '2'})\n"
        "check_options('fake', {'latency_ns': '5', 'fault_once': 'a file'})\n"
        "slow = {'torch', 'onnxruntime', 'openvino'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=120)


def test_a_misspelt_option_never_passes_in_silence() -> None:
    with pytest.raises(Unsupported, match=r"no option 'from'; did you mean pytorch\.form\?"):
        loaded(dataclasses.replace(case_of(), options=(("from", "plain"),)))
