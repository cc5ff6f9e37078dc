"""Energy that the processor's packages used, from the counters that RAPL keeps, or that a GPU used, by its own.

Linux shows them under ``/sys/class/powercap/intel-rapl:N`` (also on AMD). Since a fault that let programs read secrets
out of them (CVE-2020-8694) only root may read them, and most virtual machines have none: then there is a reason
instead of a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bench.host.gpu_state import Gpu, used_gpu

POWERCAP = Path("/sys/class/powercap")


class Meter(Protocol):
    """Something that counts energy."""

    @property
    def reason(self) -> str:
        """Why it cannot; empty where it can."""
        ...

    def read(self) -> Mapping[object, int]:
        """What each counter shows now; one that cannot be read any more is left out."""
        ...

    def joules(self, before: Mapping[object, int], after: Mapping[object, int]) -> float:
        """Energy between two readings, in joules."""
        ...


class GpuMeter:
    """The GPU's own counter: the whole board, without the processor that feeds it."""

    def __init__(self) -> None:
        self._gpu: Gpu | None = None
        try:
            self._gpu = Gpu(used_gpu())
            self.reason = "" if self.read() else "the GPU does not tell its energy"
        except LookupError as missing:
            self.reason = str(missing)

    def read(self) -> Mapping[object, int]:
        """Millijoules since the driver was loaded."""
        energy = None if self._gpu is None else self._gpu.energy_mj()
        return {} if energy is None else {"gpu": energy}

    def joules(self, before: Mapping[object, int], after: Mapping[object, int]) -> float:
        return (after["gpu"] - before["gpu"]) / 1e3 if before and after else 0.0


@dataclass(frozen=True)
class PackageMeter:
    """The packages' counters, or why there are none.

    Attributes:
        counters: by the file of each (``energy_uj``, microjoules since some time) the largest value, after which it
            starts again at 0.
    """

    counters: Mapping[Path, int]
    reason: str = ""

    def read(self) -> Mapping[object, int]:
        """Microjoules of each counter."""
        found: dict[object, int] = {}
        for path in self.counters:
            with suppress(OSError, ValueError):
                found[path] = int(path.read_text())
        return found

    def joules(self, before: Mapping[object, int], after: Mapping[object, int]) -> float:
        """Energy between two readings less than one wrap apart, all packages together, in joules."""
        used = 0
        for path, wrap in self.counters.items():
            if path in before and path in after:
                step = after[path] - before[path]
                used += step if step >= 0 else step + wrap
        return used / 1e6


def open_meter(root: Path = POWERCAP) -> PackageMeter:
    """The counters of this machine's packages (not of their parts, which are contained in them)."""
    zones = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)
    if not zones:
        return PackageMeter({}, "this machine shows no RAPL counters")
    counters = {}
    for zone in zones:
        path = zone / "energy_uj"
        try:
            path.read_text()
            counters[path] = int((zone / "max_energy_range_uj").read_text())
        except PermissionError:
            return PackageMeter({}, f"{path} may only be read by root")
        except (OSError, ValueError) as error:
            return PackageMeter({}, f"{path} cannot be read: {error}")
    return PackageMeter(counters)
