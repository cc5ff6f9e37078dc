"""The method as a whole on a fake clock: Cases that share one drifting machine, and the verdicts on them.

The machine slows down by 20 % over the run, is struck by one-off spikes, and is throttled periodically; every call
is noisy besides. Cases are sampled by the real ``LatencySampler``, take turns in the order of ``schedule.rounds``, and
are compared by ``verdict.compare`` over six lives, as in a run. Processes do not differ here: of those that do is
tests/bench/analysis/time/test_lives_on_a_noisy_machine.py.
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from bench.analysis.time import verdict
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult
from bench.run import schedule
from bench.worker.sampling import STAGE, LatencySampler

SEEDS = 60
ENOUGH = 57  # of 60 seeds

SLICE_NS = 50_000_000
CALL_NS = 10_000_000
LIVES, ROUNDS = 6, 20  # of a life
SLOW_DOWN = 0.20
NOISE = 0.02  # of a single call


@dataclass(frozen=True)
class Disturbance:
    """What strikes besides the slow-down.

    Attributes:
        single: share of calls that take two to six times as long.
        bursts: how many times within 20 rounds everything takes 1.5 to 4 times as long, for 50 to 400 ms.
        throttled: share of every period of 1.1 s in which everything takes 1.3 times as long.
    """

    single: float = 0.0
    bursts: int = 0
    throttled: float = 0.0


DISTURBANCES = {
    "drift": Disturbance(),
    "drift and spikes": Disturbance(single=0.01, bursts=8),
    "drift and throttling": Disturbance(throttled=0.25),
    "everything": Disturbance(single=0.01, bursts=8, throttled=0.25),
}


class Machine:
    """One clock for all. It is slower by 20 % at the end of ``run_ns`` than at the start, and stays so."""

    PERIOD_NS = 1_100_000_000

    def __init__(self, seed: int, run_ns: float, disturbance: Disturbance) -> None:
        source = np.random.default_rng(seed)
        factors = source.lognormal(0.0, NOISE, 2000)
        struck = source.random(len(factors)) < disturbance.single
        self._noise = np.where(struck, factors * source.uniform(2.0, 6.0, len(factors)), factors).tolist()
        self._calls = int(source.integers(len(factors)))
        # Bursts go on at the same rate where the run takes longer than planned.
        n_bursts = 5 * disturbance.bursts
        starts = np.sort(source.uniform(0, 5 * run_ns, n_bursts))
        self._starts = starts.tolist()
        self._ends = (starts + source.uniform(50e6, 400e6, n_bursts)).tolist()
        self._burst = source.uniform(1.5, 4.0, n_bursts).tolist()
        self._throttled_ns = disturbance.throttled * self.PERIOD_NS
        self._phase_ns = source.uniform(0, self.PERIOD_NS)
        self._run_ns = run_ns
        self.now_ns = 0

    def clock_ns(self) -> int:
        return self.now_ns

    def factor(self) -> float:
        """How much slower than at the start, noise apart."""
        factor = 1.0 + SLOW_DOWN * min(1.0, self.now_ns / self._run_ns)
        last = bisect_right(self._starts, self.now_ns) - 1
        if last >= 0 and self.now_ns < self._ends[last]:
            factor *= self._burst[last]
        if (self.now_ns + self._phase_ns) % self.PERIOD_NS < self._throttled_ns:
            factor *= 1.3
        return factor

    def work(self, work_ns: float) -> None:
        self._calls += 1
        self.now_ns += round(work_ns * self.factor() * self._noise[self._calls % len(self._noise)])


def cases(count: int) -> list[Case]:
    """Timed Cases; the first is the baseline."""
    backends = ["pytorch", *(f"other{number}" for number in range(1, count))]
    return [Case(model="scarlet_c", weights="random", backend=backend) for backend in backends]


def interleaved(
    seed: int, relative: Sequence[float], disturbance: Disturbance, n_lives: int = LIVES
) -> list[verdict.Comparison]:
    """Cases of these relative latencies, measured in turns."""
    members, n_rounds = cases(len(relative)), n_lives * ROUNDS
    machine, samplers = _samplers(seed, members, relative, disturbance, n_rounds)
    for round_, order in zip(range(n_rounds), schedule.rounds(members, seed), strict=False):
        for case in order:
            samplers[case].turn(round_, SLICE_NS)
    assert machine.now_ns >= machine._run_ns, "the whole slow-down was met"
    return _compare(samplers, n_lives)


def sequential(seed: int, relative: Sequence[float], disturbance: Disturbance) -> list[verdict.Comparison]:
    """The same, one Case after the other."""
    members, n_rounds = cases(len(relative)), LIVES * ROUNDS
    _, samplers = _samplers(seed, members, relative, disturbance, n_rounds)
    for case in members:
        for round_ in range(n_rounds):
            samplers[case].turn(round_, SLICE_NS)
    return _compare(samplers, 1)


def _samplers(
    seed: int, members: Sequence[Case], relative: Sequence[float], disturbance: Disturbance, n_rounds: int
) -> tuple[Machine, dict[Case, LatencySampler]]:
    # A turn of undisturbed calls: those of the slice and one before it.
    work_ns = [CALL_NS * each for each in relative]
    run_ns = n_rounds * sum(each * (1 + math.ceil(SLICE_NS / each)) for each in work_ns)
    machine = Machine(seed, run_ns, disturbance)

    def sampler(work: float) -> LatencySampler:
        return LatencySampler(lambda: machine.work(work), machine.clock_ns)

    return machine, {case: sampler(work) for case, work in zip(members, work_ns, strict=True)}


def _compare(samplers: dict[Case, LatencySampler], n_lives: int) -> list[verdict.Comparison]:
    """What a report would say of every Case but the baseline."""
    parts = [
        pd.DataFrame(
            {
                "case_id": case.case_id,
                "round": sampler.samples.round,
                "stage": STAGE,
                "images": 1,
                "warmup": sampler.samples.warmup,
                "latency_ns": sampler.samples.latency_ns,
            }
        )
        for case, sampler in samplers.items()
    ]
    results = []
    for place, case in enumerate(samplers):
        starts = [abs(place - life % 2 * (len(samplers) - 1)) for life in range(n_lives)]
        lives = [{"first_round": ROUNDS * life, "start_index": index} for life, index in enumerate(starts)]
        results.append(CaseResult(case, Status.OK, stage=STAGE, metrics={"lives": lives}))
    found = verdict.compare(results, pd.concat(parts))
    return [found[case.case_id] for case in samplers][1:]


@pytest.mark.parametrize("disturbance", DISTURBANCES.values(), ids=list(DISTURBANCES))
def test_two_equal_cases_are_the_same(disturbance: Disturbance) -> None:
    found = [interleaved(seed, (1.0, 1.0), disturbance)[0] for seed in range(SEEDS)]
    near = sum(abs(each.ratio - 1.0) <= 0.01 for each in found if each.ratio)
    verdicts = Counter(each.verdict for each in found)
    assert near >= ENOUGH
    assert verdicts[verdict.Verdict.SAME] >= ENOUGH
    assert not verdicts.keys() & {verdict.Verdict.FASTER, verdict.Verdict.SLOWER}


@pytest.mark.parametrize("disturbance", DISTURBANCES.values(), ids=list(DISTURBANCES))
def test_one_after_the_other_two_equal_cases_are_not(disturbance: Disturbance) -> None:
    found = [sequential(seed, (1.0, 1.0), disturbance)[0] for seed in range(SEEDS)]
    assert sum(abs(each.ratio - 1.0) <= 0.01 for each in found if each.ratio) <= SEEDS - ENOUGH
    assert Counter(each.verdict for each in found)[verdict.Verdict.SAME] == 0


@pytest.mark.parametrize("disturbance", DISTURBANCES.values(), ids=list(DISTURBANCES))
@pytest.mark.parametrize(("relative", "expected"), [(1.05, verdict.Verdict.SLOWER), (1 / 1.05, verdict.Verdict.FASTER)])
def test_a_difference_of_five_per_cent_is_found(relative, expected, disturbance):
    found = [interleaved(seed, (1.0, relative), disturbance)[0] for seed in range(SEEDS)]
    verdicts = Counter(each.verdict for each in found)
    assert verdicts[expected] >= ENOUGH
    assert verdicts[expected] + verdicts[verdict.Verdict.UNRESOLVED] == SEEDS, "never the opposite, never same"


def test_five_cases_are_told_apart_together() -> None:
    relative = (1.0, 1.05, 1.0, 1 / 1.05, 3.0)
    wanted = [verdict.Verdict(name) for name in ("slower", "same", "faster", "slower")]
    right = wrong = 0
    for seed in range(20):
        # Four comparisons hold together: with six lives Student's quantile for that is 4.3, with twelve 3.1.
        found = interleaved(seed, relative, DISTURBANCES["drift and throttling"], 2 * LIVES)
        right += [each.verdict for each in found] == wanted
        wrong += any(
            each.verdict not in (expected, verdict.Verdict.UNRESOLVED)
            for each, expected in zip(found, wanted, strict=True)
        )
    assert right >= 16
    assert wrong == 0


def test_at_the_materiality_itself_nothing_definite_is_said_often() -> None:
    """A true 3 %: a toss of a coin for a rule that looks at the point estimate, unresolved for this one."""
    found = [interleaved(seed, (1.0, 1.03), DISTURBANCES["drift"])[0] for seed in range(SEEDS)]
    verdicts = Counter(each.verdict for each in found)
    assert verdicts[verdict.Verdict.UNRESOLVED] >= 0.9 * SEEDS
    assert verdicts[verdict.Verdict.FASTER] == 0
