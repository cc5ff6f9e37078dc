"""What may disturb a measurement on this machine: a closed set of warnings, and one judgement for each.

A judgement is a function of the facts that says what it found, and what to do where that is wrong. Facts that are not
known never warn. A run stores those that found something wrong; ``scarlet-bench doctor`` shows them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

from bench.host.counters import MEMORY_STALL_SHARE, STEAL_SHARE, SWAPPED_PAGES, Activity
from bench.host.gpu_state import POWER_CAP, SLOW_DOWNS
from bench.host.machine import package_versions

# Half a core kept busy by others: timings on two cores move by several per cent then.
BUSY_LOAD = 0.5
# Two copies of a network, a runtime and a pipeline's buffers need about this much.
LOW_MEMORY_BYTES = 2 * 1024**3
# Kernels park a few idle pages in swap at any time; more means that memory was short.
SWAP_USED_BYTES = 64 * 1024**2
# A quota that stopped its group in more than one period of a hundred will do so again under a measurement.
THROTTLED_PERIODS_SHARE = 0.01
# One slow-down for heat an hour since boot: such a machine gets hot at work, and a measurement is work.
THERMAL_EVENTS_PER_HOUR = 1.0


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
    "CUDA_VISIBLE_DEVICES. One that takes one process alone: sudo nvidia-smi --compute-mode=DEFAULT.",
}


class Facts(NamedTuple):
    """All that a judgement may rest on; ``threads``: largest number that a Case requests, where it is known."""

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


@dataclass(frozen=True)
class HostWarning:
    """Something that may disturb a measurement: what was found, and what to do about it."""

    kind: WarningKind
    text: str
    advice: str


def warnings(
    host: Mapping[str, Any],
    packages: Mapping[str, str | None] | None = None,
    devices: Sequence[str] = ("cpu",),
    threads: int | None = None,
) -> list[HostWarning]:
    """What may disturb a measurement with these options, worst offenders of timing first.

    Args:
        host: as returned by ``machine.describe_host`` (with ``watch_seconds``, so that load by others is measured),
            taken before the run's own work begins.
    """
    facts = Facts(host, package_versions() if packages is None else packages, devices, threads)
    return [HostWarning(kind, finding.text, finding.advice) for kind, finding in findings(facts) if finding.advice]


def _load(facts: Facts) -> Finding:
    load, cores, activity = facts.host.get("load_1m"), facts.host.get("logical_cores"), facts.activity
    others = None if activity is None else activity.cpu_by_others_cores
    said = [] if load is None else [f"{load:.2f} over the last minute on {cores or '?'} logical cores"]
    if others is not None:
        said.append(f"others keep {others:.2f} cores busy now")
    # What was seen just now tells more than an average that still holds what has ended.
    busy = activity.others_disturb if activity and others is not None else (load or 0.0) >= BUSY_LOAD
    return Finding("; ".join(said) or UNKNOWN, ADVICE[WarningKind.LOAD] if busy else "")


def _governor(facts: Facts) -> Finding:
    governor = facts.host.get("governor")
    if governor is None:
        return Finding(UNKNOWN)
    advice = "Fix the clock for the run: sudo cpupower frequency-set -g performance."
    return Finding(f"the frequency governor is {governor}", "" if governor == "performance" else advice)


def _turbo(facts: Facts) -> Finding:
    turbo, governor = facts.host.get("turbo"), facts.host.get("governor")
    if turbo is None:
        return Finding(UNKNOWN)
    # Turbo alone is how most machines are used: it hurts where the clock is meant to be fixed.
    if not turbo or governor != "performance":
        return Finding("on" if turbo else "off")
    advice = "For the steadiest clock switch it off: echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost (Intel: "
    advice += "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo)."
    return Finding("on: the clock rises and falls with heat and with the number of busy cores", advice)


def _few_cores(facts: Facts) -> Finding:
    cores = facts.host.get("logical_cores_allowed")
    if cores is None:
        return Finding(UNKNOWN)
    text = f"{cores} logical core{'s' if cores > 1 else ''} for this process"
    advice = "The system shares the only core with the measurement: expect wide intervals, give a larger --budget."
    return Finding(text, advice if cores < 2 else "")


def _cpu_quota(facts: Facts) -> Finding:
    quota, cores = facts.host.get("cgroup_cpu_quota"), facts.host.get("logical_cores_allowed")
    if quota is None:
        return Finding("no limit by a control group")
    text = f"a control group allows {quota:g} cores' worth of time, of {cores or '?'} cores"
    if cores is not None and quota >= cores:
        return Finding(text)
    fitting = max(1, int(quota))
    return Finding(text, f"The kernel stops threads beyond it: use --threads {fitting}, or raise the quota.")


def _too_many_threads(facts: Facts) -> Finding:
    cores, threads = facts.host.get("logical_cores_allowed"), facts.threads
    if cores is None or threads is None:
        return Finding("depends on --threads")
    text = f"{threads} threads on {cores} logical cores"
    return Finding(text, f"Threads will wait for one another: use --threads {cores}." if threads > cores else "")


def _low_memory(facts: Facts) -> Finding:
    known = [facts.host.get("memory_available_bytes"), facts.host.get("cgroup_memory_limit_bytes")]
    sizes = [size for size in known if size is not None]
    if not sizes:
        return Finding(UNKNOWN)
    text = f"{min(sizes) / 1024**3:.1f} GiB to use"
    advice = "Close other programs, or use smaller --batches and one backend at a time."
    return Finding(text, advice if min(sizes) < LOW_MEMORY_BYTES else "")


def _swap(facts: Facts) -> Finding:
    used = facts.host.get("swap_used_bytes")
    if used is None:
        return Finding(UNKNOWN)
    text = f"{used / 1024**2:.0f} MiB of swap in use"
    advice = "Memory was short: close other programs, then sudo swapoff -a && sudo swapon -a."
    return Finding(text, advice if used >= SWAP_USED_BYTES else "")


def _two_onnxruntimes(facts: Facts) -> Finding:
    found = [name for name in ("onnxruntime", "onnxruntime-gpu") if facts.packages.get(name)]
    if len(found) < 2:
        return Finding("not more than one build of ONNX Runtime")
    text = "onnxruntime and onnxruntime-gpu are both installed, and one overwrites files of the other"
    return Finding(text, "pip uninstall both, then install one of them.")


def _no_cuda(facts: Facts) -> Finding:
    nvidia = facts.host.get("nvidia") or {}
    if nvidia.get("gpus"):
        return Finding(f"driver {nvidia.get('driver')}")
    text = f"no GPU to use: {nvidia.get('reason') or UNKNOWN}"
    advice = "Install the driver and the extra gpu, or use --devices cpu."
    return Finding(text, advice if "cuda" in facts.devices else "")


def _cgroup_throttling(facts: Facts) -> Finding:
    known, activity = facts.since_boot, facts.activity
    if known.get("throttled_ns") is None:
        return Finding("no control group counts it")
    share = (known.get("throttled_periods") or 0) / max(1, known.get("periods") or 0)
    text = f"stopped for {known['throttled_ns'] / 1e9:.3g} s so far, in {100 * share:.3g} % of the quota's periods"
    now = activity is not None and (activity.throttled_ns or 0) > 0
    return Finding(text, ADVICE[WarningKind.CGROUP_THROTTLING] if now or share > THROTTLED_PERIODS_SHARE else "")


def _steal(facts: Facts) -> Finding:
    total, activity = facts.since_boot.get("steal_share"), facts.activity
    if total is None:
        return Finding(UNKNOWN)
    now = activity.steal_share if activity and activity.steal_share is not None else None
    text = f"{100 * total:.2g} % of CPU time went to other guests since boot"
    text += "" if now is None else f", {100 * now:.2g} % now"
    much = max(total, (activity.steal_share_low or 0.0) if activity else 0.0) >= STEAL_SHARE
    return Finding(text, ADVICE[WarningKind.STEAL] if much else "")


def _thermal_throttling(facts: Facts) -> Finding:
    events, uptime_s = facts.since_boot.get("thermal_events"), facts.since_boot.get("uptime_s")
    if events is None:
        return Finding(UNKNOWN)
    activity = facts.activity
    now = activity is not None and (activity.thermal_events or 0) > 0
    often = uptime_s is not None and uptime_s > 0 and events * 3600 / uptime_s >= THERMAL_EVENTS_PER_HOUR
    text = f"slowed down for heat {events} times since boot{', just now too' if now else ''}"
    return Finding(text, ADVICE[WarningKind.THERMAL_THROTTLING] if now or often else "")


def _memory_pressure(facts: Facts) -> Finding:
    activity = facts.activity
    share = None if activity is None else activity.memory_stall_share
    if share is None:
        return Finding(UNKNOWN)
    text = f"programs wait for memory {100 * share:.2g} % of the time"
    return Finding(text, ADVICE[WarningKind.MEMORY_PRESSURE] if share >= MEMORY_STALL_SHARE else "")


def _swapping(facts: Facts) -> Finding:
    activity = facts.activity
    if activity is None or activity.swap_in_pages is None:
        return Finding(UNKNOWN)
    text = f"{activity.swapped_pages} pages moved to or from swap in {activity.duration_ns / 1e9:.2g} s"
    return Finding(text, ADVICE[WarningKind.SWAPPING] if activity.swapped_pages >= SWAPPED_PAGES else "")


def _each_gpu(judge: Callable[[Mapping[str, Any]], tuple[str, bool]], advice: str) -> Callable[[Facts], Finding]:
    """One sentence on each GPU; the advice where one of them is wrong."""

    def judged(facts: Facts) -> Finding:
        found = [judge(gpu) for gpu in facts.gpus]
        text = "; ".join(f"GPU {index}: {said}" for index, (said, _) in enumerate(found))
        return Finding(text or "no GPU", advice if any(wrong for _, wrong in found) else "")

    return judged


def _known(value: Any, unit: str = "") -> str:
    return "?" if value is None else f"{value:g}{unit}"


def _is_lowered(value: float | None, usual: float | None) -> bool:
    return value is not None and usual is not None and value < usual


def _clocks(gpu: Mapping[str, Any]) -> tuple[str, bool]:
    """Clocks of the multiprocessors, and application clocks that somebody has lowered."""
    set_to = gpu.get("sm_clock_set_mhz")
    text = f"{_known(gpu.get('sm_clock_mhz'))} of at most {_known(gpu.get('sm_clock_max_mhz'), ' MHz')}"
    return f"{text}; set to {_known(set_to, ' MHz')}", _is_lowered(set_to, gpu.get("sm_clock_default_mhz"))


def _throttling(gpu: Mapping[str, Any]) -> tuple[str, bool]:
    """What holds the clock now, and how hot the chip is."""
    reasons = gpu.get("clock_reasons")
    if reasons is None:
        return "why the clock is not higher is not known", False
    heat = _known(gpu.get("temperature_c"), " degrees C")
    return f"{', '.join(reasons) or 'nothing'} holds the clock; {heat}", any(why in SLOW_DOWNS for why in reasons)


def _power(gpu: Mapping[str, Any]) -> tuple[str, bool]:
    """Power drawn, and a limit that is reached or was lowered."""
    limit, usual = gpu.get("power_limit_w"), gpu.get("power_limit_default_w")
    text = f"{_known(gpu.get('power_w'), ' W')} of {_known(limit, ' W')}, by default {_known(usual, ' W')}"
    return text, POWER_CAP in (gpu.get("clock_reasons") or ()) or _is_lowered(limit, usual)


def _processes(gpu: Mapping[str, Any]) -> tuple[str, bool]:
    """Whether others compute on it; before a run none of its processes are ours."""
    ids, alone = gpu.get("process_ids"), bool(gpu.get("compute_mode"))  # 0 is the default: it takes several
    text = "not known" if ids is None else f"{len(ids)} processes compute on it"
    return f"{text}, and it takes one at a time" if alone else text, bool(ids) or alone


def findings(facts: Facts) -> Iterator[tuple[WarningKind, Finding]]:
    """Every judgement's finding, worst offenders of timing first."""
    for kind, judge in JUDGES.items():
        yield kind, judge(facts)


JUDGES: dict[WarningKind, Callable[[Facts], Finding]] = {
    WarningKind.LOAD: _load,
    WarningKind.CGROUP_THROTTLING: _cgroup_throttling,
    WarningKind.STEAL: _steal,
    WarningKind.THERMAL_THROTTLING: _thermal_throttling,
    WarningKind.MEMORY_PRESSURE: _memory_pressure,
    WarningKind.SWAPPING: _swapping,
    WarningKind.GPU_THROTTLING: _each_gpu(_throttling, ADVICE[WarningKind.GPU_THROTTLING]),
    WarningKind.GPU_PROCESSES: _each_gpu(_processes, ADVICE[WarningKind.GPU_PROCESSES]),
    WarningKind.GPU_POWER_CAP: _each_gpu(_power, ADVICE[WarningKind.GPU_POWER_CAP]),
    WarningKind.GPU_CLOCKS: _each_gpu(
        _clocks, "The application clock is set below its default: sudo nvidia-smi --reset-applications-clocks."
    ),
    WarningKind.GOVERNOR: _governor,
    WarningKind.TURBO: _turbo,
    WarningKind.CPU_QUOTA: _cpu_quota,
    WarningKind.FEW_CORES: _few_cores,
    WarningKind.TOO_MANY_THREADS: _too_many_threads,
    WarningKind.LOW_MEMORY: _low_memory,
    WarningKind.SWAP: _swap,
    WarningKind.TWO_ONNXRUNTIMES: _two_onnxruntimes,
    WarningKind.NO_CUDA: _no_cuda,
}
