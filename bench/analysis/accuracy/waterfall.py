"""The accuracy waterfall: from Pillow and PyTorch in FP32 to what is deployed, which step lost what.

Each Case is compared with the Case that it differs from in one thing, as far as the run has it: another pipeline,
the ONNX graph instead of the module, a runtime's optimisations, a lower precision, another device. A step's loss is
then that thing's loss, in pairs of the same images; the sum along a path is the loss against the start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench.analysis.accuracy.flips import FlipLedger, compare
from bench.analysis.accuracy.predictions import ScoredRun
from bench.record.case import GRAPH_AS_EXPORTED, REFERENCE_BACKEND, Case

REFERENCE_PIPELINE = "reference"


@dataclass(frozen=True, eq=False)
class Step:
    """One step of the waterfall.

    Attributes:
        parent: what it comes from; None for a start.
        depth: steps from the start.
        ledger, total: the Case against its parent, and against the start of its path; None for a start.
    """

    case: Case
    parent: Case | None
    change: str
    depth: int
    ledger: FlipLedger | None
    total: FlipLedger | None


def parents(case: Case) -> Iterator[tuple[Case, str]]:
    """What a Case may be a step from, the nearest first, with the words for what the step changes."""
    if case.precision != "fp32":
        plain = replace(case, precision="fp32")
        yield plain, case.precision.upper()
        yield replace(plain, options=()), case.precision.upper()
    if case.backend != REFERENCE_BACKEND:
        if case.device != "cpu":
            yield replace(case, device="cpu"), case.device.upper()
        as_exported = replace(case, device="cpu", **GRAPH_AS_EXPORTED)
        if (case.backend, case.options) != (as_exported.backend, as_exported.options):
            yield as_exported, f"{case.backend}'s own graph"
        yield replace(case, backend=REFERENCE_BACKEND, device="cpu", options=()), "the ONNX graph"
    else:
        if case.options:
            yield replace(case, options=()), " ".join(f"{name}={value}" for name, value in case.options)
        if case.device != "cpu":
            yield replace(case, device="cpu"), case.device.upper()
    if case.pipeline != REFERENCE_PIPELINE:
        yield replace(case, pipeline=REFERENCE_PIPELINE), f"pixels by {case.pipeline}"


def tree(cases: Sequence[Case]) -> dict[Case, tuple[Case, str] | None]:
    """Each Case's parent among these and what the step changes; None where it has none.

    Threads and batches do not matter to a step: a parent may have others.
    """
    known = {_comparable(case): case for case in reversed(cases)}
    found: dict[Case, tuple[Case, str] | None] = {}
    for case in cases:
        near = ((known.get(_comparable(parent)), change) for parent, change in parents(case))
        found[case] = next(((parent, change) for parent, change in near if parent not in (None, case)), None)
    return found


def _comparable(case: Case) -> Case:
    return replace(case, threads=1, batch=1, instances=1)


def steps(run: ScoredRun) -> tuple[Step, ...]:
    """The waterfall of a run's accuracy Cases, each start followed by what leads on from it, depth first."""
    chosen = tree([predicted.case for predicted in run.predicted.values()])

    def against(base: Case, case: Case) -> FlipLedger:
        return compare(run.predicted[base.case_id], run.predicted[case.case_id])

    def walk(path: tuple[Case, ...]) -> Iterator[Step]:
        for case, link in chosen.items():
            if path and link is not None and link[0] == path[-1]:
                parent, change = link
                yield Step(case, parent, change, len(path), against(parent, case), against(path[0], case))
            elif not path and link is None:
                yield Step(case, None, "start", 0, None, None)
            else:
                continue
            yield from walk((*path, case))

    return tuple(walk(()))
