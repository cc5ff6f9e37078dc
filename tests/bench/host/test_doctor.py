"""Which versions of driver, CUDA and GPU packages fit together: ``bench.host.doctor``."""

import sys
import types
from pathlib import Path

import pytest

from bench import host
from bench.host.doctor import GPU_PACKAGES, Check, _written, fitting, installed

# What `make setup` installs beside a GPU.
GOOD: dict[str, str | None] = {
    "driver": "580.159.04",
    "compute_capability": "9.0",
    "torch": "2.13.0",
    "torch_cuda": "13.0",
    "onnxruntime-gpu": "1.31.1",
    "onnxruntime_cuda": "13.0",
    "nvidia-cudnn-cu13": "9.20.0.48",
    "nvidia-dali-cuda130": "2.4.0",
    "tensorrt-cu13": "10.16.1.11",
    "tensorrt-cu13-libs": "10.16.1.11",
}


def wrong(versions: dict[str, str | None]) -> list[Check]:
    return [fit for fit in fitting(versions) if fit.advice]


def test_what_the_set_up_installs_fits() -> None:
    assert wrong(GOOD) == []
    assert [fit.check for fit in fitting(GOOD)] == [
        *("driver and CUDA", "GPU and CUDA", "PyTorch on the GPU", "ONNX Runtime on the GPU"),
        *("cuDNN", "TensorRT", "DALI on the GPU"),
    ]


@pytest.mark.parametrize(
    ("change", "check", "said", "advised"),
    [
        ({"driver": "570.86.10"}, "driver and CUDA", "CUDA 13 needs driver 580", "Install driver 580"),
        (
            {"driver": "520.1", "torch_cuda": "12.8", "onnxruntime_cuda": "12.8", "nvidia-dali-cuda130": None}
            | {"tensorrt-cu13": None, "tensorrt-cu13-libs": None, "nvidia-dali-cuda120": "1.5"},
            *("driver and CUDA", "CUDA 12 needs driver 525", "for an older CUDA"),
        ),
        ({"torch": "2.13.0+cpu", "torch_cuda": None}, "PyTorch on the GPU", "is a CPU build", "make clean setup"),
        (
            {"onnxruntime": "1.31.1"},
            *("ONNX Runtime on the GPU", "overwrite", "pip uninstall -y onnxruntime onnxruntime-gpu"),
        ),
        (
            {"onnxruntime": "1.31.1", "onnxruntime-gpu": None, "onnxruntime_cuda": None},
            *("ONNX Runtime on the GPU", "on the CPU alone", "pip install onnxruntime-gpu"),
        ),
        (
            {"onnxruntime-gpu": None, "onnxruntime_cuda": None},
            *("ONNX Runtime on the GPU", "not installed", "pip install onnxruntime-gpu"),
        ),
        ({"onnxruntime_cuda": "12.8"}, *("ONNX Runtime on the GPU", "for CUDA 12.8, and PyTorch", "make clean setup")),
        ({"nvidia-cudnn-cu13": "8.9.7.29"}, "cuDNN", "needs cuDNN 9", "newer PyTorch"),
        (
            {"tensorrt-cu13": None, "tensorrt-cu13-libs": None, "tensorrt-cu12": "10.16.1"},
            *("TensorRT", "for CUDA 12, and PyTorch", "pip install tensorrt-cu13"),
        ),
        ({"nvidia-dali-cuda120": "2.4.0"}, *("DALI on the GPU", "overwrite", "pip install nvidia-dali-cuda130")),
        ({"nvidia-dali-cuda130": None}, "DALI on the GPU", "not installed", "pip install nvidia-dali-cuda130"),
        ({"compute_capability": "7.0"}, "GPU and CUDA", "capability 7.0", "PyTorch and ONNX Runtime for CUDA 12"),
    ],
)
def test_each_mismatch_has_one_line_that_mends_it(change, check, said, advised):
    (fit,) = wrong({**GOOD, **change})
    assert fit.check == check
    assert said in fit.text
    assert advised in fit.advice
    assert "\n" not in fit.advice


def test_tensorrt_11_is_no_fault_but_onnxruntimes_provider_is_told_of() -> None:
    (fit,) = [fit for fit in fitting({**GOOD, "tensorrt-cu13": "11.4.0.67"}) if fit.check == "TensorRT"]
    assert "tensorrt<11" in fit.text
    assert fit.advice == ""
    (absent,) = [
        fit for fit in fitting({**GOOD, "tensorrt-cu13": None, "tensorrt-cu13-libs": None}) if fit.check == "TensorRT"
    ]
    assert "unavailable" in absent.text


def test_unknown_versions_warn_of_nothing_that_is_there() -> None:
    assert fitting({}) == []
    assert fitting({"torch": "2.13.0"}) == [], "no driver, no GPU"
    silent = {name: (version if name in ("driver", "torch") else None) for name, version in GOOD.items()}
    silent |= {"torch_cuda": "13.0", "onnxruntime-gpu": "1.31.1", "nvidia-dali-cuda130": "2.4"}
    assert wrong(silent) == []


def test_versions_are_read_without_importing_what_they_belong_to(tmp_path, monkeypatch):
    torch = tmp_path / "madeuptorch"
    (torch / "capi").mkdir(parents=True)
    (torch / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (torch / "version.py").write_text("from typing import Optional\ncuda: Optional[str] = '13.0'\nhip = None\n")
    (torch / "capi" / "info.py").write_text("package_name = 'x'\ncuda_version = \"12.8\"\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert _written("madeuptorch", "version.py", "cuda") == "13.0"
    assert _written("madeuptorch", "version.py", "hip") is None
    assert _written("madeuptorch", "capi/info.py", "cuda_version") == "12.8"
    assert _written("madeuptorch", "none.py", "cuda") is None
    assert _written("nosuchpackage", "version.py", "cuda") is None
    monkeypatch.setitem(sys.modules, "halfremoved", types.ModuleType("halfremoved"))
    sys.modules["halfremoved"].__spec__ = None
    assert _written("halfremoved", "version.py", "cuda") is None
    assert "madeuptorch" not in sys.modules


def test_what_is_installed_here() -> None:
    import torch

    gpus = [{"compute_capability": "9.0"}, {"compute_capability": "10.0"}, {"compute_capability": None}]
    found = installed({"driver": "580.1", "gpus": gpus})
    assert found["torch_cuda"] == torch.version.cuda
    assert found["torch"] == host.package_versions(["torch"])["torch"]
    assert (found["driver"], found["compute_capability"]) == ("580.1", "9.0")
    assert installed({})["compute_capability"] is None


def test_doctor_shows_them_where_a_driver_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = {name: GOOD.get(name) for name in GPU_PACKAGES} | {"onnxruntime": "1.31.1"}
    shown = {check.check for check in host.doctor(tmp_path, packages, 0)}
    assert "driver and CUDA" not in shown
    described = {"driver": "580.1", "gpus": [{"name": "G", "compute_capability": "9.0"}], "reason": None}
    monkeypatch.setattr("bench.host.machine.describe_gpus", lambda: described)
    checks = {check.check: check for check in host.doctor(tmp_path, packages, 0)}
    assert checks["driver and CUDA"].state == "ok"
    both = checks["ONNX Runtime on the GPU"]
    assert (both.state, both.advice.startswith("pip uninstall -y")) == ("warn", True)
