"""The orders in which Cases take their turns: alone, or in interleaved rounds that drift does not favour."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from bench.analysis.time import verdict
from bench.record.case import Case
from bench.run.runner import SLICE_NS, Order, Runner

T = TypeVar("T")

ACCURACY_SLICE_NS = 500_000_000


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

    Accuracy Cases run one after the other: time does not matter to them. Latency Cases stay alive together and
    take turns, then throughput Cases do.

    Args:
        planned: all Cases of the run, with those that have their results already.
    """
    n_comparisons = comparisons(planned)

    def order(runner: Runner, cases: Sequence[Case]) -> None:
        timed = [case for case in cases if case.scenario != "accuracy"]
        for case in cases:
            if case.scenario == "accuracy":
                alone(runner, case)
        for scenario in ("latency", "throughput"):
            group = [case for case in timed if case.scenario == scenario]
            if group:
                share = runner.limits.budget_seconds * len(group) / len(timed)
                Rounds(n_comparisons, share, runner.limits.seed)(runner, group)

    return order


def alone(runner: Runner, case: Case) -> None:
    """Runs one Case from its start to its end."""
    if not runner.start(case):
        return
    while (progress := runner.turn(case, 0, ACCURACY_SLICE_NS)) and not progress.done:
        pass
    runner.finish(case)


@dataclass(frozen=True)
class Rounds:
    """Timed Cases of one scenario take turns until their ratios are known well enough, or the budget is spent.

    All of them live at once where memory allows. Where it does not, as many as fit take turns, then the next:
    the Case that others are compared with stays alive and takes part in all of these groups, and rounds are
    numbered on, so that every Case is compared with it in rounds that both took.

    Attributes:
        comparisons: of the whole run. Reports adjust every interval for all of them: so does the rule that says when
            to stop.
        budget_seconds: for all rounds.
        seed: of the order of turns.
    """

    comparisons: int
    budget_seconds: float
    seed: int = 0

    def __call__(self, runner: Runner, cases: Sequence[Case]) -> None:
        """See ``bench.run.runner.Order``."""
        baselines = verdict.baselines(cases)
        pending = chained(cases, baselines)
        round_ = runner.run.next_round(cases[0].scenario)
        while pending:
            admitted = runner.admit(pending)
            del pending[:admitted]
            needed = {baselines.get(case.case_id) for case in pending}
            if runner.live:
                share = self.budget_seconds * admitted / len(cases)
                round_ = self._take(runner, baselines, round_, share)
            for live in list(runner.live.values()):
                if live.case.case_id not in needed:
                    runner.finish(live.case)

    def _take(self, runner: Runner, baselines: Mapping[str, str], first: int, budget_seconds: float) -> int:
        """Takes rounds until the comparisons are precise or the budget is spent; gives the next round's number."""
        members = [live.case for live in runner.live.values()]
        medians = {case.case_id: dict[int, float]() for case in members}
        stop, spent_ns, round_, reason = verdict.RatioStop(), 0, first, "budget"
        turns = zip(itertools.count(first), rounds(members, self.seed), slices(self.seed), strict=False)
        with runner.watched(members[0].scenario) as end_of_round:
            for round_, order, slice_ns in turns:
                if spent_ns >= budget_seconds * 1e9 or not runner.live:
                    break
                if self._is_enough(runner, baselines, medians, stop, round_ - first):
                    reason = runner.context.stop
                    break
                for case in order:
                    progress = runner.turn(case, round_, slice_ns)
                    if progress is not None:
                        spent_ns += progress.busy_ns
                        medians[case.case_id][round_] = progress.median_ns
                        fraction = min(1.0, spent_ns / (budget_seconds * 1e9))
                        runner.listener.progress(case, fraction, progress.detail)
                end_of_round(round_)
        for live in runner.live.values():
            live.stop_reason = reason
        return round_

    def _is_enough(
        self,
        runner: Runner,
        baselines: Mapping[str, str],
        medians: Mapping[str, Mapping[int, float]],
        stop: verdict.RatioStop,
        n_rounds: int,
    ) -> bool:
        """Every ratio is known well enough, and so is the median of every Case that is compared with none.

        Where the context says ``plateau``: the noise of every Case has stopped changing.
        """
        if runner.context.stop == "plateau":
            return n_rounds > 0 and all(live.progress.done for live in runner.live.values())
        here = {case_id: baselines[case_id] for case_id in runner.live if case_id in baselines}
        if any(not live.progress.done for case_id, live in runner.live.items() if case_id not in here):
            return False
        # A comparison whose other half ended early will never be known better.
        pairs = {case_id: other for case_id, other in here.items() if other in here}
        compared = any(case_id != other for case_id, other in pairs.items())
        return stop.reached(medians, pairs, n_rounds, self.comparisons) if compared else n_rounds > 0


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
