"""What may disturb a measurement on this machine, and what to do about it.

Warnings are a closed set: one ``WarningKind`` and one judgement each (``bench.host.judgements``), which looks at
the facts and says what it found. A run stores those that found something wrong; ``scarlet-bench doctor`` shows them
all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.host import gpu_versions
from bench.host.counters import ROOT
from bench.host.judgements import findings
from bench.host.machine import (
    WATCH_SECONDS,
    allowed_cores,
    describe_host,
    fingerprint,
    git_revision,
    package_versions,
)
from bench.host.warning_kinds import UNKNOWN, Facts, WarningKind

__all__ = [
    "UNKNOWN",
    "WATCH_SECONDS",
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


def warnings(
    host: Mapping[str, Any],
    packages: Mapping[str, str | None] | None = None,
    devices: Sequence[str] = ("cpu",),
    threads: int | None = None,
) -> list[HostWarning]:
    """What may disturb a measurement with these options, worst offenders of timing first.

    Args:
        host: as of ``describe_host`` (with ``watch_seconds``, so that load by others is measured), taken before the
            run's own work begins.
        packages: as of ``package_versions``; looked up where None.
        devices: those the run asks for.
        threads: largest number that a Case asks for, where it is known.
    """
    facts = Facts(host, package_versions() if packages is None else packages, devices, threads)
    return [HostWarning(kind, found.text, found.advice) for kind, found in findings(facts) if found.advice]


def doctor(
    root: Path = ROOT,
    packages: Mapping[str, str | None] | None = None,
    watch_seconds: float = WATCH_SECONDS,
) -> list[Check]:
    """Everything worth knowing before a measurement, good or not, for the command line.

    Args:
        root: where ``proc``, ``sys`` and ``etc`` are.
        packages: as of ``package_versions``; looked up where None.
        watch_seconds: how long to watch what other programs do.
    """
    host = describe_host(root, watch_seconds)
    facts = Facts(host, package_versions() if packages is None else packages, ("cpu",), None)
    checks = [
        Check(
            "python", "ok", f"{host['python']} on {host['os'] or UNKNOWN}, kernel {host['kernel'] or UNKNOWN}"
        ),
        Check(
            "processor",
            "ok",
            f"{host['cpu_model'] or UNKNOWN}; {' '.join(host['cpu_flags'] or ()) or UNKNOWN}",
        ),
        Check("container", "ok", host["container"] or "no sign of one"),
        _gpu_check(host["nvidia"]),
        *_package_checks(facts.packages),
        *_gpu_version_checks(host["nvidia"], facts.packages),
    ]
    for kind, found in findings(facts):
        state = "warn" if found.advice else "ok"
        checks.append(Check(kind.value.replace("_", " "), state, found.text, found.advice))
    return checks


def _gpu_check(nvidia: Mapping[str, Any]) -> Check:
    if nvidia["reason"]:
        return Check("NVIDIA GPU", "ok", f"none: {nvidia['reason']}")
    names = ", ".join(gpu["name"] or UNKNOWN for gpu in nvidia["gpus"])
    return Check("NVIDIA GPU", "ok", f"{names}; driver {nvidia['driver']}")


def _gpu_version_checks(nvidia: Mapping[str, Any], packages: Mapping[str, str | None]) -> list[Check]:
    """Whether driver and GPU packages fit together; nothing on a machine without a driver."""
    fits = gpu_versions.fitting({**gpu_versions.installed(nvidia), **packages})
    return [Check(fit.check, "warn" if fit.advice else "ok", fit.text, fit.advice) for fit in fits]


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
