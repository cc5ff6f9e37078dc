"""What NVIDIA's libraries say of the GPU that CUDA calls its first, asked by ctypes: no framework is imported."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from scarlet.errors import error_text

DRIVER = "libcuda.so.1"

# CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of the CUDA Driver API.
_MAJOR, _MINOR = 75, 76

# The least compute capability that builds for a CUDA have kernels for: 13 left out Volta and what is older.
LEAST_CAPABILITY = {"13": (7, 5), "12": (5, 0)}

# NVJPEG_BACKEND_HARDWARE of nvjpegBackend_t, and NVJPEG_STATUS_ARCH_MISMATCH: there is no engine.
_HARDWARE, _ARCH_MISMATCH = 3, 7


class Driver(NamedTuple):
    """What the driver says.

    Attributes:
        cuda: the newest CUDA whose programs it runs, as major and minor.
        capability: of the first device.
        uuid: of the first device, or of the slice of one; no prefix. Empty where an old driver does not tell.
    """

    cuda: tuple[int, int]
    capability: tuple[int, int]
    uuid: str


def ask_driver(library: str = DRIVER) -> Driver | None:
    """The driver's answers; None where there is no driver or no device, however many libraries and tools there are."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return None
    device = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGet(ctypes.byref(device), 0):
        return None

    def number(function: Any, *where: Any) -> int:
        answer = ctypes.c_int()
        return 0 if function(ctypes.byref(answer), *where) else answer.value

    version = number(cuda.cuDriverGetVersion)
    capability = number(cuda.cuDeviceGetAttribute, _MAJOR, device), number(cuda.cuDeviceGetAttribute, _MINOR, device)
    uuid = (ctypes.c_ubyte * 16)()
    # The second version gives the slice's own, where a device is sliced.
    ask_uuid = getattr(cuda, "cuDeviceGetUuid_v2", None) or cuda.cuDeviceGetUuid
    told = ask_uuid(uuid, device) == 0
    return Driver((version // 1000, version % 1000 // 10), capability, str(UUID(bytes=bytes(uuid))) if told else "")


def torch_cuda(version_file: Path | None = None) -> str:
    """The CUDA that PyTorch is built for, by the file that says so in every build: ``version.py`` of the installed one
    where no other is given. Empty for a CPU build or none.
    """
    if version_file is None:
        found = importlib.util.find_spec("torch")
        if found is None or found.origin is None:
            return ""
        version_file = Path(found.origin).with_name("version.py")
    try:
        text = version_file.read_text(encoding="utf-8")
    except OSError:
        return ""
    stated = re.search(r"^cuda\b[^=\n]*= *['\"]([\d.]+)", text, re.MULTILINE)
    return stated[1] if stated else ""


def usable_gpu_is_there(driver: str = DRIVER, version_file: Path | None = None) -> bool:
    """Whether the driver finds a GPU, and runs on it what the installed PyTorch is built for."""
    built_for, told = torch_cuda(version_file), ask_driver(driver)
    if not built_for or told is None:
        return False
    major = built_for.partition(".")[0]
    return told.cuda[0] >= int(major) and told.capability >= LEAST_CAPABILITY.get(major, (0, 0))


def why_torch_cannot() -> str:
    """Why this process's PyTorch cannot compute on a GPU, and what to do; empty where it can."""
    import torch

    if torch.version.cuda is None:
        return (
            f"this PyTorch ({torch.__version__}) is a CPU build; on a machine with an NVIDIA GPU run "
            "`make clean setup`, which installs the CUDA build"
        )
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        capability = torch.cuda.get_device_capability()
    except (RuntimeError, AssertionError) as error:
        doctor = "`scarlet-bench doctor` tells whether a driver is there, and whether it fits"
        return f"PyTorch sees no CUDA device ({error_text(error)}); {doctor}"
    built_for = [int(found[1]) for name in torch.cuda.get_arch_list() if (found := re.match(r"sm_(\d+)", name))]
    if built_for and 10 * capability[0] + capability[1] < min(built_for):
        return (
            f"{torch.cuda.get_device_name()} has compute capability {capability[0]}.{capability[1]}, and this PyTorch "
            f"({torch.__version__}) has kernels from {min(built_for) / 10:g} on; install a build for an older CUDA"
        )
    return ""


def jpeg_engines(library: str = "") -> int | None:
    """How many cores for JPEG the GPU's engines have together, by nvJPEG's library or that of the installed packages: 0
    without an engine; None where nvJPEG cannot be asked.
    """
    found = importlib.util.find_spec("nvidia")
    places = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    installed = sorted(str(path) for place in places for path in place.glob("*/lib/libnvjpeg.so.*"))
    for name in [library] if library else installed:
        try:
            nvjpeg = ctypes.CDLL(name)
        except OSError:
            continue
        handle, engines, cores = ctypes.c_void_p(), ctypes.c_uint(), ctypes.c_uint()
        status = nvjpeg.nvjpegCreateEx(_HARDWARE, None, None, 0, ctypes.byref(handle))
        if status == 0:
            status = nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
            nvjpeg.nvjpegDestroy(handle)
        if status in (0, _ARCH_MISMATCH):
            return engines.value * cores.value
    return None
