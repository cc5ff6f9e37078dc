"""What the intervals over lives hold, simulated: the tables of docs/method.md.

    python docs/experiments/simulated_lives.py [--seeds 1000] [--write]

Two Cases on a machine on which processes differ (tests/fakes/noisy_machine.py), measured for 60 s of wall time: a start
of both costs 4.3 s, and a round 0.15 s (ONNX Runtime and OpenVINO at batch 1 on two cores). The project's own functions
make each interval and verdict. An interval moves with the ratio: that of a true 1.03 is that of a true 1, times 1.03.
One life stands for what was before: its sign test over rounds, with the materiality of comparisons over lives.

1. Ratios: how often the interval holds the truth, half of its width, wrong definite verdicts and power.
2. Medians of a row: how often their interval holds the truth.
3. Throughput of one life: likewise, over passes that are alike.

Some minutes; the same figures on every machine. --write puts the tables into docs/method.md, of the first what one life
and six say. Exit code 1 where over six
lives more than 5 % of verdicts are wrong, or an interval holds the truth in less than 94 % (of a median: 93 %).
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import marks
import numpy as np

from bench.analysis.stats import intervals
from bench.analysis.stats.lives import OverLives, throughput_interval
from bench.analysis.time import verdict
from bench.analysis.time.quantiles import median_over_lives
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fakes"))

from noisy_machine import DIFFERING, QUIET, TWO_STATES, FloatArray, Noise  # noqa: E402

WALL_S, START_S, ROUND_S = 60.0, 4.3, 0.15
CALL_NS, CALLS = 10_000_000, 15
BASELINE = Case(model="scarlet_c", weights="random", backend="onnxruntime")
OTHER = replace(BASELINE, backend="openvino")
SAME, MARGIN, SMALL, LARGE = 1.0, 1.03, 1.05, 1.08

MACHINES = {
    "processes alike": QUIET,
    "processes alike, t(3)": replace(QUIET, freedom=3),
    "processes differ": DIFFERING,
    "processes differ, t(3)": replace(DIFFERING, freedom=3),
    "two states": TWO_STATES,
    "two states, t(3)": replace(TWO_STATES, freedom=3),
}


def rounds_of(n_lives: int) -> int:
    """Rounds of a life that the wall time leaves."""
    return int((WALL_S / n_lives - START_S) / ROUND_S)


def starts(n_lives: int) -> np.ndarray:
    """Of each life +1 where the Case is started before the baseline: AB BA BA AB."""
    return np.resize([1, -1, -1, 1], n_lives)


def over(logs: FloatArray, order: Sequence[int], comparisons: int = 1) -> OverLives:
    """What a report would make of these rounds, ``(2, lives, rounds)``: a Case's times and its baseline's."""
    _, n_lives, n_rounds = logs.shape
    cases, results, times = (OTHER, BASELINE), [], {}
    for place, case in enumerate(cases):
        known = [
            {"first_round": life * n_rounds, "start_index": int((order[life] > 0) == bool(place))}
            for life in range(n_lives)
        ]
        results.append(CaseResult(case, Status.OK, metrics={"lives": known}))
        times[case.case_id] = dict(enumerate((CALL_NS * np.exp(logs[place].ravel())).tolist()))
    found = verdict.ratio(results[0], results[1], times, comparisons)
    assert found is not None
    return found


def verdicts(found: Sequence[OverLives], truth: float) -> dict[str, float]:
    """Per cent of these intervals, moved to another truth, that give each verdict."""
    told = [
        verdict.decide(each.low * truth, each.high * truth).value if each.low and each.high else "unresolved"
        for each in found
    ]
    return {each.value: 100.0 * told.count(each.value) / len(told) for each in verdict.Verdict}


def simulated(noise: Noise, n_lives: int, seeds: int, comparisons: int = 1) -> list[OverLives]:
    """The interval of each seed, at a true ratio of 1."""
    order = starts(n_lives)
    return [
        over(noise.rounds(order, rounds_of(n_lives), np.random.default_rng(seed)), order.tolist(), comparisons)
        for seed in range(seeds)
    ]


def held(found: Sequence[OverLives]) -> float:
    """Per cent of intervals that hold 1."""
    return 100.0 * sum(bool(each.low and each.high and each.low <= 1.0 <= each.high) for each in found) / len(found)


def half_width(found: Sequence[OverLives]) -> float:
    """Half of the mean width of the logarithms, in per cent."""
    return 50.0 * float(np.mean([math.log(each.high / each.low) for each in found if each.low and each.high]))


def wrong(found: Sequence[OverLives]) -> list[float]:
    """Per cent of definite verdicts that are wrong: at a true 1.00, at the margin itself, at a true 1.05."""
    none, margin, small = (verdicts(found, truth) for truth in (SAME, MARGIN, SMALL))
    return [
        none["slower"] + none["faster"],
        margin["slower"] + margin["same"] + margin["faster"],
        small["same"] + small["faster"],
    ]


def ratios(seeds: int) -> tuple[str, bool]:
    """The first table, and whether the lives keep what they promise."""
    rows, kept = [], True
    for name, noise in MACHINES.items():
        for n_lives in (1, 4, 6, 8, 10):
            found = simulated(noise, n_lives, seeds)
            errors, same = wrong(found), verdicts(found, SAME)["same"]
            power = [verdicts(found, truth)["slower"] for truth in (SMALL, LARGE)]
            kept &= n_lives != 6 or (max(errors) <= 5.0 and held(found) >= 94.0)
            figures = [held(found), half_width(found), *errors, same, *power]
            rows.append([name, f"{n_lives} x {rounds_of(n_lives)}", *(f"{each:.3g}" for each in figures)])
    heads = ["lives x rounds", "holds", "half width", "wrong at 1.00", "at 1.03", "at 1.05"]
    return table(["machine", *heads, "same at 1.00", "slower at 1.05", "at 1.08"], rows), kept


def medians(seeds: int) -> tuple[str, bool]:
    """The second table, and whether intervals over lives hold the truth in 93 % at least."""
    rows, kept = [], True
    for name, noise in (("processes alike", QUIET), ("processes differ", replace(DIFFERING, first=0.0))):
        for n_lives in (1, 6):
            n_rounds = rounds_of(n_lives)
            shown = pooled = 0
            for seed in range(seeds):
                source = np.random.default_rng(seed)
                logs = noise.rounds(starts(n_lives), n_rounds, source)[0]
                calls = noise.call_times(logs, CALLS, source).reshape(-1, CALLS)
                of_life = np.repeat(np.arange(n_lives), n_rounds).tolist()
                _, low, high = median_over_lives(np.median(calls, axis=1), of_life)
                shown += bool(low and high and low <= 1.0 <= high)
                every = intervals.sign_test_interval(calls)
                pooled += bool(every and every.low <= 1.0 <= every.high)
            rows.append([name, str(n_lives), *(f"{100 * each / seeds:.3g}" for each in (shown, pooled))])
            kept &= n_lives == 1 or shown >= 0.93 * seeds
    return table(["machine", "lives", "holds", "all calls as independent: holds"], rows), kept


def throughputs(seeds: int) -> str:
    """The third table."""
    rows = []
    for name, spread, correlation, struck in (
        ("lognormal, 0.1", 0.1, 0.0, 0.0),
        ("lognormal, 0.3", 0.3, 0.0, 0.0),
        ("autocorrelated by 0.3", 0.1, 0.3, 0.0),
        ("autocorrelated by 0.5", 0.1, 0.5, 0.0),
        ("one in fifty four times as long", 0.02, 0.0, 0.02),
    ):
        shares = []
        for n in (10, 20, 50):
            holds = 0
            for seed in range(seeds):
                time_ns = 1e9 * np.exp(spread * correlated(correlation, n, seed) - spread**2 / 2.0)
                time_ns[np.random.default_rng([seed, n]).random(n) < struck] *= 4.0
                interval, rate = throughput_interval(np.full(n, 256), time_ns), 256e-9 / (1.0 + 3.0 * struck)
                holds += bool(interval and interval.low <= rate <= interval.high)
            shares.append(f"{100 * holds / seeds:.3g}")
        rows.append([name, *shares])
    return table(["time of a pass", "10 passes", "20", "50"], rows)


def correlated(correlation: float, n: int, seed: int) -> FloatArray:
    """Standard normal values, each correlated with the one before."""
    values = np.random.default_rng(seed).standard_normal(n)
    values[1:] *= math.sqrt(1.0 - correlation**2)
    for place in range(1, n):
        values[place] += correlation * values[place - 1]
    return values


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of a Markdown table."""

    def lines() -> Iterator[str]:
        yield f"| {' | '.join(heads)} |"
        yield f"|{'---|' * len(heads)}"
        yield from (f"| {' | '.join(row)} |" for row in rows)

    return "\n".join(lines())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--write", action="store_true", help="put the tables into docs/method.md")
    wanted = parser.parse_args()
    (of_ratios, ratios_kept), (of_medians, medians_kept) = ratios(wanted.seeds), medians(wanted.seeds)
    for name, text in (("ratios", of_ratios), ("medians", of_medians), ("throughput", throughputs(wanted.seeds))):
        print(f"{text}\n")
        if wanted.write:
            text = "\n".join(line for line in text.splitlines() if not re.search(r"\| (4|8|10) x", line))
            marks.put(name, text, ROOT / "docs" / "method.md")
    return int(not (ratios_kept and medians_kept))


if __name__ == "__main__":
    sys.exit(main())
