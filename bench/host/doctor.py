"""What ``scarlet-bench doctor`` says of a machine: what is there, what fits together, and what may disturb."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

from bench.host.counters import ROOT, read_text
from bench.host.judgements import UNKNOWN, judged
from bench.host.machine import WATCH_SECONDS, describe_host, package_versions
from scarlet.gpu import LEAST_CAPABILITY, torch_cuda

# CUDA's major version: the oldest driver that runs all of its minor ones.
# NVIDIA, CUDA Compatibility, Minor Version Compatibility, table 1.
OLDEST_DRIVER = {"12": 525, "13": 580}
# The packages whose names tell which CUDA they are built for.
NAMED = {"DALI": "nvidia-dali-cuda{}0", "TensorRT": "tensorrt-cu{}"}

# What every machine should have: what it is for, how much is lost without it, any of these packages, and how to get it.
WORTH_HAVING = (
    ("PyTorch", "bad", ("torch",), "pip install torch"),
    ("ONNX Runtime", "warn", ("onnxruntime", "onnxruntime-gpu"), "pip install onnxruntime"),
    ("OpenVINO", "warn", ("openvino",), "pip install openvino"),
    ("NNCF, for INT8 on OpenVINO", "warn", ("nncf",), "pip install nncf"),
    ("simplejpeg, for the pipeline turbo", "warn", ("simplejpeg",), "pip install simplejpeg"),
    ("timm, for its models", "warn", ("timm",), "pip install timm"),
    ("DALI", "warn", ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "pip install nvidia-dali-cuda130"),
)


@dataclass(frozen=True)
class Check:
    """One line of ``scarlet-bench doctor``. ``state`` is ``ok``, ``warn`` or ``bad``."""

    check: str
    state: str
    text: str
    advice: str = ""


def doctor(
    root: Path = ROOT, packages: Mapping[str, str | None] | None = None, watch_seconds: float = WATCH_SECONDS
) -> list[Check]:
    """Everything worth knowing before a measurement, good or not, for the command line."""
    host = describe_host(root, watch_seconds)
    names = [name for _, _, names, _ in WORTH_HAVING for name in names]
    packages = {**package_versions(names), **(package_versions() if packages is None else packages)}
    nvidia = host["nvidia"]
    gpus = ", ".join(gpu["name"] or UNKNOWN for gpu in nvidia["gpus"])
    checks = [
        Check("python", "ok", f"{host['python']} on {host['os'] or UNKNOWN}, kernel {host['kernel'] or UNKNOWN}"),
        Check("processor", "ok", f"{host['cpu_model'] or UNKNOWN}; {' '.join(host['cpu_flags'] or ()) or UNKNOWN}"),
        Check("container", "ok", host["container"] or "no sign of one"),
        Check("NVIDIA GPU", "ok", f"{gpus}; driver {nvidia['driver']}" if gpus else f"none: {nvidia['reason']}"),
    ]
    for title, missing, names_, advice in WORTH_HAVING:
        here = ", ".join(f"{name} {packages[name]}" for name in names_ if packages.get(name))
        checks.append(Check(title, "ok", here) if here else Check(title, missing, "not installed", advice))
    if nvidia["driver"]:
        checks.append(cuda_check(nvidia, built_for(packages)))
    for warning in judged(host, packages):
        state = "warn" if warning.advice else "ok"
        checks.append(Check(warning.kind.value.replace("_", " "), state, warning.text, warning.advice))
    return checks


def built_for(packages: Mapping[str, str | None]) -> dict[str, str]:
    """The CUDA that each GPU package is built for, comma-separated where several are here, empty where none is.

    Files say it; what they belong to, slow to import, stays untouched.
    """
    here = {**package_versions([form.format(cuda) for form in NAMED.values() for cuda in OLDEST_DRIVER]), **packages}
    named = {name: ", ".join(cuda for cuda in OLDEST_DRIVER if here[form.format(cuda)]) for name, form in NAMED.items()}
    found = util.find_spec("onnxruntime")
    for folder in (found.submodule_search_locations or ()) if found else ():
        text = read_text(Path(folder) / "capi/build_and_package_info.py") or ""
        if stated := re.search(r"^cuda_version\b[^=\n]*=\s*['\"]([\d.]+)", text, re.MULTILINE):
            named["ONNX Runtime"] = stated[1]
    return {"PyTorch": torch_cuda(), "ONNX Runtime": "", **named}


def cuda_check(nvidia: Mapping[str, Any], cudas: Mapping[str, str]) -> Check:
    """Whether the driver, the weakest GPU and the packages fit together, and the one line that mends what does not.

    Args:
        nvidia: as of ``describe_host``, with a driver.
        cudas: as returned by ``built_for``.
    """
    driver = nvidia["driver"]
    told = [gpu.get("compute_capability") for gpu in nvidia["gpus"]]
    capability = min((_numbers(one) for one in told if one), default=())
    text = f"driver {driver}, compute capability {'.'.join(map(str, capability)) or '?'}; built for CUDA: "
    text += ", ".join(f"{name} {cuda or 'not at all'}" for name, cuda in cudas.items())
    majors = {_numbers(cuda)[0] for one in cudas.values() for cuda in one.split(", ") if cuda}
    newest = str(max(majors, default=12))
    driver_needed, capability_needed = OLDEST_DRIVER.get(newest, 0), LEAST_CAPABILITY.get(newest, ())
    advice = ""
    if _numbers(driver) < (driver_needed,) or (capability and capability < capability_needed):
        least = ".".join(map(str, capability_needed))
        advice = f"CUDA {newest} needs driver {driver_needed} or newer and a GPU of compute capability {least} or newer"
        advice += ": install them, or builds for CUDA 12: make clean setup EXTRAS=gpu12."
    elif len(majors) > 1 or not all(cuda for name, cuda in cudas.items() if name != "TensorRT"):
        advice = "All need builds for a GPU, and for one CUDA: make clean setup."
    return Check("driver and CUDA", "warn" if advice else "ok", text, advice)


def _numbers(version: str) -> tuple[int, ...]:
    """580.159.03 as (580, 159, 3)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
