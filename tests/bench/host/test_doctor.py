"""Whether driver, GPU and packages fit together: ``bench.host.doctor``."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import host
from bench.host.doctor import built_for, cuda_check

# What `make setup` installs beside a GPU.
GOOD = {"PyTorch": "13.0", "ONNX Runtime": "13.0", "DALI": "13", "TensorRT": "13"}


def nvidia(driver: str = "580.159.04", *capabilities: str | None) -> dict[str, object]:
    gpus = [{"name": "G", "compute_capability": one} for one in capabilities or ("9.0",)]
    return {"driver": driver, "gpus": gpus, "reason": None}


@pytest.mark.parametrize(
    "cudas", [GOOD, {**GOOD, "TensorRT": ""}, {"PyTorch": "12.8", "ONNX Runtime": "12.8", "DALI": "12", "TensorRT": ""}]
)
def test_what_the_set_up_installs_fits(cudas):
    for gpu in (nvidia(), nvidia("580", "10.0", None), nvidia("580", None)):
        assert cuda_check(gpu, cudas).state == "ok"


@pytest.mark.parametrize(
    ("gpu", "change", "said", "advised"),
    [
        (nvidia("570.86.10"), {}, "driver 570", "CUDA 13 needs driver 580"),
        (nvidia("520.1"), dict.fromkeys(GOOD, "12.8"), "driver 520", "CUDA 12 needs driver 525"),
        (nvidia("580", "9.0", "7.0"), {}, "capability 7.0", "capability 7.5 or newer"),
        (nvidia(), {"PyTorch": ""}, "PyTorch not at all", "make clean setup"),
        (nvidia(), {"ONNX Runtime": ""}, "ONNX Runtime not at all", "make clean setup"),
        (nvidia(), {"ONNX Runtime": "12.8"}, "ONNX Runtime 12.8", "one CUDA"),
        (nvidia(), {"TensorRT": "12"}, "TensorRT 12", "one CUDA"),
        (nvidia(), {"DALI": "12, 13"}, "DALI 12, 13", "one CUDA"),
        (nvidia(), {"DALI": ""}, "DALI not at all", "make clean setup"),
    ],
)
def test_each_mismatch_has_one_line_that_mends_it(gpu, change, said, advised):
    check = cuda_check(gpu, {**GOOD, **change})
    assert check.state == "warn"
    assert said in check.text
    assert advised in check.advice
    assert "\n" not in check.advice


def test_what_is_built_for_which_cuda_is_read_without_imports(tmp_path, monkeypatch):
    import torch

    package = tmp_path / "onnxruntime"
    (package / "capi").mkdir(parents=True)
    (package / "capi/build_and_package_info.py").write_text("package_name = 'x'\ncuda_version = \"12.8\"\n")
    spec = SimpleNamespace(submodule_search_locations=[str(package)])
    module = sys.modules["bench.host.doctor"]  # and not the function of that name
    monkeypatch.setattr(module, "util", SimpleNamespace(find_spec=lambda name: spec))
    found = built_for({"nvidia-dali-cuda120": "2.4", "nvidia-dali-cuda130": "2.4", "tensorrt-cu12": "10.1"})
    assert found["PyTorch"] == (torch.version.cuda or "")
    assert found["ONNX Runtime"] == "12.8"
    assert (found["DALI"], found["TensorRT"]) == ("12, 13", "12")
    monkeypatch.setattr(module, "util", SimpleNamespace(find_spec=lambda name: None))
    assert built_for({})["ONNX Runtime"] == ""


def test_doctor_shows_it_where_a_driver_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "driver and CUDA" not in {check.check for check in host.doctor(tmp_path, {}, 0)}
    monkeypatch.setattr("bench.host.machine.describe_gpus", lambda: nvidia("580.1"))
    checks = {check.check: check for check in host.doctor(tmp_path, {"onnxruntime": "1", "onnxruntime-gpu": "1"}, 0)}
    assert "driver 580.1, compute capability 9.0" in checks["driver and CUDA"].text
    assert checks["two onnxruntimes"].state == "warn"
