"""About how long a plan takes: from what earlier runs on this machine measured, or from stated assumptions.

It is a rough figure for a person who decides whether to wait. Timed Cases are bounded by the budget; accuracy Cases
take as long as their images do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from bench import host
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.report.document import Document, notes
from bench.run.lives import how_many
from bench.run.runner import SLICE_NS
from bench.run.schedule import LEAST_ROUNDS
from bench.worker.sampling import MIN_SAMPLES_PER_TURN, WarmUpRule
from bench.worker.tasks.overlap import AHEAD
from bench.worker.tasks.stream import LEAST_BATCHES, WARM_UP_BATCHES
from bench.worker.tasks.throughput import SLICES
from scarlet.errors import BenchError

# Assumed where no earlier run says better, for a network of some 300 million multiply-adds on two cores.
ASSUMED_IMAGES_PER_S = 40.0
ASSUMED_LATENCY_S = 0.03  # an image
# A worker imports its libraries and loads the model; preparing exports and checks the graph (nothing, once stored).
START_SECONDS = 5.0
PREPARE_SECONDS = 20.0
# A pipeline's pixels are compared with the reference's on a few dozen images (5 s on two busy cores).
CHECK_SECONDS = 5.0

# Older runs than these many are not looked into.
RUNS_READ = 20


# What earlier runs of a model measured: of an accuracy Case images per second, from its start to its end, else the
# seconds of one call; and the newest run that says so. By ``_key``.
Measured = Mapping[tuple[Any, ...], tuple[float, str]]


@dataclass(frozen=True)
class CaseEstimate:
    """How long one Case takes, about.

    Attributes:
        seconds: from its worker's start to its end, without the time in which it waits for others.
        basis: what the figure rests on, for people.
    """

    case: Case
    seconds: float
    basis: str


@dataclass(frozen=True)
class Estimate:
    """How long a plan takes, about.

    Attributes:
        prepare_seconds: of it, before the first Case, for the model.
        check_seconds: likewise, for comparing pipelines with the reference.
    """

    seconds: float
    prepare_seconds: float
    check_seconds: float
    cases: tuple[CaseEstimate, ...]


def estimate(
    cases: Sequence[Case],
    n_images: int,
    budget_seconds: float,
    measured: Measured | None = None,
    lives: int | None = None,
) -> Estimate:
    """About how long these Cases take together.

    A timed Case gets its equal share of the budget, starts and warm-up included, but each of its lives takes some
    rounds (a slice is never shorter than some calls), and warms up first, for as long as the warm-up rule allows at the
    most. It ends early where all ratios are known before the budget ends: the figure leans to the long side.

    Args:
        budget_seconds: wall time of all timed Cases together.
        measured: as returned by ``measured_before``.
        lives: that each timed Case is measured in; what suits the budget where None.
    """
    known = measured or {}
    n_timed = sum(case.scenario != "accuracy" for case in cases)
    # They start side by side, but warm up one by one.
    start_seconds = START_SECONDS / min(host.allowed_cores(), max(1, n_timed)) + WarmUpRule.max_ns / 1e9
    n_lives = lives or how_many(start_seconds * n_timed, budget_seconds)
    parts = tuple(
        _accuracy(case, n_images, known)
        if case.scenario == "accuracy"
        else _timed(case, budget_seconds / n_timed, n_lives, start_seconds, known)
        for case in cases
    )
    checked = {case.pipeline for case in cases if case.scenario == "accuracy"} - {"reference"}
    check_seconds = CHECK_SECONDS * len(checked)
    seconds = PREPARE_SECONDS + check_seconds + sum(part.seconds for part in parts)
    return Estimate(seconds, PREPARE_SECONDS, check_seconds, parts)


def _accuracy(case: Case, n_images: int, known: Measured) -> CaseEstimate:
    rate, run = known.get(_key(case), (ASSUMED_IMAGES_PER_S, ""))
    basis = f"{n_images:,} images at {rate:.3g} images/s, {_source(run)}"
    # A measured rate is of the whole Case, its start included.
    return CaseEstimate(case, (0.0 if run else START_SECONDS) + n_images / rate, basis)


def _timed(case: Case, share_seconds: float, n_lives: int, start_seconds: float, known: Measured) -> CaseEstimate:
    call_s, run = known.get(_key(case), (ASSUMED_LATENCY_S * case.batch, ""))
    calls, least_s = MIN_SAMPLES_PER_TURN + 1, 0.0  # one call of a turn is warm-up: see LatencySampler.turn
    if case.scenario == "throughput":
        calls, least_s = LEAST_BATCHES + WARM_UP_BATCHES + AHEAD + 1, SLICES * SLICE_NS / 1e9
    rounds_seconds = LEAST_ROUNDS[case.scenario] * max(least_s, calls * call_s)
    seconds = max(share_seconds, n_lives * (start_seconds + rounds_seconds))
    many = f"{n_lives} starts" if n_lives > 1 else "its start"
    basis = f"{share_seconds:.3g} s of the budget with {many}, a call of {1000 * call_s:.3g} ms {_source(run)}"
    return CaseEstimate(case, seconds, basis)


def _source(run: str) -> str:
    return f"measured in {run}" if run else "assumed"


def _key(case: Case) -> tuple[Any, ...]:
    shared = (case.model, case.backend, case.device, case.precision, case.threads, case.instances, case.options)
    return (*shared, case.pipeline if case.scenario == "accuracy" else case.batch)


def measured_before(results_dir: Path, model: str, host_fingerprint: str = "") -> Measured:
    """What the newest runs in ``<results_dir>/runs`` measured of a model; a newer run's figure stands.

    Args:
        host_fingerprint: of this host; runs of other hosts are passed over. Empty: any host's will do.
    """
    figures: dict[tuple[Any, ...], tuple[float, str]] = {}
    folders = sorted((results_dir / "runs").glob("*"), reverse=True)[:RUNS_READ]  # names sort by time
    for path in folders:
        try:
            folder = RunFolder.open(path)
            info = folder.read_run_info()
        except BenchError:  # a stray folder, or a run of a newer version
            continue
        if host_fingerprint and (info.get("host") or {}).get("fingerprint") != host_fingerprint:
            continue
        done = [result for result in folder.case_results() if result.status is Status.OK and result.case.model == model]
        new = [result for result in done if _key(result.case) not in figures]
        n_images = int((info.get("dataset") or {}).get("n_images") or 0)
        for key, figure in (*_accuracy_rates(new, n_images), *_latencies(folder, new)):
            figures[key] = figure, path.name
    return figures


def _accuracy_rates(new: Iterable[CaseResult], n_images: int) -> Iterable[tuple[tuple[Any, ...], float]]:
    for result in new:
        if result.case.scenario == "accuracy" and result.started_at and result.ended_at:
            began, ended = (datetime.fromisoformat(time) for time in (result.started_at, result.ended_at))
            if ended > began and n_images > 0:
                yield _key(result.case), n_images / (ended - began).total_seconds()


def _latencies(folder: RunFolder, new: Iterable[CaseResult]) -> Iterable[tuple[tuple[Any, ...], float]]:
    keys = {(row.case.case_id, row.stage): _key(row.case) for row in new if row.case.scenario == "latency"}
    if not keys:
        return
    samples = folder.samples()
    timed = samples[~samples["warmup"]].groupby(["case_id", "stage"], observed=True)["latency_ns"].median()
    for case_id, stage, median_ns in timed.reset_index().itertuples(index=False):
        if (case_id, stage) in keys:
            yield keys[case_id, stage], float(median_ns) / 1e9


def document(found: Estimate, remarks: Sequence[str] = ()) -> Document:
    """A line for each Case and one for all; for machines the seconds.

    Args:
        remarks: on what is left out of the plan.
    """
    cases = [
        {"case_id": part.case.case_id, "label": part.case.label, "seconds": part.seconds, "basis": part.basis}
        for part in found.cases
    ]
    data = {
        "seconds": found.seconds,
        "prepare_seconds": found.prepare_seconds,
        "check_seconds": found.check_seconds,
        "cases": cases,
        "notes": list(remarks),
    }
    lines = [*remarks, *text(found).splitlines()]
    return Document("Plan", notes(lines), data, {"cases": pd.DataFrame(cases)})


def text(found: Estimate) -> str:
    """A line for each Case and one for all, for people."""
    lines = [f"{duration(part.seconds):>8}  {part.case.label}: {part.basis}" for part in found.cases]
    lines += [f"{duration(found.prepare_seconds):>8}  preparing the model, assumed (less once it is stored)"]
    if found.check_seconds:
        lines += [f"{duration(found.check_seconds):>8}  comparing pixels with the reference's, assumed"]
    lines += [f"{duration(found.seconds):>8}  about, for {len(found.cases)} Cases"]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds in a unit that a person can picture: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
