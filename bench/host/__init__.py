"""The machine: what it is, how it is doing, and what may disturb a measurement on it."""

from bench.host.doctor import Check, doctor
from bench.host.judgements import UNKNOWN, HostWarning, WarningKind, warnings
from bench.host.machine import WATCH_SECONDS, allowed_cores, describe_host, fingerprint, git_revision, package_versions

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
