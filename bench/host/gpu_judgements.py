"""Judgements on NVIDIA GPUs: what is known is said, and warned of only where it is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.host.gpu_state import POWER_CAP, SLOW_DOWNS
from bench.host.warning_kinds import ADVICE, Facts, Finding, WarningKind


def _each_gpu(
    facts: Facts,
    say: Callable[[Mapping[str, Any]], str],
    wrong: Callable[[Mapping[str, Any]], bool],
    advice: str,
) -> Finding:
    """One sentence on each GPU; the advice where one of them is wrong."""
    if not facts.gpus:
        return Finding("no GPU")
    text = "; ".join(f"GPU {index}: {say(gpu)}" for index, gpu in enumerate(facts.gpus))
    return Finding(text, advice if any(map(wrong, facts.gpus)) else "")


def _known(value: Any, unit: str = "") -> str:
    return "?" if value is None else f"{value:g}{unit}"


def _reasons(gpu: Mapping[str, Any]) -> Sequence[str]:
    return gpu.get("clock_reasons") or ()


def gpu_clocks(facts: Facts) -> Finding:
    """Clocks of the multiprocessors, and application clocks that somebody has lowered."""

    def say(gpu: Mapping[str, Any]) -> str:
        text = f"{_known(gpu.get('sm_clock_mhz'))} of at most {_known(gpu.get('sm_clock_max_mhz'), ' MHz')}"
        return f"{text}; set to {_known(gpu.get('sm_clock_set_mhz'), ' MHz')}"

    def lowered(gpu: Mapping[str, Any]) -> bool:
        set_to, usual = gpu.get("sm_clock_set_mhz"), gpu.get("sm_clock_default_mhz")
        return set_to is not None and usual is not None and set_to < usual

    advice = "The application clock is set below its default: sudo nvidia-smi --reset-applications-clocks."
    return _each_gpu(facts, say, lowered, advice)


def gpu_throttling(facts: Facts) -> Finding:
    """What holds the clock now, and how hot the chip is."""

    def say(gpu: Mapping[str, Any]) -> str:
        reasons = gpu.get("clock_reasons")
        why = (
            "why the clock is not higher is not known" if reasons is None else ", ".join(reasons) or "nothing"
        )
        return (
            f"{why} holds the clock; {_known(gpu.get('temperature_c'), ' degrees C')}"
            if reasons is not None
            else why
        )

    def slowed(gpu: Mapping[str, Any]) -> bool:
        return any(reason in SLOW_DOWNS for reason in _reasons(gpu))

    return _each_gpu(facts, say, slowed, ADVICE[WarningKind.GPU_THROTTLING])


def gpu_power_cap(facts: Facts) -> Finding:
    """Power drawn, and a limit that is reached or was lowered."""

    def say(gpu: Mapping[str, Any]) -> str:
        usual = _known(gpu.get("power_limit_default_w"), " W")
        return f"{_known(gpu.get('power_w'), ' W')} of {_known(gpu.get('power_limit_w'), ' W')}, by default {usual}"

    def capped(gpu: Mapping[str, Any]) -> bool:
        limit, usual = gpu.get("power_limit_w"), gpu.get("power_limit_default_w")
        return POWER_CAP in _reasons(gpu) or (limit is not None and usual is not None and limit < usual)

    return _each_gpu(facts, say, capped, ADVICE[WarningKind.GPU_POWER_CAP])


def gpu_processes(facts: Facts) -> Finding:
    """Whether others compute on it; before a run none of its processes are ours."""

    def say(gpu: Mapping[str, Any]) -> str:
        ids = gpu.get("process_ids")
        return "not known" if ids is None else f"{len(ids)} processes compute on it"

    return _each_gpu(facts, say, lambda gpu: bool(gpu.get("process_ids")), ADVICE[WarningKind.GPU_PROCESSES])
