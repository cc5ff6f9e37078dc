"""What several lives of the same Cases say: how many to take, in what order to start them, and when they are enough.

A life is every process of a group started afresh. What a process is slower by for as long as it lives (where the
scheduler keeps it, how its memory lies) is in all of its rounds, so that more rounds do not lower it, and an interval
over rounds does not hold it. Fresh processes draw it anew: so what is judged is the interval over lives
(``bench.analysis.stats.lives``). Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from scipy.special import stdtrit

from bench.analysis.stats.intervals import CONFIDENCE
from bench.analysis.stats.lives import OverLives, location, over_lives
from bench.report.text import two_digits
from bench.run.runner import Live

T = TypeVar("T")

# With fewer than four Student's t asks for intervals out of reach; what more than twelve bring, starting them costs.
LEAST_LIVES, MOST_LIVES = 4, 12
# Of the budget, that starts take at most where the least number of lives lets them.
START_SHARE = 0.45
# So many lives are worth more of it: with four the order of starts cannot be taken out (docs/method.md, the simulated
# verdicts).
FITTED_LIVES, FITTED_SHARE = 6, 0.6
# Rounds may end after so many lives, or two more, where every interval's half is narrower than a third of the least
# materiality. Only its width is looked at: a rule that looked at where it lies would stop at the lucky moment.
LIVES_BEFORE_A_LOOK, NARROW = 6, 0.01
# A difference that is found in so many of a hundred runs is one that a run resolves; of this one it is told what
# budget would.
POWER, WANTED = 0.8, 0.05
# The median of n normal values is off by 1.25 times as much as their mean; what lives take of rounds is a bit better.
MEDIAN_ERROR = math.sqrt(math.pi / 2.0)


def start_order(members: Sequence[T], life: int) -> list[T]:
    """The order of starts in a life: as given in the first, and balanced over the following ones.

    Each odd life has the order of the one before turned round, so that either of two members starts first equally
    often. From one such pair to the next all move on by two places and the pair is exchanged: AB BA, BA AB. In as many
    lives as there are members (twice as many, of an odd number) each has every place equally often.
    """
    pair, second = divmod(life, 2)
    shift = 2 * pair % max(1, len(members))
    order = [*members[shift:], *members[:shift]]
    return order[::-1] if (pair + second) % 2 else order


def how_many(start_seconds: float, budget_seconds: float) -> int:
    """Lives that suit a budget: as many as keep the share of starts low, an even number from four to twelve.

    Six where their starts leave room for rounds, since from five on the order of starts is fitted; one where not even
    the starts of four fit.

    Args:
        start_seconds: that one life's starts and warm-up take.
        budget_seconds: for all lives.
    """
    if LEAST_LIVES * start_seconds > budget_seconds:
        return 1
    least = FITTED_LIVES if FITTED_LIVES * start_seconds <= FITTED_SHARE * budget_seconds else LEAST_LIVES
    affordable = START_SHARE * budget_seconds / max(start_seconds, 1e-9)
    return max(least, min(MOST_LIVES, 2 * int(min(affordable, MOST_LIVES) / 2)))


@dataclass(frozen=True)
class Plan:
    """How the lives of a group are spread over its budget.

    Attributes:
        start_seconds: that the starts and warm-up of one take.
        rounds_seconds: that its rounds take.
    """

    lives: int
    start_seconds: float
    rounds_seconds: float


@dataclass(frozen=True)
class Resolves:
    """What the rounds of a scenario can tell apart.

    Attributes:
        difference: between two Cases that is told in four of five runs, as a share.
        budget_seconds: that would tell 5 % as often, about; None where the machine's own resolution forbids it.
        lives, rounds: that are planned, or were taken; rounds of all lives together.
        spread: standard deviation of the log ratio: of a life where ``over_lives``, else of a round.
        over_lives: it rests on what differed between lives, and not only on the first one's rounds.
    """

    difference: float
    budget_seconds: float | None
    lives: int
    rounds: int
    spread: float
    over_lives: bool

    @property
    def sentence(self) -> str:
        """For people, before the rest is measured."""
        least = two_digits(100 * self.difference)
        told = f"differences of {least} % and more will be told apart in four of five runs"
        if self.difference <= WANTED:
            return told
        wanted = f"{100 * WANTED:g} %"
        if self.budget_seconds is None:
            return f"{told}; {wanted} is less than this machine resolves"
        return f"{told}; {wanted} would take about --budget {math.ceil(self.budget_seconds / 10) * 10}"


Pair = tuple[str, str]  # ids of a Case and of the one that it is compared with; the same twice where there is none


@dataclass
class Seen:
    """What the lives of a group's Cases showed, as far as it matters for when to stop.

    Attributes:
        comparisons: of the whole run. Reports adjust every interval for all of them: so does what is said here.
        times: of each Case by its id, for each of its lives, the median time of a call by round, in ns.
        places: likewise, its place in the order of starts.
    """

    comparisons: int
    times: dict[str, list[dict[int, float]]] = field(default_factory=dict)
    places: dict[str, list[int]] = field(default_factory=dict)

    def begin(self, alive: Mapping[str, Live]) -> None:
        """A life of these."""
        for case_id, live in alive.items():
            self.times.setdefault(case_id, []).append({})
            self.places.setdefault(case_id, []).append(live.start_index)

    def logs(self, pair: Pair, life: int) -> list[float]:
        """Logarithms of the ratio of two Cases in each round of a life; of the time of a Case that stands alone."""
        own, base = (self.times[case_id][life] for case_id in pair)
        return [
            math.log(own[number] / (base[number] if own is not base else 1.0))
            for number in sorted(own.keys() & base.keys())
            if min(own[number], base[number]) > 0
        ]

    def over(self, pair: Pair) -> OverLives | None:
        """The interval over the lives so far; None where a life has no round of both."""
        lives = [self.logs(pair, life) for life in range(len(self.times[pair[0]]))]
        if not all(lives):
            return None
        own, base = (self.places[case_id] for case_id in pair)
        order = [1 if mine < other else -1 for mine, other in zip(own, base, strict=True) if own is not base]
        return over_lives([location(logs) for logs in lives], order, self.comparisons)

    def is_enough(self, pairs: Sequence[Pair]) -> bool:
        """Every interval is narrow; never where it is not yet time to look."""
        n_lives = min((len(self.times[case_id]) for case_id, _ in pairs), default=0)
        if n_lives < LIVES_BEFORE_A_LOOK or n_lives % 2:
            return False
        found = [self.over(pair) for pair in pairs]
        return all(each and each.low and each.high and each.high / each.low <= math.exp(2.0 * NARROW) for each in found)

    def resolves(self, pair: Pair, plan: Plan, material: float) -> Resolves:
        """How much two Cases must differ to be told apart by one life's rounds or by the lives when they are over.

        Args:
            pair: two Cases, of which every life so far has rounds.
        """
        done = len(self.times[pair[0]])
        rounds = [log for life in range(done) for log in self.logs(pair, life)]
        n_rounds, spread = len(rounds) * plan.lives // done, float(np.std(rounds, ddof=1))
        over = self.over(pair) if done > 1 else None
        error = MEDIAN_ERROR * spread / math.sqrt(n_rounds)
        if over and over.spread is not None:
            spread, error = over.spread, over.spread / math.sqrt(done)
        # One degree of freedom is the level's, one that of the order of starts.
        freedom, confidence = plan.lives - 2.0, 1.0 - (1.0 - CONFIDENCE) / 2.0 / self.comparisons
        reach = float(stdtrit(freedom, confidence) + stdtrit(freedom, POWER)) * error
        room = math.log((1.0 + WANTED) / (1.0 + material))
        # Rounds scatter less where there are more of them, and lives where there are more lives.
        more, starts = (reach / room) ** 2 if room > 0 else 0.0, plan.lives * plan.start_seconds
        needed = (more if over else 1.0) * starts + more * plan.lives * plan.rounds_seconds
        difference = (1.0 + material) * math.exp(reach) - 1.0
        return Resolves(difference, needed if room > 0 else None, plan.lives, n_rounds, spread, bool(over))


def pairs_of(alive: Mapping[str, Live], baselines: Mapping[str, str]) -> list[Pair]:
    """What must be known of those alive: each ratio to a baseline, and the time of each that stands alone."""
    pairs = {case_id: baselines.get(case_id, case_id) for case_id in alive}
    pairs = {case_id: other if other in alive else case_id for case_id, other in pairs.items()}
    compared = {other for case_id, other in pairs.items() if case_id != other}
    return [pair for pair in pairs.items() if pair[0] not in compared]
