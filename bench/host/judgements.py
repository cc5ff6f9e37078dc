"""What was found wrong with a machine: one judgement for each kind of warning.

A judgement is a function of the facts that says what it found, and what to do where that is wrong. Facts that are not
known never warn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from bench.host import gpu_judgements
from bench.host.counters import MEMORY_STALL_SHARE, STEAL_SHARE, SWAPPED_PAGES
from bench.host.warning_kinds import ADVICE, UNKNOWN, Facts, Finding, WarningKind

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
    advice = (
        "The system shares the only core with the measurement: expect wide intervals, give a larger --budget."
    )
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
    return Finding(
        text, f"Threads will wait for one another: use --threads {cores}." if threads > cores else ""
    )


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
    return Finding(
        text, ADVICE[WarningKind.CGROUP_THROTTLING] if now or share > THROTTLED_PERIODS_SHARE else ""
    )


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
    WarningKind.GPU_THROTTLING: gpu_judgements.gpu_throttling,
    WarningKind.GPU_PROCESSES: gpu_judgements.gpu_processes,
    WarningKind.GPU_POWER_CAP: gpu_judgements.gpu_power_cap,
    WarningKind.GPU_CLOCKS: gpu_judgements.gpu_clocks,
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
