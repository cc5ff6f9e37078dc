"""Energy that the processor's packages used, from the counters that RAPL keeps.

Linux shows them under ``/sys/class/powercap/intel-rapl:N`` (also on AMD). Since a fault that let programs read secrets
out of them (CVE-2020-8694) only root may read them, and most virtual machines have none: then there is a reason
instead of a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """The packages' counters, or why there are none.

    Attributes:
        counters: by the file of each (``energy_uj``, microjoules since some time) the largest value, after which it
            starts again at 0.
        reason: why there are none; empty where there are.
    """

    counters: Mapping[Path, int]
    reason: str = ""

    def read(self) -> dict[Path, int]:
        """Microjoules of each counter; a counter that cannot be read any more is left out."""
        found = {}
        for path in self.counters:
            with suppress(OSError, ValueError):
                found[path] = int(path.read_text())
        return found

    def joules(self, before: Mapping[Path, int], after: Mapping[Path, int]) -> float:
        """Energy between two readings less than one wrap apart, all packages together, in joules."""
        used = 0
        for path in before.keys() & after.keys():
            step = after[path] - before[path]
            used += step if step >= 0 else step + self.counters[path]
        return used / 1e6


def open_meter(root: Path = POWERCAP) -> Meter:
    """The counters of this machine's packages (not of their parts, which are contained in them)."""
    zones = sorted(zone for zone in root.glob("intel-rapl:*") if zone.name.count(":") == 1)
    if not zones:
        return Meter({}, "this machine shows no RAPL counters")
    counters = {}
    for zone in zones:
        path = zone / "energy_uj"
        try:
            path.read_text()
            counters[path] = int((zone / "max_energy_range_uj").read_text())
        except PermissionError:
            return Meter({}, f"{path} may only be read by root")
        except (OSError, ValueError) as error:
            return Meter({}, f"{path} cannot be read: {error}")
    return Meter(counters)
