"""The closed set of warnings: their kinds, what to do against each, and what a judgement is given and gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from bench.host.counters import Activity

UNKNOWN = "not known on this system"


class WarningKind(str, Enum):
    """Every warning there is, of a machine before a run and of a run's rounds."""

    LOAD = "load"
    GOVERNOR = "governor"
    TURBO = "turbo"
    CPU_QUOTA = "cpu_quota"
    CGROUP_THROTTLING = "cgroup_throttling"
    STEAL = "steal"
    THERMAL_THROTTLING = "thermal_throttling"
    FEW_CORES = "few_cores"
    TOO_MANY_THREADS = "too_many_threads"
    LOW_MEMORY = "low_memory"
    MEMORY_PRESSURE = "memory_pressure"
    SWAP = "swap"
    SWAPPING = "swapping"
    TWO_ONNXRUNTIMES = "two_onnxruntimes"
    NO_CUDA = "no_cuda"
    GPU_CLOCKS = "gpu_clocks"
    GPU_THROTTLING = "gpu_throttling"
    GPU_POWER_CAP = "gpu_power_cap"
    GPU_PROCESSES = "gpu_processes"


# What to do against what can strike in the middle of a run.
ADVICE: Mapping[WarningKind, str] = {
    WarningKind.LOAD: "Stop other work (top shows it) and wait a minute, or measure at a quieter time.",
    WarningKind.CGROUP_THROTTLING: "The group's CPU quota stopped the work: use fewer --threads, or raise the quota.",
    WarningKind.STEAL: "The hypervisor ran other guests meanwhile: use a larger --budget, or a machine of your own.",
    WarningKind.THERMAL_THROTTLING: "The processor got too hot: let it cool, clear its vents, use fewer --threads "
    "or switch turbo off.",
    WarningKind.MEMORY_PRESSURE: "Programs waited for memory: close some, or use smaller --batches and fewer Cases.",
    WarningKind.SWAPPING: "Memory was moved to or from disk: close other programs, or use smaller --batches.",
    WarningKind.GPU_THROTTLING: "The GPU slowed down for heat or supply: let it cool, improve its cooling, or lower "
    "its clock for good: sudo nvidia-smi --lock-gpu-clocks=<MHz>.",
    WarningKind.GPU_POWER_CAP: "The power cap held the clock down: raise it (sudo nvidia-smi --power-limit=<W>), or "
    "lock a clock that it allows: sudo nvidia-smi --lock-gpu-clocks=<MHz>.",
    WarningKind.GPU_PROCESSES: "Others compute on the GPU (nvidia-smi shows them): stop them, or use another GPU by "
    "CUDA_VISIBLE_DEVICES.",
}


class Facts(NamedTuple):
    """All that a judgement may rest on.

    Attributes:
        host: as of ``machine.describe_host``.
        packages: as of ``machine.package_versions``.
        devices: those the run asks for.
        threads: largest number that a Case asks for, where it is known.
    """

    host: Mapping[str, Any]
    packages: Mapping[str, str | None]
    devices: Sequence[str]
    threads: int | None

    @property
    def activity(self) -> Activity | None:
        """What happened while the machine was watched."""
        seen = self.host.get("activity")
        return Activity(**seen) if seen else None

    @property
    def since_boot(self) -> Mapping[str, Any]:
        """What the counters have come to."""
        return self.host.get("since_boot") or {}

    @property
    def gpus(self) -> Sequence[Mapping[str, Any]]:
        """The GPUs that the driver shows."""
        return (self.host.get("nvidia") or {}).get("gpus") or ()


class Finding(NamedTuple):
    """What a judgement found; ``advice`` is empty where nothing is wrong."""

    text: str
    advice: str = ""
