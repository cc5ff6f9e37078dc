"""Energy that the processor's packages used, from the counters that RAPL keeps, or that a GPU used, by its own.

Linux shows them under ``/sys/class/powercap/intel-rapl:N`` (also on AMD). Since a fault that let programs read secrets
out of them (CVE-2020-8694) only root may read them, and most virtual machines have none: then there is a reason
instead of a figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench.host.gpu_state import Gpu, used_gpu

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """Counters of energy, or why there are none.

    Attributes:
        readers: of each counter what tells its value; None, OSError or ValueError where it cannot any more.
        joules_per_step: what a value counts in.
        wraps: by counter the largest value, after which it starts again at 0.
    """

    reason: str = ""
    readers: Mapping[str, Callable[[], int | str | None]] = field(default_factory=dict)
    joules_per_step: float = 1e-6
    wraps: Mapping[str, int] = field(default_factory=dict)

    def read(self) -> dict[str, int]:
        """What each counter shows now; one that cannot be read any more is left out."""
        shown = {}
        for name, reader in self.readers.items():
            with suppress(OSError, ValueError, TypeError):
                shown[name] = int(reader())  # type: ignore[arg-type]
        return shown

    def joules(self, before: Mapping[str, int], after: Mapping[str, int]) -> float:
        """Energy between two readings less than one wrap apart, all counters together, in joules."""
        steps = {name: after[name] - before[name] for name in before.keys() & after.keys()}
        whole = sum(step if step >= 0 else step + self.wraps.get(name, 0) for name, step in steps.items())
        return whole * self.joules_per_step


def open_gpu_meter() -> Meter:
    """The GPU's own counter, in millijoules: the whole board, without the processor that feeds it."""
    try:
        meter = Meter("", {"gpu": Gpu(used_gpu()).energy_mj}, 1e-3)
    except LookupError as missing:
        return Meter(str(missing))
    return meter if meter.read() else Meter("the GPU does not tell its energy")


def open_meter(root: Path = POWERCAP) -> Meter:
    """The counters of this machine's packages (not of their parts, which are contained in them), in microjoules."""
    wraps = {}
    for zone in root.glob("intel-rapl:*"):
        path = zone / "energy_uj"
        try:
            if zone.name.count(":") == 1:
                path.read_text()
                wraps[str(path)] = int((zone / "max_energy_range_uj").read_text())
        except PermissionError:
            return Meter(f"{path} may only be read by root")
        except (OSError, ValueError) as error:
            return Meter(f"{path} cannot be read: {error}")
    readers = {name: Path(name).read_text for name in wraps}
    return Meter("" if wraps else "this machine shows no RAPL counters", readers, wraps=wraps)
