"""What ``scarlet-bench doctor`` says of a machine: what is there, what fits together, and what may disturb.

Of the driver, CUDA and the GPU packages it says which versions do not fit together, and the one line that mends those.
``fitting`` is a function of plain texts; ``installed`` collects them without importing what they belong to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from bench.host.counters import ROOT
from bench.host.judgements import UNKNOWN, Facts, Finding, findings
from bench.host.machine import WATCH_SECONDS, describe_host, package_versions

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

GPU_PACKAGES = (
    *("torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-cu12-libs"),
    *("tensorrt-cu13-libs", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "nvidia-dali-cuda120", "nvidia-dali-cuda130"),
    "nvidia-ml-py",
)  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One line of ``scarlet-bench doctor``. ``state`` is ``ok``, ``warn`` or ``bad``."""

    check: str
    state: str
    text: str
    advice: str = ""


def warned(check: str, text: str, advice: str = "") -> Check:
    """A line that warns where there is advice."""
    return Check(check, "warn" if advice else "ok", text, advice)


def doctor(
    root: Path = ROOT, packages: Mapping[str, str | None] | None = None, watch_seconds: float = WATCH_SECONDS
) -> list[Check]:
    """Everything worth knowing before a measurement, good or not, for the command line."""
    host = describe_host(root, watch_seconds)
    facts = Facts(host, package_versions() if packages is None else packages, ("cpu",), None)
    checks = [
        Check("python", "ok", f"{host['python']} on {host['os'] or UNKNOWN}, kernel {host['kernel'] or UNKNOWN}"),
        Check("processor", "ok", f"{host['cpu_model'] or UNKNOWN}; {' '.join(host['cpu_flags'] or ()) or UNKNOWN}"),
        Check("container", "ok", host["container"] or "no sign of one"),
        _gpu_check(host["nvidia"]),
        *_package_checks(facts.packages),
        *fitting({**installed(host["nvidia"]), **facts.packages}),
    ]
    judged = (warned(kind.value.replace("_", " "), *finding) for kind, finding in findings(facts))
    return [*checks, *judged]


def _gpu_check(nvidia: Mapping[str, Any]) -> Check:
    if nvidia["reason"]:
        return Check("NVIDIA GPU", "ok", f"none: {nvidia['reason']}")
    names = ", ".join(gpu["name"] or UNKNOWN for gpu in nvidia["gpus"])
    return Check("NVIDIA GPU", "ok", f"{names}; driver {nvidia['driver']}")


def _package_checks(packages: Mapping[str, str | None]) -> list[Check]:
    """PyTorch is a must; a runtime and a fast pipeline are worth having."""
    packages_by_use = (
        ("PyTorch", "bad", ("torch",), "pip install torch"),
        ("ONNX Runtime", "warn", ("onnxruntime", "onnxruntime-gpu"), "pip install onnxruntime"),
        ("OpenVINO", "warn", ("openvino",), "pip install openvino"),
        ("NNCF, for INT8 on OpenVINO", "warn", ("nncf",), "pip install nncf"),
        ("simplejpeg, for the pipeline turbo", "warn", ("simplejpeg",), "pip install simplejpeg"),
        ("timm, for its models", "warn", ("timm",), "pip install timm"),
        ("DALI", "warn", ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "pip install nvidia-dali-cuda130"),
    )
    checks = []
    packages = {**package_versions([name for _, _, names, _ in packages_by_use for name in names]), **packages}
    for title, missing, names, advice in packages_by_use:
        versions = [f"{name} {packages[name]}" for name in names if packages.get(name)]
        checks.append(
            Check(title, "ok", ", ".join(versions)) if versions else Check(title, missing, "not installed", advice)
        )
    return checks


def installed(nvidia: Mapping[str, Any]) -> dict[str, str | None]:
    """What is here, None where it is not: ``GPU_PACKAGES`` by name, and the following.

    ``driver``; ``compute_capability`` (of the weakest GPU); ``torch_cuda`` and ``onnxruntime_cuda``, the CUDA
    versions that these were built for.
    """
    capabilities = [gpu.get("compute_capability") for gpu in nvidia.get("gpus") or ()]
    return {
        **package_versions(GPU_PACKAGES),
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


def fitting(versions: Versions) -> list[Check]:
    """What fits together and what does not, in the order in which it is to be mended.

    Returns:
        nothing on a machine without a driver.
    """
    if not versions.get("driver"):
        return []
    found = {check: judge(versions) for check, judge in VERSION_JUDGES.items()}
    return [warned(check, *finding) for check, finding in found.items() if finding]


def _driver(versions: Versions) -> Finding:
    """The driver against the newest CUDA that a package was built for."""
    driver = str(versions["driver"])
    built_for = {
        name: major
        for name, version in (
            ("PyTorch", versions.get("torch_cuda")),
            ("ONNX Runtime", versions.get("onnxruntime_cuda")),
            ("TensorRT", _tensorrt_cuda(versions)),
            ("DALI", next((cuda for cuda in ("13", "12") if versions.get(f"nvidia-dali-cuda{cuda}0")), None)),
        )
        if (major := _major(version)) in OLDEST_DRIVER
    }
    text = f"driver {driver}; built for CUDA: {_listed(built_for) or 'nothing'}"
    too_new = [major for major in built_for.values() if _numbers(driver) < (OLDEST_DRIVER[major],)]
    if not too_new:
        return Finding(text)
    major = max(too_new, key=int)
    who = " and ".join(name for name, of in built_for.items() if of == major)
    how = ": make clean setup EXTRAS=gpu12" if major == "13" else ""
    return Finding(
        f"{text}: CUDA {major} needs driver {OLDEST_DRIVER[major]} or newer",
        f"Install driver {OLDEST_DRIVER[major]} or newer, or builds of {who} for an older CUDA{how}.",
    )


def _capability(versions: Versions) -> Finding | None:
    capability = versions.get("compute_capability")
    if not capability:
        return None
    built_for = {"PyTorch": versions.get("torch_cuda"), "ONNX Runtime": versions.get("onnxruntime_cuda")}
    of_13 = [name for name, cuda in built_for.items() if _major(cuda) == "13"]
    text = f"compute capability {capability}"
    if of_13 and _numbers(capability) < LEAST_CAPABILITY_OF_13:
        advice = f"Install builds of {' and '.join(of_13)} for CUDA 12."
        return Finding(f"{text}; builds for CUDA 13 need 7.5", advice)
    return Finding(text)


def _torch(versions: Versions) -> Finding | None:
    torch, cuda = versions.get("torch"), versions.get("torch_cuda")
    if torch is None:
        return None  # doctor says so elsewhere
    if cuda is None:
        return Finding(f"torch {torch} is a CPU build, and here is a GPU", f"Install the CUDA build: {SETUP}.")
    return Finding(f"torch {torch} for CUDA {cuda}")


def _onnxruntime(versions: Versions) -> Finding:
    cpu, gpu = versions.get("onnxruntime"), versions.get("onnxruntime-gpu")
    if cpu and gpu:
        return Finding(
            f"onnxruntime {cpu} and onnxruntime-gpu {gpu} overwrite each other's files",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        )
    if cpu:
        advice = "pip uninstall -y onnxruntime && pip install onnxruntime-gpu"
        return Finding(f"onnxruntime {cpu} computes on the CPU alone", advice)
    if not gpu:
        return Finding("onnxruntime-gpu is not installed", "pip install onnxruntime-gpu")
    cuda, of_torch = versions.get("onnxruntime_cuda"), versions.get("torch_cuda")
    text = f"onnxruntime-gpu {gpu} for CUDA {cuda or '?'}"
    if cuda and of_torch and _major(cuda) != _major(of_torch):
        text += f", and PyTorch, whose CUDA libraries it uses, for CUDA {of_torch}"
        return Finding(text, f"Take both for one CUDA: {SETUP}.")
    return Finding(text)


def _cudnn(versions: Versions) -> Finding | None:
    """PyTorch brings cuDNN along; ONNX Runtime loads that."""
    found = _present(versions, "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
    # Packages number cuDNN 9.20 as 9.20.0.48.
    wrong = [version for version in found.values() if _major(version) != CUDNN_OF_ORT]
    if wrong and versions.get("onnxruntime-gpu"):
        text = f"{_listed(found)}; ONNX Runtime needs cuDNN {CUDNN_OF_ORT}"
        return Finding(text, f"Take a newer PyTorch: {SETUP}.")
    return Finding(_listed(found)) if found else None


def _tensorrt(versions: Versions) -> Finding:
    # The plain package only leads to the others.
    version = next(iter(_present(versions, "tensorrt-cu13", "tensorrt-cu12", "tensorrt").values()), None)
    if version is None:
        return Finding("not installed: its rows will be unavailable")
    cuda, of_torch = _tensorrt_cuda(versions), versions.get("torch_cuda")
    text = f"TensorRT {version}" + (f" for CUDA {cuda}" if cuda else "")
    if cuda and of_torch and _major(of_torch) != cuda:
        return Finding(
            f"{text}, and PyTorch, which shares its memory with it, for CUDA {of_torch}",
            f"pip uninstall -y tensorrt-cu{cuda} && pip install tensorrt-cu{_major(of_torch)}",
        )
    if versions.get("onnxruntime-gpu") and _major(version) not in (None, "10"):
        # Not a fault here: TensorRT rows call TensorRT itself.
        text += "; ONNX Runtime's provider for it, which is not used here, would need `pip install 'tensorrt<11'`"
    return Finding(text)


def _dali(versions: Versions) -> Finding:
    names = ("nvidia-dali-cuda130", "nvidia-dali-cuda120")
    found = _present(versions, *names)
    if not found:
        return Finding("not installed: no decoding on the GPU", f"pip install {names[0]}")
    if len(found) > 1:
        advice = f"pip uninstall -y {' '.join(found)} && pip install {names[0]}"
        return Finding(f"{_listed(found)} overwrite each other's files", advice)
    return Finding(_listed(found))


VERSION_JUDGES: Mapping[str, Callable[[Versions], Finding | None]] = {
    "driver and CUDA": _driver,
    "GPU and CUDA": _capability,
    "PyTorch on the GPU": _torch,
    "ONNX Runtime on the GPU": _onnxruntime,
    "cuDNN": _cudnn,
    "TensorRT": _tensorrt,
    "DALI on the GPU": _dali,
}


def _present(versions: Versions, *names: str) -> dict[str, str]:
    """Those of these packages that are here, with their versions."""
    return {name: version for name in names if (version := versions.get(name))}


def _tensorrt_cuda(versions: Versions) -> str | None:
    for cuda in ("13", "12"):
        if versions.get(f"tensorrt-cu{cuda}") or versions.get(f"tensorrt-cu{cuda}-libs"):
            return cuda
    return None


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _numbers(version: str) -> tuple[int, ...]:
    """580.159.03 as (580, 159, 3)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _major(version: str | None) -> str | None:
    numbers = _numbers(version or "")
    return str(numbers[0]) if numbers else None
