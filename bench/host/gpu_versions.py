"""Which versions of the driver, CUDA and the GPU packages fit together, and the one line that mends those that do not.

``fitting`` is a function of plain texts; ``installed`` collects them without importing what they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from importlib import util
from pathlib import Path
from typing import Any, NamedTuple

from bench.host.machine import package_versions

Versions = Mapping[str, str | None]

# CUDA's major version: the oldest driver that runs all of its minor ones.
# NVIDIA, CUDA Compatibility, Minor Version Compatibility, table 1.
OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}
# Of the builds for CUDA 13, which leave out older GPUs. NVIDIA, CUDA Toolkit 13.0 Release Notes; ONNX Runtime's
# release notes (sm_75 to sm_120).
LEAST_CAPABILITY_OF_13 = (7, 5)
# What ONNX Runtime's builds for CUDA 12 and 13 load. ONNX Runtime's documentation of the CUDA execution provider.
CUDNN_OF_ORT = "9"

SETUP = "make clean setup"

PACKAGES = (
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-cu12",
    "tensorrt-cu13",
    "tensorrt-cu12-libs",
    "tensorrt-cu13-libs",
    "nvidia-cudnn-cu12",
    "nvidia-cudnn-cu13",
    "nvidia-dali-cuda120",
    "nvidia-dali-cuda130",
    "nvidia-ml-py",
)


class Fit(NamedTuple):
    """One line of ``scarlet-bench doctor``: what was looked at and found; no ``advice`` where nothing is wrong."""

    check: str
    text: str
    advice: str = ""


def installed(nvidia: Mapping[str, Any]) -> dict[str, str | None]:
    """What is here, None where it is not: ``PACKAGES`` by name, and the following.

    ``driver``; ``compute_capability`` (of the weakest GPU); ``torch_cuda`` and ``onnxruntime_cuda``, the CUDA
    versions that these were built for.

    Args:
        nvidia: as of ``gpu_state.describe_gpus``.
    """
    capabilities = [gpu.get("compute_capability") for gpu in nvidia.get("gpus") or ()]
    return {
        **package_versions(PACKAGES),
        "driver": nvidia.get("driver"),
        "compute_capability": min((c for c in capabilities if c), key=_numbers, default=None),
        "torch_cuda": _written("torch", "version.py", "cuda"),
        "onnxruntime_cuda": _written("onnxruntime", "capi/build_and_package_info.py", "cuda_version"),
    }


def _written(package: str, file: str, name: str) -> str | None:
    """The text that a package's file assigns to a name; the package itself, slow to import, stays untouched."""
    try:
        spec = util.find_spec(package)
    except (ImportError, ValueError):  # a half-removed package
        return None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / file
        if path.is_file():
            found = re.search(
                rf"^{name}\b[^=\n]*=\s*['\"]([^'\"]+)['\"]", path.read_text(encoding="utf-8"), re.MULTILINE
            )
            return found.group(1) if found else None
    return None


def fitting(versions: Versions) -> list[Fit]:
    """What fits together and what does not, in the order in which it is to be mended.

    Args:
        versions: as of ``installed``; what is left out counts as absent.

    Returns:
        nothing on a machine without a driver.
    """
    if not versions.get("driver"):
        return []
    return [fit for judge in JUDGES for fit in judge(versions)]


# --- one judgement each -------------------------------------------------------------------------------------


def _driver(versions: Versions) -> Iterator[Fit]:
    """The driver against the newest CUDA that a package was built for."""
    driver = str(versions["driver"])
    wanted = {
        name: major
        for name, version in (
            ("PyTorch", versions.get("torch_cuda")),
            ("ONNX Runtime", versions.get("onnxruntime_cuda")),
            ("TensorRT", _tensorrt_cuda(versions)),
            ("DALI", _dali_cuda(versions)),
        )
        if (major := _major(version)) in OLDEST_DRIVER
    }
    text = f"driver {driver}; built for CUDA: {_listed(wanted) or 'nothing'}"
    too_new = [major for major in wanted.values() if _numbers(driver) < (OLDEST_DRIVER[major],)]
    if not too_new:
        yield Fit("driver and CUDA", text)
        return
    major = max(too_new, key=int)
    who = " and ".join(name for name, of in wanted.items() if of == major)
    yield Fit(
        "driver and CUDA",
        f"{text}: CUDA {major} needs driver {OLDEST_DRIVER[major]} or newer",
        f"Install driver {OLDEST_DRIVER[major]} or newer, or builds of {who} for an older CUDA.",
    )


def _torch(versions: Versions) -> Iterator[Fit]:
    torch, cuda = versions.get("torch"), versions.get("torch_cuda")
    if torch is None:
        return  # doctor says so elsewhere
    if cuda is None:
        yield Fit(
            "PyTorch on the GPU",
            f"torch {torch} is a CPU build, and here is a GPU",
            f"Install the CUDA build: {SETUP}.",
        )
    else:
        yield Fit("PyTorch on the GPU", f"torch {torch} for CUDA {cuda}")


def _onnxruntime(versions: Versions) -> Iterator[Fit]:
    cpu, gpu = versions.get("onnxruntime"), versions.get("onnxruntime-gpu")
    check = "ONNX Runtime on the GPU"
    if cpu and gpu:
        yield Fit(
            check,
            f"onnxruntime {cpu} and onnxruntime-gpu {gpu} overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        )
        return
    if cpu:
        yield Fit(
            check,
            f"onnxruntime {cpu} computes on the CPU alone",
            "pip uninstall -y onnxruntime && pip install onnxruntime-gpu",
        )
        return
    if not gpu:
        yield Fit(check, "onnxruntime-gpu is not installed", "pip install onnxruntime-gpu")
        return
    cuda, of_torch = versions.get("onnxruntime_cuda"), versions.get("torch_cuda")
    text = f"onnxruntime-gpu {gpu} for CUDA {cuda or '?'}"
    if cuda and of_torch and _major(cuda) != _major(of_torch):
        yield Fit(
            check,
            f"{text}, and PyTorch, whose CUDA libraries it uses, for CUDA {of_torch}",
            f"Take both for one CUDA: {SETUP}.",
        )
    else:
        yield Fit(check, text)


def _cudnn(versions: Versions) -> Iterator[Fit]:
    """PyTorch brings cuDNN along; ONNX Runtime loads that."""
    names = ("nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
    found = {name: version for name in names if (version := versions.get(name))}
    if not found:
        return
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    # Packages number cuDNN 9.20 as 9.20.0.48.
    wrong = [version for version in found.values() if _major(version) != CUDNN_OF_ORT]
    if wrong and versions.get("onnxruntime-gpu"):
        yield Fit(
            "cuDNN", f"{text}; ONNX Runtime needs cuDNN {CUDNN_OF_ORT}", f"Take a newer PyTorch: {SETUP}."
        )
    else:
        yield Fit("cuDNN", text)


def _tensorrt(versions: Versions) -> Iterator[Fit]:
    version = _tensorrt_version(versions)
    if version is None:
        yield Fit("TensorRT", "not installed: its rows will be unavailable")
        return
    cuda, of_torch = _tensorrt_cuda(versions), versions.get("torch_cuda")
    text = f"TensorRT {version}" + (f" for CUDA {cuda}" if cuda else "")
    if cuda and of_torch and _major(of_torch) != cuda:
        yield Fit(
            "TensorRT",
            f"{text}, and PyTorch, which shares its memory with it, for CUDA {of_torch}",
            f"pip uninstall -y tensorrt-cu{cuda} && pip install tensorrt-cu{_major(of_torch)}",
        )
        return
    if versions.get("onnxruntime-gpu") and _major(version) not in (None, "10"):
        # Not a fault here: TensorRT rows call TensorRT itself.
        text += (
            "; ONNX Runtime's provider for it, which is not used here, would need `pip install 'tensorrt<11'`"
        )
    yield Fit("TensorRT", text)


def _dali(versions: Versions) -> Iterator[Fit]:
    names = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
    found = {name: version for name in names if (version := versions.get(name))}
    text = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        yield Fit(
            "DALI on the GPU",
            f"{text} overwrite each other's files",
            f"pip uninstall -y {' '.join(found)} && pip install {names[0]}",
        )
    elif found:
        yield Fit("DALI on the GPU", text)
    else:
        yield Fit("DALI on the GPU", "not installed: no decoding on the GPU", f"pip install {names[0]}")


def _capability(versions: Versions) -> Iterator[Fit]:
    capability = versions.get("compute_capability")
    if not capability:
        return
    of_13 = [
        name
        for name, key in (("PyTorch", "torch_cuda"), ("ONNX Runtime", "onnxruntime_cuda"))
        if _major(versions.get(key)) == "13"
    ]
    text = f"compute capability {capability}"
    if of_13 and _numbers(capability) < LEAST_CAPABILITY_OF_13:
        yield Fit(
            "GPU and CUDA",
            f"{text}; builds for CUDA 13 need 7.5",
            f"Install builds of {' and '.join(of_13)} for CUDA 12.",
        )
    else:
        yield Fit("GPU and CUDA", text)


JUDGES: tuple[Callable[[Versions], Iterator[Fit]], ...] = (
    _driver,
    _capability,
    _torch,
    _onnxruntime,
    _cudnn,
    _tensorrt,
    _dali,
)


# --- reading versions ---------------------------------------------------------------------------------------


def _tensorrt_version(versions: Versions) -> str | None:
    """Its version as of whichever package is there: the plain one only leads to the others."""
    names = ("tensorrt-cu13", "tensorrt-cu12", "tensorrt")
    return next((version for name in names if (version := versions.get(name))), None)


def _tensorrt_cuda(versions: Versions) -> str | None:
    for cuda in ("13", "12"):
        if versions.get(f"tensorrt-cu{cuda}") or versions.get(f"tensorrt-cu{cuda}-libs"):
            return cuda
    return None


def _dali_cuda(versions: Versions) -> str | None:
    for name, cuda in (("nvidia-dali-cuda130", "13"), ("nvidia-dali-cuda120", "12")):
        if versions.get(name):
            return cuda
    return None


def _listed(wanted: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {major}" for name, major in wanted.items())


def _numbers(version: str) -> tuple[int, ...]:
    """580.159.03 as (580, 159, 3)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _major(version: str | None) -> str | None:
    numbers = _numbers(version or "")
    return str(numbers[0]) if numbers else None
