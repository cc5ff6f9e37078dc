"""About how long a plan takes, from stated assumptions.

It is a rough figure for a person who decides whether to wait. Timed Cases are bounded by the budget; accuracy Cases
take as long as their images do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench import host
from bench.record.case import Case
from bench.report.document import Document, notes
from bench.run.lives import how_many
from bench.run.runner import SLICE_NS
from bench.run.schedule import LEAST_ROUNDS
from bench.worker.sampling import MIN_SAMPLES_PER_TURN, WarmUpRule
from bench.worker.tasks.overlap import AHEAD
from bench.worker.tasks.stream import LEAST_BATCHES, WARM_UP_BATCHES
from bench.worker.tasks.throughput import SLICES

# Of a network of some 300 million multiply-adds on two cores.
ASSUMED_IMAGES_PER_S = 40.0
ASSUMED_LATENCY_S = 0.03  # an image
# A worker imports its libraries and loads the model; preparing exports and checks the graph (nothing, once stored).
START_SECONDS = 5.0
PREPARE_SECONDS = 20.0
# A pipeline's pixels are compared with the reference's on a few dozen images (5 s on two busy cores).
CHECK_SECONDS = 5.0


def estimate(
    cases: Sequence[Case], n_images: int, budget_seconds: float, lives: int | None = None
) -> list[tuple[float, str]]:
    """About how many seconds each Case takes, without the time in which it waits for others, and what that rests on.

    A timed Case gets its equal share of the budget, starts and warm-up included, but each of its lives takes some
    rounds (a slice is never shorter than some calls), and warms up first, for as long as the warm-up rule allows at the
    most. It ends early where all ratios are known before the budget ends: the figure leans to the long side.

    Args:
        budget_seconds: wall time of all timed Cases together.
        lives: that each timed Case is measured in; what suits the budget where None.
    """
    n_timed = sum(case.scenario != "accuracy" for case in cases)
    # They start side by side, but warm up one by one.
    start_seconds = START_SECONDS / min(host.allowed_cores(), max(1, n_timed)) + WarmUpRule.max_ns / 1e9
    n_lives = lives or how_many(start_seconds * n_timed, budget_seconds)
    many = f"{n_lives} starts" if n_lives > 1 else "its start"

    def timed(case: Case) -> tuple[float, str]:
        share, call_s = budget_seconds / n_timed, ASSUMED_LATENCY_S * case.batch
        calls, least_s = MIN_SAMPLES_PER_TURN + 1, 0.0  # one call of a turn is warm-up: see LatencySampler.turn
        if case.scenario == "throughput":
            calls, least_s = LEAST_BATCHES + WARM_UP_BATCHES + AHEAD + 1, SLICES * SLICE_NS / 1e9
        rounds_seconds = LEAST_ROUNDS[case.scenario] * max(least_s, calls * call_s)
        basis = f"{share:.3g} s of the budget with {many}, a call of {1000 * call_s:.3g} ms assumed"
        return max(share, n_lives * (start_seconds + rounds_seconds)), basis

    scored = f"{n_images:,} images at {ASSUMED_IMAGES_PER_S:.3g} images/s, assumed"
    accuracy = START_SECONDS + n_images / ASSUMED_IMAGES_PER_S, scored
    return [accuracy if case.scenario == "accuracy" else timed(case) for case in cases]


def document(
    cases: Sequence[Case], n_images: int, budget_seconds: float, lives: int | None = None, remarks: Sequence[str] = ()
) -> Document:
    """A line for each Case and one for all; for machines the seconds. See ``estimate``.

    Args:
        remarks: on what is left out of the plan.
    """
    parts: list[dict[str, Any]] = [
        {"case_id": case.case_id, "label": case.label, "seconds": seconds, "basis": basis}
        for case, (seconds, basis) in zip(cases, estimate(cases, n_images, budget_seconds, lives), strict=True)
    ]
    checked = {case.pipeline for case in cases if case.scenario == "accuracy"} - {"reference"}
    before = {"prepare_seconds": PREPARE_SECONDS, "check_seconds": CHECK_SECONDS * len(checked)}
    seconds = sum(before.values()) + sum(part["seconds"] for part in parts)
    lines = [(part["seconds"], f"{part['label']}: {part['basis']}") for part in parts]
    lines.append((PREPARE_SECONDS, "preparing the model, assumed (less once it is stored)"))
    if checked:
        lines.append((before["check_seconds"], "comparing pixels with the reference's, assumed"))
    lines.append((seconds, f"about, for {len(cases)} Cases"))
    shown = notes([*remarks, *(f"{duration(each):>8}  {text}" for each, text in lines)])
    data = {"seconds": seconds, **before, "cases": parts, "notes": list(remarks)}
    return Document("Plan", shown, data, {"cases": pd.DataFrame(parts)})


def duration(seconds: float) -> str:
    """Seconds in a unit that a person can picture: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
