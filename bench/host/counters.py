"""The system's own counters of what took time away: read twice, and the difference says what happened between.

Everything comes from small files under ``root`` (``/``; tests give a made-up tree), each read in one go, so that
a look costs a fraction of a millisecond and may stand between two rounds of a measurement. What a system does not
tell is None, never a guess; a missing file is no error (macOS has none of them).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/")

NS = 1_000_000_000

# The kernel writes CPU times in ticks of this length, whatever it counts in inside: proc_stat(5).
TICK_NS = NS // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)

# What the counters of a CPU quota are called in a control group's cpu.stat.
_THROTTLING = {"throttled_ns": "throttled_time", "throttled_periods": "nr_throttled", "periods": "nr_periods"}

# More would cost more than the figure is worth: it is reported and never judged.
MAX_CLOCKS_READ = 8

# Others that keep a quarter of a core busy take it from us on two cores every few slices; on large machines they
# find cores of their own, and matter once they take a twentieth of all (turbo, memory bandwidth).
OTHERS_CORES, OTHERS_SHARE = 0.25, 0.05
# Time that a hypervisor gave to other guests, as a share of all CPU time: 2 % is beyond the 1 % to which medians
# are measured.
STEAL_SHARE = 0.02
# Share of the time in which at least one task waited for memory (PSI "some"); a machine with enough has 0.
MEMORY_STALL_SHARE = 0.01
# 1 MiB of 4 KiB pages: less is the kernel tidying up.
SWAPPED_PAGES = 256


@dataclass(frozen=True)
class Counters:
    """One look at the counters.

    Attributes:
        counts: what rises since boot, by name; one that the system does not tell is not there. ``idle_ns``,
            ``stolen_ns`` and ``busy_ns`` (neither of them) of all CPUs together, in whole ticks; ``throttled_ns``, how
            long control groups have stopped this process for its CPU quota, in ``throttled_periods`` of ``periods``;
            ``thermal_events``, how often cores and packages have slowed down for heat; ``memory_stall_ns``, how long at
            least one task has waited for memory; ``swap_in_pages`` and ``swap_out_pages``.
        own_ns: CPU time of our processes, by process id.
        cpu_mhz: median clock of some of the cores, now.
    """

    at_ns: int
    counts: Mapping[str, int]
    own_ns: Mapping[int, int] = field(default_factory=dict)
    cpus: int | None = None
    cpu_mhz: float | None = None


@dataclass(frozen=True)
class Activity:
    """What happened between two looks; None where the system does not tell.

    Attributes:
        cpu_by_others_cores: CPU time of everything but our processes, in cores kept busy.
        cpu_by_others_cores_low: the same at the least: the kernel's counters are whole ticks, which over short
            times leaves room for error. Judge by this one.
        steal_share, steal_share_low: stolen time as a share of the time of all CPUs, likewise.
        memory_stall_share: share of the time in which at least one task waited for memory.
    """

    duration_ns: int
    cpu_by_others_cores: float | None = None
    cpu_by_others_cores_low: float | None = None
    steal_share: float | None = None
    steal_share_low: float | None = None
    throttled_ns: int | None = None
    thermal_events: int | None = None
    memory_stall_share: float | None = None
    swap_in_pages: int | None = None
    swap_out_pages: int | None = None
    cpu_mhz: float | None = None
    cpus: int | None = None

    @property
    def others_disturb(self) -> bool:
        """Other processes took enough CPU time to show in a measurement."""
        limit = max(OTHERS_CORES, OTHERS_SHARE * (self.cpus or 0))
        return (self.cpu_by_others_cores_low or 0.0) >= limit

    @property
    def swapped_pages(self) -> int:
        """Pages moved in either direction."""
        return (self.swap_in_pages or 0) + (self.swap_out_pages or 0)


def between(before: Counters, after: Counters) -> Activity:
    """What happened from one look to the next."""
    duration_ns = max(1, after.at_ns - before.at_ns)
    rose = {name: rise(before.counts.get(name), count) for name, count in after.counts.items()}
    own_ns = sum(spent - before.own_ns.get(pid, 0) for pid, spent in after.own_ns.items())
    idle_ns, stolen_ns, stall_ns = (rose.get(name) for name in ("idle_ns", "stolen_ns", "memory_stall_ns"))
    shares: dict[str, float] = {}
    if after.cpus and idle_ns is not None and stolen_ns is not None:
        # Busy time as what was not idle: the kernel knows idle time exactly, and busy time only by looking who runs
        # at each timer interrupt.
        capacity_ns = after.cpus * duration_ns
        others_ns = max(0, capacity_ns - idle_ns - stolen_ns - own_ns)
        shares = {
            "cpu_by_others_cores": others_ns / duration_ns,
            "cpu_by_others_cores_low": max(0, others_ns - 2 * TICK_NS) / duration_ns,
            "steal_share": stolen_ns / capacity_ns,
            "steal_share_low": max(0, stolen_ns - TICK_NS) / capacity_ns,
        }
    return Activity(
        duration_ns=duration_ns,
        **shares,
        memory_stall_share=None if stall_ns is None else stall_ns / duration_ns,
        throttled_ns=rose.get("throttled_ns"),
        thermal_events=rose.get("thermal_events"),
        swap_in_pages=rose.get("swap_in_pages"),
        swap_out_pages=rose.get("swap_out_pages"),
        cpu_mhz=after.cpu_mhz,
        cpus=after.cpus,
    )


def rise(before: int | None, after: int | None) -> int | None:
    """How much a counter rose. A kernel's idle time may fall by a tick now and then: that is 0."""
    return None if before is None or after is None else max(0, after - before)


def process_cpu_ns(pid: int) -> int | None:
    """CPU time of a process and all its threads so far, exact to the nanosecond; None where it cannot be told.

    Linux gives every process a clock whose id is made from its process id, ``(~pid << 3) | 2``: see
    clock_getcpuclockid(3) and the kernel's posix-timers.h.
    """
    if sys.platform != "linux":
        return None
    with suppress(OSError):  # the process has ended
        return time.clock_gettime_ns((~pid << 3) | 2)
    return None


class Reader:
    """Looks at the counters of the system under ``root``; ``own_pids``: ids of our processes, asked at every look."""

    def __init__(
        self,
        root: Path = ROOT,
        own_pids: Callable[[], Iterable[int]] = lambda: (os.getpid(),),
        clock_ns: Callable[[], int] = time.monotonic_ns,
        cpu_ns_of: Callable[[int], int | None] = process_cpu_ns,
    ) -> None:
        self._own_pids, self._clock_ns, self._cpu_ns_of = own_pids, clock_ns, cpu_ns_of
        self._stat, self._vmstat = root / "proc/stat", root / "proc/vmstat"
        self._pressure = root / "proc/pressure/memory"
        self._throttling = [
            folder / "cpu.stat"
            for folder in dict.fromkeys(cgroup_folders(root, "cpu"))
            if (folder / "cpu.stat").exists()
        ]
        cpus = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*"))
        self._thermal = list(_thermal_files(cpus))
        clocks = [path for cpu in cpus if (path := cpu / "cpufreq/scaling_cur_freq").exists()]
        self._clocks = clocks[:: max(1, len(clocks) // MAX_CLOCKS_READ)][:MAX_CLOCKS_READ]

    def read(self) -> Counters:
        """One look."""
        at_ns, counts = self._clock_ns(), _stat(self._stat)
        own = {pid: spent for pid in set(self._own_pids()) if (spent := self._cpu_ns_of(pid)) is not None}
        # Each level of control groups counts what its own quota did: the largest counts. Version 1 counts in ns.
        for fields in map(_fields, self._throttling):
            if "throttled_usec" in fields:
                fields["throttled_time"] = fields["throttled_usec"] * 1000
            for name, key in _THROTTLING.items():
                if key in fields:
                    counts[name] = max(counts.get(name, 0), fields[key])
        if thermal := [count for path in self._thermal if (count := _whole(read_text(path))) is not None]:
            counts["thermal_events"] = sum(thermal)
        # ``total`` of the line ``some``, in microseconds: the kernel's accounting/psi document.
        stall = _whole(keyed_lines(self._pressure, " ").get("some", "").rpartition("total=")[2])
        counts |= {} if stall is None else {"memory_stall_ns": stall * 1000}
        pages = _fields(self._vmstat)
        counts |= {f"swap_{way}_pages": pages[f"pswp{way}"] for way in ("in", "out") if f"pswp{way}" in pages}
        clocks = sorted(khz for path in self._clocks if (khz := _whole(read_text(path))) is not None)
        cpu_mhz = clocks[len(clocks) // 2] / 1000 if clocks else None
        return Counters(at_ns, counts, own, counts.pop("cpus", None), cpu_mhz)


def watch(root: Path = ROOT, seconds: float = 0.5) -> tuple[Counters, Activity]:
    """Looks twice, some time apart: the counters since boot, and what happened meanwhile.

    Half a second holds 50 of the kernel's ticks on every CPU: load by others is known to about 0.04 cores.
    """
    reader = Reader(root)
    before = reader.read()
    time.sleep(seconds)
    after = reader.read()
    return after, between(before, after)


def cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Folders that hold this process's limits, from its own control group up to the hierarchy's root.

    ``/proc/self/cgroup`` has a line ``id:controllers:path`` for each hierarchy; version 2 is the one with id
    0 and no controllers. In a container the path may be one of the host's that does not exist here: then only
    the mount's root is left to look at. See cgroups(7).
    """
    mount = root / "sys/fs/cgroup"
    for line in (read_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        base = mount / controllers if (mount / controllers).is_dir() else mount / controller
        own = Path(path.lstrip("/")) if ".." not in path else Path()
        for folder in (own, *own.parents):
            yield (base if controllers else mount) / folder


def read_text(path: Path) -> str | None:
    """A file's text; opened without Python's buffers, which would double the cost of so small a file."""
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            # One read may end early (the kernel gives these files out a page at a time).
            pieces = iter(lambda: os.read(descriptor, 1 << 16), b"")
            return b"".join(pieces).decode("utf-8", "replace")
        finally:
            os.close(descriptor)
    return None


def keyed_lines(path: Path, separator: str = ":") -> dict[str, str]:
    """Lines of a key and a value; of a key that comes again the first; none where there is no such file."""
    found: dict[str, str] = {}
    for line in (read_text(path) or "").splitlines():
        key, _, value = line.partition(separator)
        found.setdefault(key.strip(), value.strip())
    return found


def _whole(text: str | None) -> int | None:
    with suppress(ValueError, TypeError):
        return int(text or "")
    return None


def _fields(path: Path) -> dict[str, int]:
    """Lines of ``name number``."""
    pairs = keyed_lines(path, " ").items()
    return {name: number for name, text in pairs if (number := _whole(text)) is not None}


def _stat(path: Path) -> dict[str, int]:
    """Times of all CPUs together, and their number: proc_stat(5)."""
    text = read_text(path) or ""
    times = [_whole(word) for word in text.partition("\n")[0].split()[1:9]]
    known = [ticks * TICK_NS for ticks in times if ticks is not None]
    if not text.startswith("cpu ") or len(known) < 8:
        return {}
    user, nice, system, idle, io_wait, irq, soft_irq, stolen = known
    return {
        "cpus": text.count("\ncpu"),
        "idle_ns": idle + io_wait,
        "stolen_ns": stolen,
        "busy_ns": user + nice + system + irq + soft_irq,
    }


def _thermal_files(cpus: Iterable[Path]) -> Iterator[Path]:
    """Counters of slow-downs for heat, one for each core and one for each package (siblings repeat them)."""
    seen = set()
    for cpu in cpus:
        package = read_text(cpu / "topology/physical_package_id") or ""
        core = read_text(cpu / "topology/core_id") or cpu.name
        for name, place in (("core", (package, core)), ("package", (package,))):
            path = cpu / "thermal_throttle" / f"{name}_throttle_count"
            if (name, place) not in seen and path.exists():
                seen.add((name, place))
                yield path
