"""What driver, nvJPEG and torch are asked before a GPU is chosen, with libraries in C that play machines."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import pipelines
from bench.host import gpu_state
from pipelines.base import PipelineUnavailable, PipelineUnsupported
from pipelines.dali import pipeline as dali_gpu
from scarlet import gpu

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")

CUDA = """
int cuInit(unsigned flags) { return INIT; }
int cuDeviceGet(int *device, int n) { *device = 7; return n < DEVICES ? 0 : 101; }
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuDeviceGetAttribute(int *value, int which, int device) {
  *value = which == 75 ? CAPABILITY / 10 : which == 76 ? CAPABILITY % 10 : -1; return device == 7 ? 0 : 101;
}
int cuDeviceGetUuid(unsigned char *uuid, int device) { for (int i = 0; i < 16; i++) uuid[i] = 1; return 0; }
#ifdef SLICED
int cuDeviceGetUuid_v2(unsigned char *uuid, int device) { for (int i = 0; i < 16; i++) uuid[i] = 2; return 0; }
#endif
"""
NVJPEG = """
int nvjpegCreateEx(int backend, void *device, void *pinned, unsigned flags, void **handle) {
  *handle = (void *)9; return backend == 3 ? CREATE : 6;
}
int nvjpegGetHardwareDecoderInfo(void *handle, unsigned *engines, unsigned *cores) {
  *engines = ENGINES; *cores = 1; return handle == (void *)9 ? 0 : 6;
}
int nvjpegDestroy(void *handle) { return 0; }
"""

Build = Callable[..., str]


@pytest.fixture
def built(tmp_path: Path) -> Build:
    def build(source: str, **values: int) -> str:
        library = tmp_path / "library.so"
        macros = [f"-D{name}={value}" for name, value in values.items()]
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-xc", "-", *macros, "-o", library], input=source.encode(), check=True
        )
        return str(library)

    return build


# Driver branches 550, 570, 580 and 595 say these versions of CUDA of themselves.
@pytest.mark.parametrize(
    ("version", "capability", "torch_for", "usable"),
    [
        (12040, 90, "13.0", False),
        (12080, 90, "13.0", False),
        (12080, 90, "12.8", True),
        (13000, 90, "13.0", True),
        (13020, 120, "13.0", True),
        (13020, 75, "12.6", True),
        (13000, 70, "13.0", False),  # V100: builds for CUDA 13 have no kernels for it
        (12080, 70, "12.6", True),
        (13000, 90, None, False),
    ],
)
def test_a_gpu_is_chosen_where_driver_and_card_fit_the_build(version, capability, torch_for, usable, built, tmp_path):
    driver = built(CUDA, INIT=0, DEVICES=1, VERSION=version, CAPABILITY=capability)
    file = tmp_path / "version.py"
    file.write_text(f"cuda: Optional[str] = {torch_for!r}\n")
    assert gpu.usable_gpu_is_there(driver, file) is usable
    name = pipelines.default_name(["cpu", "cuda"], gpu_is_there=lambda: gpu.usable_gpu_is_there(driver, file))
    assert (name == "dali_gpu") is usable, "rows of the CPU do not fall with the GPU's driver"


@pytest.mark.parametrize(("init", "devices"), [(100, 1), (0, 0)])
def test_a_driver_without_a_device_is_no_gpu(init, devices, built):
    assert gpu.ask_driver(built(CUDA, INIT=init, DEVICES=devices, VERSION=13000, CAPABILITY=90)) is None
    assert gpu.ask_driver("no-such-library.so.1") is None


@pytest.mark.parametrize("sliced", [False, True])
def test_the_management_library_is_asked_for_the_very_gpu_that_cuda_uses(sliced, built, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-02" if sliced else "GPU-01")  # abbreviated
    driver = built(CUDA, INIT=0, DEVICES=1, VERSION=13000, CAPABILITY=90, **({"SLICED": 1} if sliced else {}))
    digits = "02020202-0202-0202-0202-020202020202" if sliced else "01010101-0101-0101-0101-010101010101"
    assert gpu_state.used_gpu(driver) == f"{'MIG' if sliced else 'GPU'}-{digits}"


@pytest.mark.parametrize(
    ("create", "engines", "found", "refusal"),
    [
        (0, 8, 8, None),
        (0, 0, 0, PipelineUnsupported),
        (7, 8, 0, PipelineUnsupported),
        (1, 8, None, PipelineUnavailable),
    ],
)
def test_an_engine_row_needs_an_engine(create, engines, found, refusal, built, monkeypatch):
    library = built(NVJPEG, CREATE=create, ENGINES=engines)
    assert gpu.jpeg_engines(library) == found
    monkeypatch.setattr(dali_gpu, "jpeg_engines", lambda: gpu.jpeg_engines(library))
    if refusal is None:
        dali_gpu.refuse_without_engine()
    else:
        with pytest.raises(refusal, match="JPEG engine"):
            dali_gpu.refuse_without_engine()


def test_which_build_of_torch_is_installed(tmp_path):
    assert gpu.torch_cuda(tmp_path / "absent.py") == ""
    version = tmp_path / "version.py"
    for text, expected in (
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", ""),
        ("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\n", "13.0"),
        ("cuda = '12.8'\n", "12.8"),
    ):
        version.write_text(text)
        assert gpu.torch_cuda(version) == expected
    assert gpu.torch_cuda() == (torch.version.cuda or "")


def test_torch_s_own_reason_is_told(monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    reasons = iter([RuntimeError("The NVIDIA driver on your system is too old (found version 12040)."), None])

    def init() -> None:
        if (reason := next(reasons)) is not None:
            raise reason

    for name, call in {
        "init": init,
        "get_device_capability": lambda: (7, 0),
        "get_device_name": lambda: "Tesla V100",
        "get_arch_list": lambda: ["sm_75", "sm_90", "sm_120", "compute_120"],
    }.items():
        monkeypatch.setattr(torch.cuda, name, call)
    assert "no CUDA device (The NVIDIA driver on your system is too old" in gpu.why_torch_cannot()
    assert "Tesla V100 has compute capability 7.0, and this PyTorch" in gpu.why_torch_cannot()
