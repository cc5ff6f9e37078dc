"""Which GPU a check runs on, asked of PyTorch in a process of its own: this one takes no memory of the GPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date

from bench.record.files import one_line
from scarlet.errors import BenchError

PROGRAM = """
import json, torch
facts = {"torch": torch.__version__, "cuda": torch.version.cuda}
if torch.cuda.is_available():
    facts["name"] = torch.cuda.get_device_name(0)
    facts["capability"] = ".".join(map(str, torch.cuda.get_device_capability(0)))
print(json.dumps(facts))
"""
TIMEOUT_SECONDS = 120.0
DO = "Run it on a machine with an NVIDIA GPU and a CUDA build of PyTorch; docs/gpu.md says how, also without a network."


@dataclass(frozen=True)
class GpuMachine:
    """The GPU, and the PyTorch that found it.

    Attributes:
        name: as NVIDIA calls it.
        capability: compute capability, such as ``9.0``.
        torch: PyTorch's version.
        cuda: the CUDA version that it is built for.
    """

    name: str
    capability: str
    torch: str
    cuda: str


def find(ask: Callable[[Sequence[str]], subprocess.CompletedProcess[str]] | None = None) -> GpuMachine:
    """The first GPU that PyTorch can use.

    Args:
        ask: runs a command and gives what it printed.

    Raises:
        BenchError: there is none; one line of why, one of what to do.
    """
    answer = (ask or _ask)([sys.executable, "-c", PROGRAM])
    if answer.returncode:
        said = one_line(answer.stderr.strip().rpartition("\n")[2])
        raise BenchError(f"there is no GPU to check: PyTorch cannot be asked ({said})", DO)
    facts = json.loads(answer.stdout.strip().rpartition("\n")[2])
    if facts["cuda"] is None:
        raise BenchError(f"there is no GPU to check: this PyTorch ({facts['torch']}) is a CPU build", DO)
    if "name" not in facts:
        raise BenchError("there is no GPU to check: PyTorch sees no CUDA device", DO)
    return GpuMachine(facts["name"], facts["capability"], facts["torch"], facts["cuda"])


def _ask(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)


def folder_name(machine: GpuMachine, day: date) -> str:
    """``<gpu>-<date>`` in letters, digits and dashes, such as ``nvidia-h200-2026-11-22``."""
    name = re.sub(r"[^a-z0-9]+", "-", machine.name.lower()).strip("-")
    return f"{name or 'gpu'}-{day.isoformat()}"
