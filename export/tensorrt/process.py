"""Builds a TensorRT plan in a process of its own, so that a builder that crashes ends no worker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from export.tensorrt.package import TensorRtUnavailable
from export.tensorrt.plan import PlanSpec, write_plan
from scarlet.errors import BenchError

PROGRAM = "from export.tensorrt.process import main; main()"


def in_own_process(spec: PlanSpec, target: Path, timing: Path | None) -> dict[str, Any]:
    """``write_plan`` in a new process, which ends with this one's process group.

    Raises:
        BenchError: what ``write_plan`` raises, or the process died.
        TensorRtUnavailable: as of ``write_plan``.
        MemoryError: as of ``write_plan``.
    """
    request = {"spec": asdict(spec), "target": str(target), "timing": None if timing is None else str(timing)}
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(request),
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        raise BenchError(
            f"the process that builds TensorRT's plan {_ending(done.returncode)}",
            "Its messages are in the Case's log.",
        )
    answer: dict[str, Any] = json.loads(done.stdout)
    if "facts" in answer:
        facts: dict[str, Any] = answer["facts"]
        return facts
    if answer["kind"] == "mistake":
        raise BenchError(answer["what"], answer["do"])
    raise {"unavailable": TensorRtUnavailable, "memory": MemoryError}[answer["kind"]](answer["what"])


def _ending(returncode: int) -> str:
    if returncode > 0:
        return f"ended with exit code {returncode}"
    try:
        return f"was killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was killed by signal {-returncode}"


def main() -> None:
    """Reads one request from stdin, and answers on stdout; what libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)
        answer.write(json.dumps(answered(json.load(sys.stdin))))
    # Libraries of the GPU sometimes crash while the interpreter takes itself apart; the plan is written by now.
    os._exit(0)


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """``{"facts": ...}``, or what kind of error it was and its text."""
    timing = request["timing"]
    try:
        facts = write_plan(
            PlanSpec(**request["spec"]), Path(request["target"]), None if timing is None else Path(timing)
        )
        return {"facts": facts}
    except BenchError as mistake:
        return {"kind": "mistake", "what": mistake.what, "do": mistake.do}
    except TensorRtUnavailable as missing:
        return {"kind": "unavailable", "what": str(missing)}
    except MemoryError as shortage:
        return {"kind": "memory", "what": str(shortage)}
