"""The A/A run: the same Case measured twice as if it were two, to learn what difference this machine can resolve today.

Both copies are measured in turns (as every run does) and one after the other (as most tools do), in repetitions that
follow one another, so that both ways meet the same conditions. What is found is stored with the host's fingerprint;
verdicts of later runs on that host call no smaller difference material.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from bench.analysis.time.verdict import RatioStop
from bench.record.case import Case
from bench.record.machine import NoiseResult, Resolution, save_noise
from bench.record.run_folder import utc_now
from bench.report.document import Document, notes
from bench.run import schedule
from bench.run.progress import make_listener
from bench.run.runner import SLICE_NS, Runner
from bench.run.session import Session
from bench.run.spec import RunSpec
from scarlet.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

OPTION = "aa"

# Round numbers tell where a sample belongs: repetition * REPETITION + place, with SEQUENTIAL added in the arm that
# measures one copy after the other.
REPETITION, SEQUENTIAL = 1_000_000, 500_000

# More make the bounds of short comparisons surer, fewer leave each more time to drift.
REPETITIONS = 6
# As many as a comparison of two Cases takes at the least.
MIN_ROUNDS = RatioStop.min_rounds


def run(spec: RunSpec, out: Path | None, console: Console) -> Document:
    """The A/A run: the first latency Case of the spec against itself, in turns and one after the other.

    What it finds is stored under this host's fingerprint for later runs to use.

    Raises:
        BenchError: the options are at fault, or the Case cannot be measured.
    """
    with Session.open(spec, out, console, "noise") as session:
        files = session.require()
        base = next(case for case in session.spec.cases(files.weights) if case.scenario == "latency")
        cases = noise_cases(base)
        session.write_plan(files, cases)
        say = partial(console.print, markup=False, highlight=False, soft_wrap=True)
        say(f"{base.label} against itself, for about {spec.budget_seconds:g} s")
        with make_listener(console, len(cases)) as listener:
            runner = Runner(session.folder, session.context(files), listener, session.limits)
            result = measure(runner, cases, session.folder.read_run_info()["host"])
    session.folder.merge_parts()
    stored = save_noise(result)
    lines = [*text(result).splitlines(), f"stored: {stored}"]
    return Document("What this machine can resolve", notes(lines), result.to_dict())


def noise_cases(base: Case) -> tuple[Case, Case]:
    """The two copies: latency Cases that differ in nothing but a label that every backend ignores."""
    first, second = (
        replace(base, scenario="latency", options=tuple(sorted({**dict(base.options), OPTION: name}.items())))
        for name in ("a", "b")
    )
    return first, second


# --- measuring ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TwoCopies:
    """Two copies of a Case take turns, and then work one after the other, again and again.

    A repetition is a stretch of interleaved rounds, then as many slices of the first copy alone, then as many of the
    second. Both workers live and are warm all the time.

    Attributes:
        repetitions: how many; the budget is for the timed slices of all of them together.
    """

    repetitions: int = REPETITIONS

    def __call__(self, runner: Runner, cases: Sequence[Case]) -> None:
        """See ``bench.run.runner.Order``.

        Raises:
            BenchError: a copy could not be measured.
        """
        runner.admit(cases)
        spent_ns, budget_ns = 0.0, runner.limits.budget_seconds * 1e9

        def turn(case: Case, round_: int) -> None:
            nonlocal spent_ns
            progress = runner.turn(case, round_, SLICE_NS)
            if progress is None:
                raise _ended_early(runner, case)
            spent_ns += progress.busy_ns
            detail = f"repetition {round_ // REPETITION + 1} of {self.repetitions}: {progress.detail}"
            runner.listener.progress(case, min(1.0, spent_ns / budget_ns), detail)

        orders = schedule.rounds(cases, runner.limits.seed)
        with runner.watched("latency") as end_of_round:
            for repetition in range(self.repetitions):
                base, began_ns, n_rounds = repetition * REPETITION, spent_ns, 0
                # Half of the repetition's time in turns, and then the same number of slices for each copy alone. An
                # even number of rounds: each copy has led as often as the other.
                half_ns = budget_ns / self.repetitions / 2
                while n_rounds < MIN_ROUNDS or n_rounds % 2 or spent_ns - began_ns < half_ns:
                    for case in next(orders):
                        turn(case, base + n_rounds)
                    end_of_round(base + n_rounds)
                    n_rounds += 1
                for number in range(len(cases) * n_rounds):
                    turn(cases[number // n_rounds], base + SEQUENTIAL + number)
                    end_of_round(base + SEQUENTIAL + number)
        for case in cases:
            if not runner.finish(case):
                raise _ended_early(runner, case)


def _ended_early(runner: Runner, case: Case) -> BenchError:
    """Without both copies there is nothing to tell."""
    return BenchError(
        f"the A/A run of {case.backend} ended early: {runner.ended[case.case_id].reason}",
        "See what scarlet-bench run says of this backend, or name another one.",
    )


def measure(runner: Runner, cases: tuple[Case, Case], host: Mapping[str, Any]) -> NoiseResult:
    """Measures two copies both ways; their samples and rows go to the runner's folder.

    Args:
        runner: with nothing measured yet.
        cases: as returned by ``noise_cases``.
        host: as returned by ``describe_host``, with its fingerprint, taken before anything began.

    Raises:
        BenchError: a copy could not be measured.
    """
    runner.execute(cases, TwoCopies())
    samples = runner.run.samples()
    # On a GPU a call leaves a sample of each stage.
    headline = samples[samples["stage"].astype(str) == runner.ended[cases[0].case_id].stage]
    return NoiseResult(
        resolution=resolution_of(headline, cases),
        host_fingerprint=host["fingerprint"],
        measured_at=utc_now(),
        load_1m=host.get("load_1m"),
        **{
            name: getattr(cases[0], name)
            for name in ("model", "backend", "device", "precision", "batch", "threads")
        },
    )


# --- the figures ------------------------------------------------------------------------------------------------------


def resolution_of(samples: pd.DataFrame, cases: tuple[Case, Case]) -> Resolution:
    """What difference of two Cases the samples of an A/A run could have told from noise.

    Args:
        samples: as returned by ``RunFolder.samples``, of a run that ``measure`` made.
        cases: the two copies.

    Raises:
        ValueError: a repetition lacks a copy, or there are fewer than six rounds.
    """
    import numpy as np

    from bench.analysis.stats import intervals

    measured = samples[~samples["warmup"] & (samples["round"] >= 0)]
    numbers = measured["round"].to_numpy()
    measured = measured.assign(
        repetition=numbers // REPETITION,
        sequential=numbers % REPETITION >= SEQUENTIAL,
        case_id=measured["case_id"].astype(str),
    )
    first_id, second_id = (case.case_id for case in cases)
    paired: list[list[float]] = []
    blocks: list[float] = []
    for _, part in measured.groupby("repetition"):
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
    resolution = result.resolution
    load = "" if result.load_1m is None else f", load {result.load_1m:.2f}"
    many = "s" if result.threads > 1 else ""
    return (
        f"{result.model} on {result.backend} against itself: {result.device} {result.precision} batch {result.batch}, "
        f"{result.threads} thread{many}{load}\n"
        f"{resolution.interleaved:.2%} is the smallest difference that this machine tells from noise in "
        f"{resolution.rounds} rounds of taking turns\n"
        f"in comparisons of a {resolution.repetitions}th of that time, 95 % of differences between equals stay under\n"
        f"  {resolution.interleaved_short:.2%} in turns (the largest seen: {resolution.interleaved_difference:.2%})\n"
        f"  {resolution.sequential:.2%} one after the other (the largest seen: {resolution.sequential_difference:.2%})"
    )
