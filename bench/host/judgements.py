"""What may disturb a measurement on this machine: a closed set of warnings, and one judgement for each.

A judgement is a function of the facts that says what is there, and whether that is wrong. Facts that are not known
never warn. A run stores those that found something wrong; ``scarlet-bench doctor`` shows them all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
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
    """Every warning there is, of a machine before a run and of a run's rounds, each with what to do about it."""

    advice: str

    def __new__(cls, value: str, advice: str) -> WarningKind:
        kind = str.__new__(cls, value)
        kind._value_, kind.advice = value, advice
        return kind

    LOAD = "load", "Stop other work (top shows it) and wait a minute, or measure at a quieter time."
    GOVERNOR = "governor", "Fix the clock for the run: sudo cpupower frequency-set -g performance."
    TURBO = (
        "turbo",
        "The clock rises and falls with heat and with the number of busy cores. For the steadiest one: echo 0 | sudo "
        "tee /sys/devices/system/cpu/cpufreq/boost (Intel: echo 1 | sudo tee "
        "/sys/devices/system/cpu/intel_pstate/no_turbo).",
    )
    CPU_QUOTA = "cpu_quota", "The kernel stops threads beyond it: use no more --threads than that, or raise the quota."
    CGROUP_THROTTLING = (
        "cgroup_throttling",
        "The group's CPU quota stopped the work: use fewer --threads, or raise the quota.",
    )
    STEAL = "steal", "The hypervisor ran other guests meanwhile: use a larger --budget, or a machine of your own."
    THERMAL_THROTTLING = (
        "thermal_throttling",
        "The processor got too hot: let it cool, clear its vents, use fewer --threads or switch turbo off.",
    )
    FEW_CORES = "few_cores", "The system shares the only core with the measurement: give a larger --budget."
    TOO_MANY_THREADS = "too_many_threads", "Threads will wait for one another: use no more --threads than cores."
    LOW_MEMORY = "low_memory", "Close other programs, or use smaller --batches and one backend at a time."
    MEMORY_PRESSURE = (
        "memory_pressure",
        "Programs waited for memory: close some, or use smaller --batches and fewer Cases.",
    )
    SWAP = "swap", "Memory was short: close other programs, then sudo swapoff -a && sudo swapon -a."
    SWAPPING = "swapping", "Memory was moved to or from disk: close other programs, or use smaller --batches."
    TWO_ONNXRUNTIMES = "two_onnxruntimes", "One overwrites files of the other: uninstall both, then install one."
    NO_CUDA = "no_cuda", "Install the driver and the extra gpu, or use --devices cpu."
    GPU_CLOCKS = (
        "gpu_clocks",
        "The application clock is set below its default: sudo nvidia-smi --reset-applications-clocks.",
    )
    GPU_THROTTLING = (
        "gpu_throttling",
        "The GPU slowed down for heat or supply: let it cool, improve its cooling, or lower its clock for good: sudo "
        "nvidia-smi --lock-gpu-clocks=<MHz>.",
    )
    GPU_POWER_CAP = (
        "gpu_power_cap",
        "The power cap held the clock down: raise it (sudo nvidia-smi --power-limit=<W>), or lock a clock that it "
        "allows: sudo nvidia-smi --lock-gpu-clocks=<MHz>.",
    )
    GPU_EVENTS = (
        "gpu_events",
        "CUDA's events are not reliable then (trtexec avoids them): compare whole calls, or boot the GPU without it.",
    )
    GPU_PROCESSES = (
        "gpu_processes",
        "Others compute on the GPU (nvidia-smi shows them): stop them, or use another GPU by CUDA_VISIBLE_DEVICES. One "
        "that takes one process alone: sudo nvidia-smi --compute-mode=DEFAULT.",
    )


@dataclass(frozen=True)
class HostWarning:
    """Something that may disturb a measurement: what was found, and what to do about it."""

    kind: WarningKind
    text: str
    advice: str


Facts = Mapping[str, Any]


class Judge(NamedTuple):
    """A judgement.

    Attributes:
        fact: what must be known for it; of the GPU where it is about one.
        says: from that and all facts what is there, and whether that is wrong.
        unknown: what it says where the fact is not known.
    """

    fact: str
    says: Callable[[Any, Facts], tuple[str, bool]]
    unknown: str = UNKNOWN

    def __call__(self, facts: Facts) -> tuple[str, bool]:
        value = facts[self.fact]
        return (self.unknown, False) if value is None else self.says(value, facts)


def judged(
    host: Mapping[str, Any],
    packages: Mapping[str, str | None],
    devices: Sequence[str] = ("cpu",),
    threads: int | None = None,
) -> list[HostWarning]:
    """What every judgement found, worst offenders of timing first; ``advice`` is empty where nothing is wrong.

    Args:
        host: as returned by ``machine.describe_host`` (with ``watch_seconds``, so that load by others is measured),
            taken before the run's own work begins.
        threads: the largest number that a Case requests, where it is known.
    """
    builds = [name for name in ("onnxruntime", "onnxruntime-gpu") if packages.get(name)]
    # Where nobody watched, nothing is known of what happens now.
    now = Activity(**(host.get("activity") or {"duration_ns": 0}))
    known = (host.get("memory_available_bytes"), host.get("cgroup_memory_limit_bytes"))
    facts: Facts = defaultdict(
        lambda: None,
        {**(host.get("since_boot") or {}), **host, "nvidia": host.get("nvidia") or {}, "devices": devices}
        | {"threads": threads, "builds": builds, "now": now, "stall_share": now.memory_stall_share}
        | {"swapped_in": now.swap_in_pages, "memory": min((size for size in known if size is not None), default=None)},
    )
    said = {kind: judge(facts) for kind, judge in JUDGES.items()}
    return [HostWarning(kind, text, kind.advice if wrong else "") for kind, (text, wrong) in said.items()]


def warnings(
    host: Mapping[str, Any],
    packages: Mapping[str, str | None] | None = None,
    devices: Sequence[str] = ("cpu",),
    threads: int | None = None,
) -> list[HostWarning]:
    """Those of ``judged`` that found something wrong; installed packages are looked up where none are given."""
    found = judged(host, package_versions() if packages is None else packages, devices, threads)
    return [warning for warning in found if warning.advice]


def _load(now: Activity, facts: Facts) -> tuple[str, bool]:
    load, others = facts["load_1m"], now.cpu_by_others_cores
    said = [] if load is None else [f"{load:.2f} over the last minute on {facts['logical_cores'] or '?'} logical cores"]
    said += [] if others is None else [f"others keep {others:.2f} cores busy now"]
    # What was seen just now tells more than an average that still holds what has ended.
    busy = (load or 0.0) >= BUSY_LOAD if others is None else now.others_disturb
    return "; ".join(said) or UNKNOWN, busy


def _quota(quota: float, facts: Facts) -> tuple[str, bool]:
    cores = facts["logical_cores_allowed"]
    return f"a control group allows {quota:g} cores' worth of time, of {cores or '?'} cores", quota < (cores or 1e9)


def _cuda(nvidia: Mapping[str, Any], facts: Facts) -> tuple[str, bool]:
    if nvidia.get("gpus"):
        return f"driver {nvidia.get('driver')}", False
    return f"no GPU to use: {nvidia.get('reason') or UNKNOWN}", "cuda" in facts["devices"]


def _stopped(throttled_ns: int, facts: Facts) -> tuple[str, bool]:
    share = (facts["throttled_periods"] or 0) / max(1, facts["periods"] or 0)
    text = f"stopped for {throttled_ns / 1e9:.3g} s so far, in {100 * share:.3g} % of the quota's periods"
    return text, bool(facts["now"].throttled_ns) or share > THROTTLED_PERIODS_SHARE


def _steal(total: float, facts: Facts) -> tuple[str, bool]:
    now = facts["now"]
    text = f"{100 * total:.2g} % of CPU time went to other guests since boot"
    text += "" if now.steal_share is None else f", {100 * now.steal_share:.2g} % now"
    return text, max(total, now.steal_share_low or 0.0) >= STEAL_SHARE


def _heat(events: int, facts: Facts) -> tuple[str, bool]:
    uptime_s, now = facts["uptime_s"], bool(facts["now"].thermal_events)
    often = bool(uptime_s) and events * 3600 / uptime_s >= THERMAL_EVENTS_PER_HOUR
    return f"slowed down for heat {events} times since boot{', just now too' if now else ''}", now or often


def _swapping(_: int, facts: Facts) -> tuple[str, bool]:
    now = facts["now"]
    text = f"{now.swapped_pages} pages moved to or from swap in {now.duration_ns / 1e9:.2g} s"
    return text, now.swapped_pages >= SWAPPED_PAGES


def _builds(builds: Sequence[str], _: Facts) -> tuple[str, bool]:
    """Two builds harm each other in one folder only; in folders of their own the first of the path is imported."""
    there = [each for each in metadata.distributions() if each.metadata["Name"] in builds] if builds[1:] else []
    apart = 1 < len(builds) == len({str(each.locate_file("")) for each in there})
    text = f"builds of ONNX Runtime: {' and '.join(builds) or 'none'}"
    return text + ", in folders of their own" * apart, len(builds) > 1 and not apart


def _each_gpu(*judge: Any) -> Judge:
    """One sentence on each GPU; wrong where one of them is."""

    def says(nvidia: Mapping[str, Any], _: Facts) -> tuple[str, bool]:
        said = [Judge(*judge)(defaultdict(lambda: None, {**gpu, "": gpu})) for gpu in nvidia.get("gpus") or ()]
        text = "; ".join(f"GPU {index}: {text}" for index, (text, _) in enumerate(said))
        return text or "no GPU", any(wrong for _, wrong in said)

    return Judge("nvidia", says)


def _known(value: Any, unit: str = "") -> str:
    return "?" if value is None else f"{value:g}{unit}"


def _is_lowered(value: float | None, usual: float | None) -> bool:
    return value is not None and usual is not None and value < usual


def _gpu_clocks(_: Any, gpu: Facts) -> tuple[str, bool]:
    """Clocks of the multiprocessors, and application clocks that somebody has lowered."""
    set_to = gpu["sm_clock_set_mhz"]
    text = f"{_known(gpu['sm_clock_mhz'])} of at most {_known(gpu['sm_clock_max_mhz'], ' MHz')}"
    return f"{text}; set to {_known(set_to, ' MHz')}", _is_lowered(set_to, gpu["sm_clock_default_mhz"])


def _gpu_slow(reasons: Sequence[str], gpu: Facts) -> tuple[str, bool]:
    """What holds the clock now, and how hot the chip is."""
    text = f"{', '.join(reasons) or 'nothing'} holds the clock; {_known(gpu['temperature_c'], ' degrees C')}"
    return text, any(why in SLOW_DOWNS for why in reasons)


def _gpu_power(_: Any, gpu: Facts) -> tuple[str, bool]:
    """Power drawn, and a limit that is reached or was lowered."""
    limit, usual = gpu["power_limit_w"], gpu["power_limit_default_w"]
    text = f"{_known(gpu['power_w'], ' W')} of {_known(limit, ' W')}, by default {_known(usual, ' W')}"
    return text, POWER_CAP in (gpu["clock_reasons"] or ()) or _is_lowered(limit, usual)


def _gpu_processes(_: Any, gpu: Facts) -> tuple[str, bool]:
    """Whether others compute on it; before a run none of its processes are ours."""
    ids, alone = gpu["process_ids"], bool(gpu["compute_mode"])  # 0 is the default: it takes several
    text = "not known" if ids is None else f"{len(ids)} processes compute on it"
    return f"{text}, and it takes one at a time" if alone else text, bool(ids) or alone


JUDGES: Mapping[WarningKind, Judge] = {
    WarningKind.LOAD: Judge("now", _load),
    WarningKind.CGROUP_THROTTLING: Judge("throttled_ns", _stopped, "no control group counts it"),
    WarningKind.STEAL: Judge("steal_share", _steal),
    WarningKind.THERMAL_THROTTLING: Judge("thermal_events", _heat),
    WarningKind.MEMORY_PRESSURE: Judge(
        "stall_share",
        lambda share, _: (f"programs wait for memory {100 * share:.2g} % of the time", share >= MEMORY_STALL_SHARE),
    ),
    WarningKind.SWAPPING: Judge("swapped_in", _swapping),
    WarningKind.GPU_THROTTLING: _each_gpu("clock_reasons", _gpu_slow),
    WarningKind.GPU_PROCESSES: _each_gpu("", _gpu_processes),
    WarningKind.GPU_POWER_CAP: _each_gpu("", _gpu_power),
    WarningKind.GPU_CLOCKS: _each_gpu("", _gpu_clocks),
    WarningKind.GPU_EVENTS: _each_gpu(
        "confidential_computing", lambda on, _: (f"confidential computing is {'on' if on else 'off'}", on)
    ),
    WarningKind.GOVERNOR: Judge(
        "governor", lambda name, _: (f"the frequency governor is {name}", name != "performance")
    ),
    # Turbo alone is how most machines are used: it hurts where the clock is meant to be fixed.
    WarningKind.TURBO: Judge(
        "turbo", lambda on, facts: ("on" if on else "off", on and facts["governor"] == "performance")
    ),
    WarningKind.CPU_QUOTA: Judge("cgroup_cpu_quota", _quota, "no limit by a control group"),
    WarningKind.FEW_CORES: Judge(
        "logical_cores_allowed",
        lambda cores, _: (f"{cores} logical core{'s' if cores > 1 else ''} for this process", cores < 2),
    ),
    WarningKind.TOO_MANY_THREADS: Judge(
        "threads",
        lambda threads, facts: (
            f"{threads} threads on {facts['logical_cores_allowed'] or '?'} logical cores",
            threads > (facts["logical_cores_allowed"] or threads),
        ),
        "depends on --threads",
    ),
    WarningKind.LOW_MEMORY: Judge(
        "memory", lambda size, _: (f"{size / 1024**3:.1f} GiB to use", size < LOW_MEMORY_BYTES)
    ),
    WarningKind.SWAP: Judge(
        "swap_used_bytes", lambda used, _: (f"{used / 1024**2:.0f} MiB of swap in use", used >= SWAP_USED_BYTES)
    ),
    WarningKind.TWO_ONNXRUNTIMES: Judge("builds", _builds),
    WarningKind.NO_CUDA: Judge("nvidia", _cuda),
}
