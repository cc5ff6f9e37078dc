"""The orders in which Cases take their turns: alone, or in interleaved rounds that drift does not favour."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from bench.analysis.time import verdict
from bench.record.case import LOAD, MLPERF_SECONDS, Case
from bench.run.lives import LEAST_LIVES, Plan, Seen, how_many, pairs_of, start_order
from bench.run.runner import SLICE_NS, Order, Runner

T = TypeVar("T")

ACCURACY_SLICE_NS = 500_000_000
# Of a life, at least: a median of fewer says little, of single calls more than of slices with hundreds of images. Once
# the budget is spent, each of two Cases leads in one.
LEAST_ROUNDS, LEAST_ROUNDS_BEYOND = {"latency": 6, "throughput": 4, **dict.fromkeys(LOAD, 4)}, 2


# A Case's share of the budget is enough for so many tests of LoadGen's, of a least duration each.
TESTS, LEAST_LOAD_SECONDS = 20, 0.5


def load_seconds(budget_seconds: float, cases: Sequence[Case]) -> float:
    """Least duration of one of LoadGen's tests, by a timed Case's share of the budget; never more than MLPerf asks."""
    share = budget_seconds / max(1, sum(case.scenario != "accuracy" for case in cases))
    return min(max(share / TESTS, LEAST_LOAD_SECONDS), MLPERF_SECONDS)


def rounds(members: Sequence[T], seed: int = 0) -> Iterator[tuple[T, ...]]:
    """Endless orders of the members, balanced against drift.

    Two members alternate in pairs of rounds, AB BA or BA AB (the ABBA design: a linear drift adds the same to
    both). More members follow cyclic Latin squares of a shuffled order: within one square every member stands
    once in every place. The rows of a square are shuffled too, and every square is drawn anew, so that a periodic
    disturbance does not keep meeting the same member.

    Args:
        members: who takes turns, at least one.
        seed: the same seed gives the same orders.
    """
    if not members:
        raise ValueError("a schedule needs at least one member")
    source = random.Random(seed)
    while True:
        base = list(members)
        source.shuffle(base)
        square = [tuple(base[start:] + base[:start]) for start in range(len(base))]
        source.shuffle(square)
        yield from square


def slices(seed: int) -> Iterator[int]:
    """The length of each round's slices: the same for all Cases of a round, another for every round.

    Slices of one length may keep step with a periodic disturbance, which then meets the same Case for many
    rounds on end.
    """
    source = random.Random(seed)
    while True:
        yield round(SLICE_NS * source.uniform(1.0, 2.0))


def comparisons(cases: Sequence[Case]) -> int:
    """How many Cases are compared with another one of them."""
    return sum(case_id != baseline for case_id, baseline in verdict.baselines(cases).items())


def by_scenario(planned: Sequence[Case]) -> Order:
    """The order of a run.

    Accuracy Cases run one after the other: time does not matter to them. Latency Cases live together and take turns,
    then throughput Cases do, then those of each of LoadGen's scenarios.

    Args:
        planned: all Cases of the run, with those that have their results already.
    """
    n_comparisons = comparisons(planned)

    def order(runner: Runner, cases: Sequence[Case]) -> None:
        timed = [case for case in cases if case.scenario != "accuracy"]
        for case in cases:
            if case.scenario == "accuracy":
                alone(runner, case)
        for scenario in LEAST_ROUNDS:
            group = [case for case in timed if case.scenario == scenario]
            if group:
                share = runner.limits.budget_seconds * len(group) / len(timed)
                (searches if scenario == "server" else Lives(n_comparisons, share))(runner, group)

    return order


def searches(runner: Runner, cases: Sequence[Case]) -> None:
    """Server Cases try one rate a turn, in rounds as others do, until each has found its own."""
    pending, round_ = list(cases), runner.run.next_round(cases[0].scenario)
    while pending:
        n = runner.admit(pending, least=1)
        searching, pending = pending[:n], pending[n:]
        orders = rounds(searching, runner.limits.seed)
        with runner.watched("server") as end_of_round:
            while any(not live.progress.done for live in runner.live.values()):
                for case in next(orders):
                    if case.case_id in runner.live and not runner.live[case.case_id].progress.done:
                        runner.turn(case, round_, SLICE_NS)
                end_of_round(round_)
                round_ += 1
        for live in list(runner.live.values()):
            live.stop_reason = "precision"
            runner.finish(live.case)


def alone(runner: Runner, case: Case) -> None:
    """Runs one Case from its start to its end."""
    if not runner.start(case):
        return
    while (progress := runner.turn(case, 0, ACCURACY_SLICE_NS)) and not progress.done:
        pass
    runner.finish(case)


@dataclass(frozen=True)
class Lives:
    """Timed Cases of one scenario take turns, in lives, until their ratios are known or the budget is spent.

    All of them live at once where memory allows. Where it does not, as many as fit go through all their lives, then the
    next: the Case that others are compared with takes part in all of these groups. Rounds are numbered on.

    Attributes:
        comparisons: of the whole run.
        budget_seconds: wall time of all lives, starts and warm-up included.
        pairs_only: verdicts are all that is wanted: several lives even where the budget has no room for them, and no
            further one of Cases of which none is left to be compared with another.
    """

    comparisons: int
    budget_seconds: float
    pairs_only: bool = False

    def __call__(self, runner: Runner, cases: Sequence[Case]) -> None:
        """See ``bench.run.runner.Order``."""
        baselines = verdict.baselines(cases)
        pending, begun = chained(cases, baselines), list[Case]()
        round_ = runner.run.next_round(cases[0].scenario)
        while pending:
            began = runner.clock()
            wanted = {baselines.get(case.case_id) for case in pending} - runner.ended.keys()
            head = [case for case in begun if case.case_id in wanted]
            members = [*head, *pending][: runner.admit([*head, *pending])]
            new, pending = members[len(head) :], pending[len(members) - len(head) :]
            begun += new
            share = self.budget_seconds * len(new) / len(cases)
            later = {baselines.get(case.case_id) for case in pending}
            group = _Group(runner, replace(self, budget_seconds=share), began, baselines)
            round_ = group.take(members, later, round_)


@dataclass
class _Group:
    """Cases that memory holds together, of which the first life has been started.

    Attributes:
        began: when the first start did, on the runner's clock.
        baselines: as returned by ``verdict.baselines``.
    """

    runner: Runner
    asked: Lives
    began: float
    baselines: Mapping[str, str]

    def take(self, members: Sequence[Case], later: set[str | None], round_: int) -> int:
        """Takes all lives from this round on; gives the next round's number.

        Args:
            members: whose rows are recorded then.
            later: ids of those that are measured again beside others: their rows wait.
            round_: number of the first.
        """
        runner, seen = self.runner, Seen(max(1, self.asked.comparisons))
        start_seconds, life, reason = runner.clock() - self.began, 0, ""
        budget_seconds = self.asked.budget_seconds
        planned = runner.limits.lives or how_many(start_seconds, budget_seconds)
        if self.asked.pairs_only and not runner.limits.lives:
            planned = max(planned, LEAST_LIVES)
        if planned == 1 and runner.limits.lives is None:
            why = f"four starts of {start_seconds:.0f} s do not fit in a budget of {budget_seconds:.0f} s"
            runner.listener.note(f"{members[0].scenario}: one life of the processes only, because {why}")
        while not reason:
            if life:
                alive = [case for case in members if case.case_id not in runner.ended]
                runner.admit(start_order(alive, life), least=len(alive))
            if not runner.live:
                break
            seen.begin(runner.live)
            before = runner.clock()
            round_ = self._rounds(seen, round_, life, planned)
            plan = Plan(planned if not life else life + 1, start_seconds, runner.clock() - before)
            life, pairs = life + 1, pairs_of(runner.live, self.baselines)
            alone = self.asked.pairs_only and all(case_id == other for case_id, other in pairs)
            reason = "budget" if life == planned or alone else "precision" if seen.is_enough(pairs) else ""
            if life == 1 or reason:
                self._foretell(seen, plan)
            for live in list(runner.live.values()):
                live.stop_reason = reason
                runner.finish(live.case, bool(reason) and live.case.case_id not in later)
        return round_

    def _rounds(self, seen: Seen, round_: int, life: int, planned: int) -> int:
        """Takes the rounds of a life, an even number, to the end of its share; gives the next round's number."""
        runner, first = self.runner, round_
        members, seed = [live.case for live in runner.live.values()], runner.limits.seed + life
        cores = core_sets(members) if runner.limits.rotate_cores else lambda n: ()
        over = self.began + self.asked.budget_seconds
        ends = over - self.asked.budget_seconds * (planned - life - 1) / planned
        turns = zip(rounds(members, seed), slices(seed), strict=False)
        with runner.watched(members[0].scenario) as end_of_round:
            while runner.live and (
                (taken := round_ - first) % 2
                or runner.clock() < ends
                or taken < (LEAST_ROUNDS[members[0].scenario] if runner.clock() < over else LEAST_ROUNDS_BEYOND)
            ):
                order, slice_ns = next(turns)
                for case in order:
                    progress = runner.turn(case, round_, slice_ns, cores(taken // 2))
                    if progress is not None:
                        seen.times[case.case_id][-1][round_] = progress.median_ns
                        fraction = min(1.0, (runner.clock() - self.began) / self.asked.budget_seconds)
                        detail = f"life {life + 1} of {planned}: {progress.detail}"
                        runner.listener.progress(case, fraction, detail)
                end_of_round(round_)
                round_ += 1
        return round_

    def _foretell(self, seen: Seen, plan: Plan) -> None:
        """Says after the first life what the budget can resolve; keeps what the lives say of it once they are over."""
        runner, alive = self.runner, self.runner.live
        pairs = [
            pair
            for pair in pairs_of(alive, self.baselines)
            if pair[0] != pair[1] and len(seen.logs(pair, 0)) >= min(LEAST_ROUNDS.values())
        ]
        if not pairs or plan.lives < LEAST_LIVES:
            return
        scenario = next(iter(alive.values())).case.scenario
        material = verdict.materiality(runner.run.read_run_info())
        found = max((seen.resolves(pair, plan, material) for pair in pairs), key=lambda each: each.difference)
        if not found.over_lives:
            runner.listener.note(f"{scenario}: {found.sentence}")
        runner.resolves[scenario] = asdict(found)


def core_sets(members: Sequence[Case]) -> Callable[[int], tuple[int, ...]]:
    """The cores of all workers in the n-th pair of rounds; none, which means all, where their threads need all."""
    allowed = getattr(os, "sched_getaffinity", lambda process: ())(0)  # not every system has it
    cores, wide = sorted(allowed), max(case.threads * case.instances for case in members)
    if wide >= len(cores):
        return lambda n: ()
    return lambda n: tuple(sorted(cores[(n * wide + each) % len(cores)] for each in range(wide)))


def chained(cases: Sequence[Case], baselines: Mapping[str, str]) -> list[Case]:
    """The Cases so that those with one baseline follow each other, and it leads them."""
    index = {case.case_id: number for number, case in enumerate(cases)}
    return sorted(
        cases,
        key=lambda case: (
            index[baselines.get(case.case_id, case.case_id)],
            baselines.get(case.case_id) != case.case_id,
        ),
    )
