"""What disturbed the rounds of a run: each round is looked at from outside, and marked where something struck it.

The monitor reads the system's counters between rounds, never inside a slice that is timed. A mark removes nothing:
samples of a disturbed round stay in the files, and readers decide what to make of them.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.host import counters
from bench.host.counters import ROOT, Activity, Counters, Reader
from bench.host.gpu_state import POWER_CAP, SLOW_DOWNS, Gpu, other_processes, used_gpu
from bench.host.judgements import HostWarning, WarningKind

# What can mark a round, worst first, and how the summary of a run puts it.
DISTURBANCES: Mapping[WarningKind, str] = {
    WarningKind.CGROUP_THROTTLING: "the CPU quota of a control group",
    WarningKind.THERMAL_THROTTLING: "slow-downs of the processor for heat",
    WarningKind.GPU_THROTTLING: "slow-downs of the GPU for heat or supply",
    WarningKind.GPU_POWER_CAP: "the power cap of the GPU",
    WarningKind.GPU_PROCESSES: "other processes on the GPU",
    WarningKind.STEAL: "other guests of the hypervisor",
    WarningKind.LOAD: "other processes",
    WarningKind.SWAPPING: "swapping",
    WarningKind.MEMORY_PRESSURE: "shortage of memory",
}


@dataclass(frozen=True)
class RoundState:
    """What happened during one round.

    Attributes:
        scenario: of the group of Cases that took turns; each group numbers its rounds from 0.
        duration_ns: from the end of the round before, so that nothing falls between two rounds.
        figures: by the column of ``rounds.parquet``; what the system does not tell is None or not there. Those of
            ``counters.Activity``, with ``cpu_mhz``, the clock at the end of the round, when cores may be idle already;
            of the GPU, at the end likewise, ``gpu_sm_clock_mhz``, ``gpu_clock_reasons``, ``gpu_temperature_c`` and
            ``gpu_power_w``; how long heat and the power cap held its clock down in the round, ``gpu_thermal_ns`` and
            ``gpu_power_cap_ns``; and ``gpu_other_processes``.
        reasons: what marks the round, worst first.
    """

    scenario: str
    round: int
    duration_ns: int
    figures: Mapping[str, Any] = field(default_factory=dict)
    reasons: tuple[WarningKind, ...] = ()

    @property
    def disturbed(self) -> bool:
        """At least one figure reached its threshold."""
        return bool(self.reasons)

    def to_row(self) -> dict[str, Any]:
        """A row of ``rounds.parquet``: plain values by column name; those that are not known may be absent."""
        reason = ",".join(reason.value for reason in self.reasons)
        own = {"scenario": self.scenario, "round": self.round, "duration_ns": self.duration_ns}
        return {**self.figures, **own, "reason": reason, "disturbed": self.disturbed}


class Monitor(AbstractContextManager["Monitor"]):
    """Looks at the system between rounds. A look took 0.2 ms on a machine of 2 cores without a GPU.

    Args:
        own_pids: ids of this process and its workers, asked at every look; what they burn is no disturbance.
        gpu: the GPU that Cases run on (``open_gpu``), or None to look at none. It is closed with the monitor.
    """

    def __init__(
        self,
        own_pids: Callable[[], Iterable[int]] = lambda: (os.getpid(),),
        root: Path = ROOT,
        gpu: Gpu | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        cpu_ns_of: Callable[[int], int | None] = counters.process_cpu_ns,
    ) -> None:
        self._own_pids, self._gpu = own_pids, gpu
        self._reader = Reader(root, own_pids, clock_ns, cpu_ns_of)
        self._scenario = ""
        self._before: tuple[Counters, Mapping[str, Any]] | None = None

    def __exit__(self, *raised: object) -> None:
        if self._gpu is not None:
            self._gpu.close()
            self._gpu = None

    def begin(self, scenario: str) -> None:
        """The first round of a group is about to start."""
        self._scenario, self._before = scenario, self._look()

    def end_of_round(self, round_: int) -> RoundState:
        """What happened since ``begin``, which is called first, or the round before."""
        assert self._before is not None
        before, self._before = self._before, self._look()
        activity = counters.between(before[0], self._before[0])
        return _round_state(self._scenario, round_, activity, before[1], self._before[1], tuple(self._own_pids()))

    def _look(self) -> tuple[Counters, Mapping[str, Any]]:
        return self._reader.read(), {} if self._gpu is None else self._gpu.read()


def open_gpu(devices: Iterable[str]) -> Gpu | None:
    """The GPU to watch where a device of the run is one, or None where there is none or it cannot be asked."""
    if "cuda" not in devices:
        return None
    try:
        return Gpu(used_gpu())
    except LookupError:  # doctor and the host's warnings say why
        return None


def _round_state(
    scenario: str,
    round_: int,
    activity: Activity,
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    own_pids: Sequence[int],
) -> RoundState:
    thermal_ns, power_ns = (counters.rise(before.get(name), after.get(name)) for name in ("thermal_ns", "power_ns"))
    others = other_processes(after.get("process_ids"), own_pids)
    gpu_reasons = after.get("clock_reasons")
    struck = {
        WarningKind.CGROUP_THROTTLING: bool(activity.throttled_ns),
        WarningKind.THERMAL_THROTTLING: bool(activity.thermal_events),
        # The counters tell of the whole round, the reasons of its last moment; not every GPU has the former.
        WarningKind.GPU_THROTTLING: bool(thermal_ns) or any(why in SLOW_DOWNS for why in gpu_reasons or ()),
        WarningKind.GPU_POWER_CAP: bool(power_ns) or POWER_CAP in (gpu_reasons or ()),
        WarningKind.GPU_PROCESSES: bool(others),
        WarningKind.STEAL: (activity.steal_share_low or 0.0) >= counters.STEAL_SHARE,
        WarningKind.LOAD: activity.others_disturb,
        WarningKind.SWAPPING: activity.swapped_pages >= counters.SWAPPED_PAGES,
        WarningKind.MEMORY_PRESSURE: (activity.memory_stall_share or 0.0) >= counters.MEMORY_STALL_SHARE,
    }
    figures = {
        **asdict(activity),
        **{f"gpu_{name}": after.get(name) for name in ("sm_clock_mhz", "temperature_c", "power_w")},
        "gpu_clock_reasons": None if gpu_reasons is None else ",".join(gpu_reasons),
        "gpu_thermal_ns": thermal_ns,
        "gpu_power_cap_ns": power_ns,
        "gpu_other_processes": others,
    }
    reasons = tuple(kind for kind in DISTURBANCES if struck[kind])
    return RoundState(scenario, round_, activity.duration_ns, figures, reasons)


def summary(states: Iterable[RoundState]) -> list[HostWarning]:
    """Warnings for a run's report: one for each kind of disturbance that struck, worst first.

    For example "12 of 40 rounds were disturbed by other processes (up to 1.4 cores busy)".
    """
    seen = list(states)
    struck = Counter(reason for state in seen for reason in state.reasons)
    return [
        HostWarning(
            kind, f"{struck[kind]} of {len(seen)} rounds were disturbed by {words}{_extent(kind, seen)}", kind.advice
        )
        for kind, words in DISTURBANCES.items()
        if struck[kind]
    ]


# The figure of a round that tells how much of a disturbance there was.
_EXTENTS = {
    WarningKind.LOAD: ("cpu_by_others_cores", "up to {:.2g} cores busy"),
    WarningKind.STEAL: ("steal_share", "up to {:.0%} of CPU time"),
    WarningKind.MEMORY_PRESSURE: ("memory_stall_share", "up to {:.0%} of a round"),
    WarningKind.GPU_THROTTLING: ("gpu_temperature_c", "up to {:.0f} degrees C"),
}


def _extent(kind: WarningKind, states: Sequence[RoundState]) -> str:
    """The worst round's figure, where there is one that says something."""
    name, words = _EXTENTS.get(kind, ("", ""))
    worst = max((value for state in states if (value := state.figures.get(name)) is not None), default=None)
    return "" if worst is None else f" ({words.format(worst)})"
