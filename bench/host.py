"""What may disturb a measurement on this machine, and what to do about it.

Warnings are a closed set: one member of ``WarningKind`` and one function each, which looks at the facts and
says what it found. A run stores those that found something wrong; ``scarlet-bench doctor`` shows them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from bench.machine import ROOT, allowed_cores, describe_host, fingerprint, git_revision, package_versions

__all__ = [
    "Check",
    "HostWarning",
    "WarningKind",
    "allowed_cores",
    "describe_host",
    "doctor",
    "fingerprint",
    "git_revision",
    "package_versions",
    "warnings",
]

# Half a core kept busy by others: timings on two cores move by several per cent then.
BUSY_LOAD = 0.5
# Two copies of a network, a runtime and a pipeline's buffers need about this much.
LOW_MEMORY_BYTES = 2 * 1024**3
# Kernels park a few idle pages in swap at any time; more means that memory was short.
SWAP_USED_BYTES = 64 * 1024**2

UNKNOWN = "not known on this system"


class WarningKind(str, Enum):
    """Every warning there is."""

    LOAD = "load"
    GOVERNOR = "governor"
    FEW_CORES = "few_cores"
    CPU_QUOTA = "cpu_quota"
    TOO_MANY_THREADS = "too_many_threads"
    LOW_MEMORY = "low_memory"
    SWAP = "swap"
    TWO_ONNXRUNTIMES = "two_onnxruntimes"
    NO_CUDA = "no_cuda"


@dataclass(frozen=True)
class HostWarning:
    """Something that may disturb a measurement: what was found, and what to do about it."""

    kind: WarningKind
    text: str
    advice: str


@dataclass(frozen=True)
class Check:
    """One line of ``scarlet-bench doctor``. ``state`` is ``ok``, ``warn`` or ``bad``."""

    check: str
    state: str
    text: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Plain JSON types."""
        return asdict(self)


class _Facts(NamedTuple):
    """All that a judgement may rest on."""

    host: Mapping[str, Any]
    packages: Mapping[str, str | None]
    devices: Sequence[str]
    threads: int | None


class _Finding(NamedTuple):
    """What a judgement found; ``advice`` is empty where nothing is wrong."""

    text: str
    advice: str = ""


def warnings(
    host: Mapping[str, Any],
    packages: Mapping[str, str | None] | None = None,
    devices: Sequence[str] = ("cpu",),
    threads: int | None = None,
) -> list[HostWarning]:
    """What may disturb a measurement with these options, worst offenders of timing first.

    Args:
        host: as of ``describe_host``, taken before the run's own work begins.
        packages: as of ``package_versions``; looked up where None.
        devices: those the run asks for.
        threads: largest number that a Case asks for, where it is known.
    """
    facts = _Facts(host, package_versions() if packages is None else packages, devices, threads)
    findings = ((kind, judge(facts)) for kind, judge in _JUDGES.items())
    return [HostWarning(kind, found.text, found.advice) for kind, found in findings if found.advice]


def doctor(root: Path = ROOT, packages: Mapping[str, str | None] | None = None) -> list[Check]:
    """Everything worth knowing before a measurement, good or not, for the command line."""
    host = describe_host(root)
    facts = _Facts(host, package_versions() if packages is None else packages, ("cpu",), None)
    checks = [
        Check(
            "python", "ok", f"{host['python']} on {host['os'] or UNKNOWN}, kernel {host['kernel'] or UNKNOWN}"
        ),
        Check(
            "processor",
            "ok",
            f"{host['cpu_model'] or UNKNOWN}; {' '.join(host['cpu_flags'] or ()) or UNKNOWN}",
        ),
        Check("turbo", "ok", {True: "on", False: "off", None: UNKNOWN}[host["turbo"]]),
        Check("container", "ok", host["container"] or "no sign of one"),
        _gpu_check(host["nvidia"]),
        *_package_checks(facts.packages),
    ]
    for kind, judge in _JUDGES.items():
        found = judge(facts)
        state = "warn" if found.advice else "ok"
        checks.append(Check(kind.value.replace("_", " "), state, found.text, found.advice))
    return checks


def _gpu_check(nvidia: Mapping[str, Any]) -> Check:
    if nvidia["reason"]:
        return Check("NVIDIA GPU", "ok", f"none: {nvidia['reason']}")
    names = ", ".join(gpu["name"] for gpu in nvidia["gpus"])
    return Check("NVIDIA GPU", "ok", f"{names}; driver {nvidia['driver']}")


def _package_checks(packages: Mapping[str, str | None]) -> list[Check]:
    """PyTorch is a must; a runtime and a fast pipeline are worth having."""
    wanted = (
        ("PyTorch", "bad", ("torch",), "pip install torch"),
        ("ONNX Runtime", "warn", ("onnxruntime", "onnxruntime-gpu"), "pip install onnxruntime"),
        ("DALI", "warn", ("nvidia-dali-cuda130", "nvidia-dali-cuda120"), "pip install nvidia-dali-cuda130"),
    )
    checks = []
    for title, missing, names, advice in wanted:
        found = [f"{name} {packages[name]}" for name in names if packages.get(name)]
        checks.append(
            Check(title, "ok", ", ".join(found)) if found else Check(title, missing, "not installed", advice)
        )
    return checks


# --- judgements: one for each kind of warning ---------------------------------------------------------------


def _load(facts: _Facts) -> _Finding:
    load, cores = facts.host.get("load_1m"), facts.host.get("logical_cores")
    if load is None:
        return _Finding(UNKNOWN)
    text = f"{load:.2f} over the last minute on {cores or '?'} logical cores"
    return _Finding(text, "Stop other work and wait a minute." if load >= BUSY_LOAD else "")


def _governor(facts: _Facts) -> _Finding:
    governor = facts.host.get("governor")
    if governor is None:
        return _Finding(UNKNOWN)
    advice = "Fix the clock for the run: sudo cpupower frequency-set -g performance."
    return _Finding(f"the frequency governor is {governor}", "" if governor == "performance" else advice)


def _few_cores(facts: _Facts) -> _Finding:
    cores = facts.host.get("logical_cores_allowed")
    if cores is None:
        return _Finding(UNKNOWN)
    text = f"{cores} logical core{'s' if cores > 1 else ''} for this process"
    advice = (
        "The system shares the only core with the measurement: expect wide intervals, give a larger --budget."
    )
    return _Finding(text, advice if cores < 2 else "")


def _cpu_quota(facts: _Facts) -> _Finding:
    quota, cores = facts.host.get("cgroup_cpu_quota"), facts.host.get("logical_cores_allowed")
    if quota is None:
        return _Finding("no limit by a control group")
    text = f"a control group allows {quota:g} cores' worth of time, of {cores or '?'} cores"
    if cores is not None and quota >= cores:
        return _Finding(text)
    fitting = max(1, int(quota))
    return _Finding(text, f"The kernel stops threads beyond it: use --threads {fitting}, or raise the quota.")


def _too_many_threads(facts: _Facts) -> _Finding:
    cores, threads = facts.host.get("logical_cores_allowed"), facts.threads
    if cores is None or threads is None:
        return _Finding("depends on --threads")
    text = f"{threads} threads on {cores} logical cores"
    return _Finding(
        text, f"Threads will wait for one another: use --threads {cores}." if threads > cores else ""
    )


def _low_memory(facts: _Facts) -> _Finding:
    known = [facts.host.get("memory_available_bytes"), facts.host.get("cgroup_memory_limit_bytes")]
    sizes = [size for size in known if size is not None]
    if not sizes:
        return _Finding(UNKNOWN)
    text = f"{min(sizes) / 1024**3:.1f} GiB to use"
    advice = "Close other programs, or use smaller --batches and one backend at a time."
    return _Finding(text, advice if min(sizes) < LOW_MEMORY_BYTES else "")


def _swap(facts: _Facts) -> _Finding:
    used = facts.host.get("swap_used_bytes")
    if used is None:
        return _Finding(UNKNOWN)
    text = f"{used / 1024**2:.0f} MiB of swap in use"
    advice = "Memory was short: close other programs, then sudo swapoff -a && sudo swapon -a."
    return _Finding(text, advice if used >= SWAP_USED_BYTES else "")


def _two_onnxruntimes(facts: _Facts) -> _Finding:
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if facts.packages.get(name)]
    if len(found) < 2:
        return _Finding("not more than one build of ONNX Runtime")
    text = "onnxruntime and onnxruntime-gpu are both installed, and one overwrites files of the other"
    return _Finding(text, "pip uninstall both, then install one of them.")


def _no_cuda(facts: _Facts) -> _Finding:
    nvidia = facts.host.get("nvidia") or {}
    if nvidia.get("gpus"):
        return _Finding(f"driver {nvidia.get('driver')}")
    text = f"no GPU to use: {nvidia.get('reason') or UNKNOWN}"
    advice = "Install the driver and the extra gpu, or use --devices cpu."
    return _Finding(text, advice if "cuda" in facts.devices else "")


_JUDGES: dict[WarningKind, Callable[[_Facts], _Finding]] = {
    WarningKind.LOAD: _load,
    WarningKind.GOVERNOR: _governor,
    WarningKind.CPU_QUOTA: _cpu_quota,
    WarningKind.FEW_CORES: _few_cores,
    WarningKind.TOO_MANY_THREADS: _too_many_threads,
    WarningKind.LOW_MEMORY: _low_memory,
    WarningKind.SWAP: _swap,
    WarningKind.TWO_ONNXRUNTIMES: _two_onnxruntimes,
    WarningKind.NO_CUDA: _no_cuda,
}
