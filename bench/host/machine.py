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
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.host import counters
from bench.host.counters import ROOT, cgroup_folders, keyed_lines, read_text
from bench.host.gpu_state import describe_gpus

# Long enough to know load by others to about 0.04 cores, short enough not to be noticed.
WATCH_SECONDS = 0.5

# Instruction sets that decide which kernels a runtime picks; all others would only lengthen the report.
FLAGS = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "amx_fp16", "asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)  # fmt: skip

# Runtimes have theirs besides: ``bench.backends.package_versions``.
PACKAGES = (
    *("scarlet-bench", "torch", "onnx", "onnxscript", "nvidia-dali-cuda120", "nvidia-dali-cuda130", "nvidia-ml-py"),
    *("timm", "numpy", "scipy", "pandas", "pyarrow", "pillow", "safetensors", "simplejpeg", "nncf"),
)  # fmt: skip

# cgroup v1 writes "no limit" as a number near 2**63, rounded to pages.
NO_LIMIT_BYTES = 2**60


def describe_host(root: Path = ROOT, watch_seconds: float = 0.0) -> dict[str, Any]:
    """The machine in plain JSON types; None where the system does not tell.

    Args:
        watch_seconds: watch the system's counters for so long (``WATCH_SECONDS``); 0: do not.

    Keys: ``cpu_model``, ``architecture``, ``cpu_flags`` (those of ``FLAGS``, in that order),
    ``logical_cores``, ``logical_cores_allowed``, ``cgroup_cpu_quota`` (in cores), ``governor``, ``turbo``,
    ``load_1m``, ``load_5m``, ``load_15m``, ``memory_total_bytes``, ``memory_available_bytes``,
    ``cgroup_memory_limit_bytes``, ``swap_total_bytes``, ``swap_used_bytes``, ``os``, ``kernel``, ``python``,
    ``container``, ``nvidia`` (see ``gpu_state``), ``since_boot`` (what the counters have come to) and ``activity``
    (fields of ``counters.Activity`` while it was watched, or None).
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
        "nvidia": describe_gpus(),
        **_disturbances(root, watch_seconds),
    }


def _disturbances(root: Path, watch_seconds: float) -> dict[str, Any]:
    if watch_seconds > 0:
        seen, activity = counters.watch(root, watch_seconds)
    else:
        seen, activity = counters.Reader(root).read(), None
    counts = seen.counts
    total_ns = sum(counts.get(name, 0) for name in ("busy_ns", "idle_ns", "stolen_ns"))
    names = ("throttled_ns", "throttled_periods", "periods", "thermal_events", "memory_stall_ns")
    since_boot = {
        "uptime_s": _number((_text(root / "proc/uptime") or "").partition(" ")[0]),
        "steal_share": counts["stolen_ns"] / total_ns if total_ns else None,
        **{name: counts.get(name) for name in names},
    }
    return {"since_boot": since_boot, "activity": None if activity is None else asdict(activity)}


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
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=20, env=environment
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
    stable = ("cpu_model", "architecture", "cpu_flags", "logical_cores", "logical_cores_allowed", "cgroup_cpu_quota")
    described = {key: host.get(key) for key in stable}
    # Kernels differ by some megabytes in what they call the total.
    for key in ("memory_total_bytes", "cgroup_memory_limit_bytes"):
        described[key] = None if host.get(key) is None else round(host[key] / 2**30)
    described["gpus"] = [gpu.get("name") for gpu in (host.get("nvidia") or {}).get("gpus", ())]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:12]


def _text(path: Path) -> str | None:
    text = read_text(path)
    return None if text is None else text.strip()


def _number(text: str | None) -> float | None:
    with suppress(ValueError, TypeError):
        return float(text or "")
    return None


def _least(values: Iterator[float]) -> Any:
    return min(values, default=None)


def _cpu(root: Path) -> dict[str, Any]:
    fields = keyed_lines(root / "proc/cpuinfo")
    model = next((fields[key] for key in ("model name", "Model", "Hardware", "cpu model") if fields.get(key)), None)
    words = fields.get("flags", fields.get("Features"))
    present = None if words is None else set(words.split())
    return {"cpu_model": model, "cpu_flags": None if present is None else [flag for flag in FLAGS if flag in present]}


def _meminfo(root: Path) -> dict[str, int]:
    sizes = {key: _number(size.removesuffix("kB")) for key, size in keyed_lines(root / "proc/meminfo").items()}
    return {key: int(size) * 1024 for key, size in sizes.items() if size is not None}


def _governor(root: Path) -> str | None:
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    return ", ".join(sorted({text for text in map(_text, files) if text})) or None


def _turbo(root: Path) -> bool | None:
    folder = root / "sys/devices/system/cpu"
    off, on = _text(folder / "intel_pstate/no_turbo"), _text(folder / "cpufreq/boost")
    if off in ("0", "1"):
        return off == "0"
    return on == "1" if on in ("0", "1") else None


def _cpu_quotas(root: Path) -> Iterator[float]:
    for folder in dict.fromkeys(cgroup_folders(root, "cpu")):
        quota, _, period = (_text(folder / "cpu.max") or "").partition(" ")
        if not quota:
            quota, period = (_text(folder / "cpu.cfs_quota_us") or "", _text(folder / "cpu.cfs_period_us") or "")
        share, whole = _number(quota), _number(period)
        if share is not None and whole and share > 0:
            yield share / whole


def _memory_limits(root: Path) -> Iterator[int]:
    for folder in dict.fromkeys(cgroup_folders(root, "memory")):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_text(folder / name))
            if limit is not None and 0 < limit < NO_LIMIT_BYTES:
                yield int(limit)


def _os_name(root: Path) -> str | None:
    name = keyed_lines(root / "etc/os-release", "=").get("PRETTY_NAME", "").strip("\"'")
    return name or platform.system() or None


def _container(root: Path) -> str | None:
    """A hint, not a proof: the marks that container engines leave."""
    for mark, name in ((".dockerenv", "docker"), ("run/.containerenv", "podman")):
        if (root / mark).exists():
            return name
    groups = _text(root / "proc/1/cgroup") or ""
    return next((name for name in ("kubepods", "docker", "containerd", "lxc") if name in groups), None)
