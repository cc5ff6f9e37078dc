"""TensorRT plans in the artefact store, each built in a process of its own: a builder that crashes ends no worker.

A plan fits one version of TensorRT and one kind of GPU, so both are in its key.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from export.store import Artefact, Store, artefact_key
from export.tensorrt.builder import PlanSpec, TensorRtUnavailable, write_plan
from scarlet.errors import BenchError
from scarlet.processes import ending, tied

# Goes up when a change in the builder makes other plans of the same graph.
REVISION = 1

PROGRAM = "from export.tensorrt.plan import main; main()"


@dataclass(frozen=True)
class Gpu:
    """What a plan is built for.

    Attributes:
        name: as the driver calls it.
        compute_capability: ``9.0``.
        multiprocessors: of the GPU, or of the part of it (MIG) that this process has.
        driver: version of the driver, or ``unknown``.
    """

    name: str
    compute_capability: str
    multiprocessors: int
    driver: str


def plan_for(spec: PlanSpec, gpu: Gpu, version: str, store: Store) -> Artefact:
    """The plan from the store; it is built first if it is not there, in a process of its own.

    Its facts are those of ``write_plan``. Building again does not give the same bytes, so its digest names what was
    measured.

    Building loads kernels, takes gigabytes of memory and now and then crashes: nothing of that should be seen in the
    process that is measured. What the building process prints goes to this one's stderr.

    Raises:
        BenchError: it cannot be built.
        TensorRtUnavailable: TensorRT cannot build anything here.
        MemoryError: there was not enough of the GPU's memory.
    """
    timing = store.root / "timing" / f"{artefact_key(_timing_parts(gpu, version))}.cache"

    def make(target: Path) -> dict[str, Any]:
        return in_own_process(spec, target, None if spec.build else timing)

    return store.with_facts(key_parts(spec, gpu, version), ".plan", make)


def key_parts(spec: PlanSpec, gpu: Gpu, version: str) -> dict[str, str]:
    """Everything that a plan depends on, as ``Store`` takes it; where the graph lies is not among it."""
    described = {name: value for name, value in asdict(spec).items() if name != "onnx"}
    return {
        "kind": "tensorrt plan",
        "revision": str(REVISION),
        "tensorrt": version,
        **{name: str(value) for name, value in {**described, **asdict(gpu)}.items()},
    }


def _timing_parts(gpu: Gpu, version: str) -> dict[str, str]:
    return {"tensorrt": version, **{name: str(value) for name, value in asdict(gpu).items()}}


def in_own_process(spec: PlanSpec, target: Path, timing: Path | None) -> dict[str, Any]:
    """``write_plan`` in a new process, which ends with this one's process group.

    Raises:
        BenchError: what ``write_plan`` raises, or the process died.
        TensorRtUnavailable: as raised by ``write_plan``.
        MemoryError: as raised by ``write_plan``.
    """
    home = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-c", tied(PROGRAM)],
        input=pickle.dumps((spec, target, timing)),
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    if done.returncode:
        raise BenchError(
            f"the process that builds TensorRT's plan {ending(done.returncode)}", "Its messages are in the Case's log."
        )
    answer: dict[str, Any] | Exception = pickle.loads(done.stdout)
    if isinstance(answer, Exception):
        raise answer
    return answer


def main() -> None:
    """Reads one request from stdin, and answers on stdout; what libraries print goes to stderr."""
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)
        answer.write(pickle.dumps(answered(*pickle.load(sys.stdin.buffer))))
    # Libraries of the GPU sometimes crash while the interpreter takes itself apart; the plan is written by now.
    os._exit(0)


def answered(spec: PlanSpec, target: Path, timing: Path | None) -> dict[str, Any] | Exception:
    """What ``write_plan`` returns, or raises of what it says that it does."""
    try:
        return write_plan(spec, target, timing)
    except (BenchError, TensorRtUnavailable, MemoryError) as error:
        return error
