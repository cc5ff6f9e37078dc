"""The A/A run: the same Case measured twice as if it were two, to learn what difference this machine can resolve today.

Both copies are measured in turns (as every run does) and one after the other (as most tools do), in repetitions that
follow one another, so that both ways meet the same conditions. What is found is stored with the host's fingerprint;
verdicts of later runs on that host call no smaller difference material.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench.record.case import Case
from bench.record.machine import NoiseResult, Resolution, save_noise
from bench.run.images import working
from bench.run.session import Session
from bench.run.spec import RunSpec

if TYPE_CHECKING:
    import pandas as pd

OPTION = "aa"

# Round numbers tell where a sample belongs: repetition * REPETITION + place, with SEQUENTIAL added in the arm that
# measures one copy after the other.
REPETITION, SEQUENTIAL = 1_000_000, 500_000


def run(spec: RunSpec, out: Path | None, console: Console) -> Path:
    """The A/A run: the first latency Case of the spec against itself, in turns and one after the other.

    What it finds is printed, and stored under this host's fingerprint for later runs to use.

    Raises:
        BenchError: the options are at fault, or the Case cannot be measured.
    """
    from bench.studies import noise_run

    with Session.open(spec, out, console, "noise") as session:
        files = session.require()
        base = next(case for case in session.spec.cases(files.weights) if case.scenario == "latency")
        cases = noise_cases(base)
        session.write_plan(files, cases)
        host = session.folder.read_run_info()["host"]
        with working(console, f"{base.label} against itself, for about {spec.budget_seconds:g} s"):
            result = noise_run.measure(
                session.folder,
                session.context(files),
                cases,
                host,
                host["fingerprint"],
                budget_seconds=spec.budget_seconds,
                timeout_seconds=spec.timeout_seconds,
                seed=spec.seed,
            )
    session.folder.merge_parts()
    stored = save_noise(result)
    for line in (text(result), f"stored: {stored}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return session.folder.path


def noise_cases(base: Case) -> tuple[Case, Case]:
    """The two copies: latency Cases that differ in nothing but a label that every backend ignores."""
    first, second = (
        replace(base, scenario="latency", options=tuple(sorted({**dict(base.options), OPTION: name}.items())))
        for name in ("a", "b")
    )
    return first, second


# --- the figures ------------------------------------------------------------------------------------------------------


def resolution_of(samples: pd.DataFrame, cases: tuple[Case, Case]) -> Resolution:
    """What difference of two Cases the samples of an A/A run could have told from noise.

    Args:
        samples: as of ``RunFolder.samples``, of a run that ``noise_run.measure`` made.
        cases: the two copies.

    Raises:
        ValueError: a repetition lacks a copy, or there are fewer than six rounds.
    """
    import numpy as np

    from bench.analysis.stats import intervals

    kept = samples[~samples["warmup"] & (samples["round"] >= 0)]
    numbers = kept["round"].to_numpy()
    kept = kept.assign(
        repetition=numbers // REPETITION,
        sequential=numbers % REPETITION >= SEQUENTIAL,
        case_id=kept["case_id"].astype(str),
    )
    first_id, second_id = (case.case_id for case in cases)
    paired: list[list[float]] = []
    blocks: list[float] = []
    for _, part in kept.groupby("repetition"):
        in_turns = part[~part["sequential"]].groupby(["round", "case_id"])["latency_ns"].median()
        rounds = in_turns.unstack("case_id").dropna()
        medians = part[part["sequential"]].groupby("case_id")["latency_ns"].median()
        if not {first_id, second_id} <= set(rounds.columns) & set(medians.index):
            raise ValueError("a repetition lacks one of the two copies")
        paired.append(np.log(rounds[first_id] / rounds[second_id]).tolist())
        blocks.append(math.log(medians[first_id] / medians[second_id]))
    logs = [log for repetition in paired for log in repetition]
    interval = intervals.sign_test_interval(logs) if logs else None
    if interval is None:
        raise ValueError(f"{len(logs)} rounds are too few for an interval")
    in_turns_logs = [float(np.median(repetition)) for repetition in paired]
    return Resolution(
        interleaved=math.expm1(max(abs(interval.low), abs(interval.high))),
        interleaved_short=_bound(in_turns_logs),
        interleaved_difference=math.expm1(max(map(abs, in_turns_logs))),
        sequential=_bound(blocks),
        sequential_difference=math.expm1(max(map(abs, blocks))),
        repetitions=len(paired),
        rounds=len(logs),
    )


def _bound(logs: Sequence[float]) -> float:
    """What log ratios whose true mean is 0 stay under 95 % of the time, as a difference: see ``Resolution``."""
    from scipy.special import stdtrit

    t = float(stdtrit(len(logs), 0.975))
    return math.expm1(t * math.sqrt(sum(log * log for log in logs) / len(logs)))


def text(result: NoiseResult) -> str:
    """Some lines for people."""
    found = result.resolution
    load = "" if result.load_1m is None else f", load {result.load_1m:.2f}"
    many = "s" if result.threads > 1 else ""
    return (
        f"{result.model} on {result.backend} against itself: {result.device} {result.precision} batch {result.batch}, "
        f"{result.threads} thread{many}{load}\n"
        f"{found.interleaved:.2%} is the smallest difference that this machine tells from noise in "
        f"{found.rounds} rounds of taking turns\n"
        f"in comparisons of a {found.repetitions}th of that time, 95 % of differences between equals stay under\n"
        f"  {found.interleaved_short:.2%} in turns (the largest seen: {found.interleaved_difference:.2%})\n"
        f"  {found.sequential:.2%} one after the other (the largest seen: {found.sequential_difference:.2%})"
    )
