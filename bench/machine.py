"""Facts about the machine, its packages and this checkout.

All that is read comes from files under ``root`` (``/``; tests give a made-up tree), from Python, and from
NVIDIA's management library where it is installed. What a system does not tell is None, never a guess.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path("/")

# Instruction sets that decide which kernels a runtime picks; all others would only lengthen the report.
FLAGS = (
    *(
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx_vnni",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx512_fp16",
    ),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)

PACKAGES = (
    *(
        "scarlet-bench",
        "torch",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "onnxruntime-gpu",
        "openvino",
        "tensorrt",
    ),
    *(
        "nvidia-dali-cuda120",
        "nvidia-dali-cuda130",
        "nvidia-ml-py",
        "timm",
        "numpy",
        "scipy",
        "pandas",
        "pyarrow",
    ),
    *("pillow", "safetensors"),
)

# cgroup v1 writes "no limit" as a number near 2**63, rounded to pages.
NO_LIMIT_BYTES = 2**60


def describe_host(root: Path = ROOT) -> dict[str, Any]:
    """The machine in plain JSON types; None where the system does not tell.

    Keys: ``cpu_model``, ``architecture``, ``cpu_flags`` (those of ``FLAGS``, in that order),
    ``logical_cores``, ``logical_cores_allowed``, ``cgroup_cpu_quota`` (in cores), ``governor``, ``turbo``,
    ``load_1m``, ``load_5m``, ``load_15m``, ``memory_total_bytes``, ``memory_available_bytes``,
    ``cgroup_memory_limit_bytes``, ``swap_total_bytes``, ``swap_used_bytes``, ``os``, ``kernel``, ``python``,
    ``container``, ``nvidia``.
    """
    memory = _meminfo(root)
    swap_total, swap_free = memory.get("SwapTotal"), memory.get("SwapFree")
    loads = ((_text(root / "proc/loadavg") or "").split() + [""] * 3)[:3]
    return {
        **_cpu(root),
        "architecture": platform.machine(),
        "logical_cores": os.cpu_count(),
        "logical_cores_allowed": allowed_cores(),
        "cgroup_cpu_quota": _least(_cpu_quotas(root)),
        "governor": _governor(root),
        "turbo": _turbo(root),
        **{f"load_{name}": _number(load) for name, load in zip(("1m", "5m", "15m"), loads, strict=True)},
        "memory_total_bytes": memory.get("MemTotal"),
        "memory_available_bytes": memory.get("MemAvailable"),
        "cgroup_memory_limit_bytes": _least(_memory_limits(root)),
        "swap_total_bytes": swap_total,
        "swap_used_bytes": None if swap_total is None or swap_free is None else swap_total - swap_free,
        "os": _os_name(root),
        "kernel": platform.release() or None,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "container": _container(root),
        "nvidia": _nvidia(),
    }


def allowed_cores() -> int:
    """Logical cores this process may run on (its affinity; a cgroup quota is another matter)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def package_versions(names: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Installed versions by distribution name, None where absent; nothing of them is imported."""
    from importlib import metadata

    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def git_revision(folder: Path) -> dict[str, Any] | None:
    """``{"commit": hex, "dirty": bool}`` of the checkout that a folder belongs to.

    None outside a checkout, where git is not installed, before the first commit, and for a folder that the
    checkout ignores (a package installed into a virtual environment inside somebody's project).
    """

    def git(*words: str) -> str | None:
        environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words],
                capture_output=True,
                text=True,
                timeout=20,
                env=environment,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--verify", "HEAD")
    if commit is None or git("check-ignore", "--quiet", ".") is not None:
        return None
    changes = git("status", "--porcelain")
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def fingerprint(host: Mapping[str, Any]) -> str:
    """A short hash of what stays the same between two runs on one machine; loads and versions are left out."""
    stable = (
        "cpu_model",
        "architecture",
        "cpu_flags",
        "logical_cores",
        "logical_cores_allowed",
        "cgroup_cpu_quota",
    )
    described = {key: host.get(key) for key in stable}
    # Kernels differ by some megabytes in what they call the total.
    for key in ("memory_total_bytes", "cgroup_memory_limit_bytes"):
        described[key] = None if host.get(key) is None else round(host[key] / 2**30)
    described["gpus"] = [gpu.get("name") for gpu in (host.get("nvidia") or {}).get("gpus", ())]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def _text(path: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8").strip()
    return None


def _number(text: str | None) -> float | None:
    with suppress(ValueError, TypeError):
        return float(text or "")
    return None


def _least(values: Iterator[float]) -> Any:
    return min(values, default=None)


def _cpu(root: Path) -> dict[str, Any]:
    fields: dict[str, str] = {}
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    model = next(
        (fields[key] for key in ("model name", "Model", "Hardware", "cpu model") if fields.get(key)), None
    )
    words = fields.get("flags", fields.get("Features"))
    present = None if words is None else set(words.split())
    return {
        "cpu_model": model,
        "cpu_flags": None if present is None else [flag for flag in FLAGS if flag in present],
    }


def _meminfo(root: Path) -> dict[str, int]:
    sizes = {}
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        key, _, rest = line.partition(":")
        size = _number(rest.removesuffix("kB"))
        if size is not None:
            sizes[key] = int(size) * 1024
    return sizes


def _governor(root: Path) -> str | None:
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    return ", ".join(sorted({text for text in map(_text, files) if text})) or None


def _turbo(root: Path) -> bool | None:
    folder = root / "sys/devices/system/cpu"
    off, on = _text(folder / "intel_pstate/no_turbo"), _text(folder / "cpufreq/boost")
    if off in ("0", "1"):
        return off == "0"
    return on == "1" if on in ("0", "1") else None


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders that hold this process's limits, from its own control group up to the hierarchy's root.

    ``/proc/self/cgroup`` has a line ``id:controllers:path`` for each hierarchy; version 2 is the one with id
    0 and no controllers. In a container the path may be one of the host's that does not exist here: then only
    the mount's root is left to look at. See cgroups(7).
    """
    mount = root / "sys/fs/cgroup"
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controllers if (mount / controllers).is_dir() else mount / controller
        own = Path(path.lstrip("/")) if ".." not in path else Path()
        for folder in (own, *own.parents):
            yield (base if controllers else mount) / folder


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in dict.fromkeys(_cgroup_folders(root, "cpu")):
        quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        if not quota:
            quota, period = (
                _text(folder / "cpu.cfs_quota_us") or "",
                _text(folder / "cpu.cfs_period_us") or "",
            )
        share, whole = _number(quota), _number(period)
        if share is not None and whole and share > 0:
            yield share / whole


def _memory_limits(root: Path) -> Iterator[int]:
    for folder in dict.fromkeys(_cgroup_folders(root, "memory")):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_text(folder / name))
            if limit is not None and 0 < limit < NO_LIMIT_BYTES:
                yield int(limit)


def _os_name(root: Path) -> str | None:
    for line in (_text(root / "etc/os-release") or "").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")
    return platform.system() or None


def _container(root: Path) -> str | None:
    """A hint, not a proof: the marks that container engines leave."""
    for mark, name in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / mark).exists():
            return name
    groups = _text(root / "proc/1/cgroup") or ""
    return next((name for name in ("kubepods", "docker", "containerd", "lxc") if name in groups), None)


def _nvidia() -> dict[str, Any]:
    """Driver and GPUs, or the reason why there are none to tell of."""
    nothing: dict[str, Any] = {"driver": None, "gpus": []}
    try:
        import pynvml
    except ImportError:
        return {**nothing, "reason": "nvidia-ml-py is not installed"}
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {**nothing, "reason": f"no NVIDIA driver: {error}"}
    try:
        gpus = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            gpu = pynvml.nvmlDeviceGetHandleByIndex(index)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(gpu)
            memory_bytes = int(pynvml.nvmlDeviceGetMemoryInfo(gpu).total)
            name = _decoded(pynvml.nvmlDeviceGetName(gpu))
            gpus.append(
                {"name": name, "memory_bytes": memory_bytes, "compute_capability": f"{major}.{minor}"}
            )
        driver = _decoded(pynvml.nvmlSystemGetDriverVersion())
        return {"driver": driver, "gpus": gpus, "reason": None if gpus else "the driver sees no GPU"}
    except pynvml.NVMLError as error:
        return {**nothing, "reason": f"the NVIDIA driver does not answer: {error}"}
    finally:
        pynvml.nvmlShutdown()


def _decoded(text: str | bytes) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else text
