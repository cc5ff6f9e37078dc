"""What a Case takes besides time: the size of its model's file, and energy where the machine tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.backends import runs_module
from bench.backends.base import ModelFiles
from bench.backends.graphs import wanted_by
from bench.host import energy
from bench.record.case import Case


def model_file_bytes(case: Case, files: ModelFiles) -> int | None:
    """Bytes of the file that a Case's backend loads, with its weights where they lie beside it; None where unknown."""
    wanted = wanted_by(case)
    path = files.typed.get(wanted.key, {}).get("path") if wanted else None
    if path is None:
        path = files.state if runs_module(case.backend) else files.onnx
    if not path or not Path(path).exists():
        return None
    graph = Path(path)
    beside = (graph.with_suffix(".bin"), graph.with_name(f"{graph.name}.data"))
    weights = (other for other in beside if other.exists() and other != graph)
    return graph.stat().st_size + sum(other.stat().st_size for other in weights)


@dataclass
class EnergyAccount:
    """Energy of a latency Case's measuring turns, and the images of those turns.

    RAPL counts whole packages: what everything on the machine takes while the Case has its turn, idle power included.
    Other workers sleep then; other programs are counted in, as they are in a time. A turn lasts 50 ms or more, and the
    counters are renewed every millisecond. A Case on a GPU has the GPU's own energy instead, whose counter is renewed
    every 20 to 100 ms: of one turn it tells little, of all of them the sum.
    """

    meter: energy.Meter
    joules: float = 0.0
    images: int = 0

    @classmethod
    def open(cls, device: str = "cpu") -> EnergyAccount:
        """An account on this machine's counters, or on its GPU's."""
        return cls(energy.open_gpu_meter() if device == "cuda" else energy.open_meter())

    def metrics(self) -> dict[str, Any]:
        """``energy_joules_per_image``, or ``energy_reason`` where there is none."""
        if self.meter.reason:
            return {"energy_reason": self.meter.reason}
        if not self.images:
            return {"energy_reason": "energy is measured in latency Cases"}
        return {"energy_joules_per_image": self.joules / self.images}
