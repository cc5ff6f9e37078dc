"""Is this tree slower than another revision of it? The figures and the verdict;
``bench.studies.against.drive`` measures.

Every latency Case is measured in blocks. A block is a fresh worker of each revision; the two take turns in rounds as
in any run, and the ratio of the block is the median over rounds of this tree's time over the other revision's.

*Why blocks.* Two workers of the very same code differ by 1 to 3 % on a busy machine, for as long as both live (where
the scheduler keeps them, how their memory lies; see docs/method.md). All rounds of a block share that difference, so
that more rounds do not lower it, and an interval over rounds does not hold it: where processes differ with a standard
deviation of 1.5 %, the sign test's 95 % interval over the pooled rounds of six blocks holds the true ratio in 47 % of
3,000 simulated comparisons, and the interval over blocks in 94.5 % (tests/bench/studies/against/test_against.py has the
simulation). A fresh pair of processes draws the difference anew. So the block is what is independent, and the interval
is over the blocks' ratios.

*Why swapped sides.* What favours the process that was started first, or second, is no accident that averages out: so
each revision goes first in half of the blocks, and such an effect cancels in the mean. (It widens the interval, because
it spreads the blocks' ratios. That errs on the safe side.)

*Why Student's t.* With six blocks the sign test's interval runs from the least to the largest ratio, with fewer there
is none. A block's ratio is a median over many rounds, so the heavy tails of single rounds, for which other verdicts of
this project keep away from t, are gone; and a block that something did strike widens the interval, which makes a
verdict unresolved rather than wrong. Kalibera and Jones, "Rigorous Benchmarking in Reasonable Time", ISMM 2013, take
the interval over the means of the highest level that varies for the same reason.

With tolerance t, and the interval of the ratio of times:

- ``pass``: the whole interval lies at or below 1 + t;
- ``fail``: the whole interval lies above 1 + t, or this tree cannot run a Case that the other revision runs;
- ``unresolved``: anything else.

Being faster is no failure. With k Cases each interval has the confidence 1 - 0.05 / k, so that they hold together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from bench.analysis.stats.intervals import CONFIDENCE
from bench.analysis.time import verdict
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult

if TYPE_CHECKING:
    import pandas as pd

REVISION, BLOCK = (
    "revision",
    "block",
)  # options of a Case that tell its copies apart; every backend ignores them
THIS = "this"

# Of an even number, so that the sides can be swapped. With fewer Student's t asks for intervals out of reach.
BLOCKS, LEAST_BLOCKS = 6, 4

# A median of fewer rounds is no figure to compute with.
LEAST_ROUNDS = 6


class Outcome(str, Enum):
    """What may be said of this tree against the other revision."""

    PASS = "pass"
    FAIL = "fail"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True)
class Against:
    """A latency Case of this tree against the same Case of another revision.

    Attributes:
        label: of the Case, for people.
        outcome: the verdict.
        ratio: this tree's time over the other's: the geometric mean over blocks; None where no block gave a ratio.
        low, high: ends of its interval; None with fewer than two blocks.
        blocks: each block's ratio, in the order of measurement.
        n_rounds: of all blocks together.
        n_disturbed_rounds: how many of them the host disturbed. They are kept.
        reason: why there is no more to say; else empty.
    """

    label: str
    outcome: Outcome
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    blocks: tuple[float, ...] = ()
    n_rounds: int = 0
    n_disturbed_rounds: int = 0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "outcome": self.outcome.value, "blocks": list(self.blocks)}


@dataclass(frozen=True)
class Terms:
    """What is settled before anything is measured.

    Attributes:
        other: the other revision's name in ``copy_of``.
        n_blocks: how many blocks are planned.
        tolerance: how much slower is still a pass, as a share.
    """

    other: str
    n_blocks: int
    tolerance: float


def copy_of(base: Case, revision: str, block: int) -> Case:
    """The Case as one revision measures it in one block.

    Args:
        base: a latency Case.
        revision: ``THIS``, or another short name.
        block: number from 1.
    """
    labels = {REVISION: revision, BLOCK: str(block)}
    return replace(base, options=tuple(sorted({**dict(base.options), **labels}.items())))


def bare(case: Case) -> Case:
    """The Case without what ``copy_of`` added."""
    kept = [(name, value) for name, value in case.options if name not in (REVISION, BLOCK)]
    return replace(case, options=tuple(kept))


def interval(ratios: Sequence[float], comparisons: int = 1) -> tuple[float, float] | None:
    """Student's interval of the mean log ratio, as ratios; None with fewer than two.

    Args:
        ratios: one a block, above 0.
        comparisons: how many such intervals are shown together.
    """
    import numpy as np
    from scipy.special import stdtrit

    n = len(ratios)
    if n < 2:
        return None
    logs = np.log(ratios)
    t = float(stdtrit(n - 1, 1.0 - (1.0 - CONFIDENCE) / (2.0 * comparisons)))
    centre, half = float(logs.mean()), t * float(logs.std(ddof=1)) / math.sqrt(n)
    return math.exp(centre - half), math.exp(centre + half)


def decide(low: float | None, high: float | None, tolerance: float) -> Outcome:
    """The verdict on a ratio with this interval. See the top of this module.

    Args:
        low, high: ends of the interval; None where there is none.
        tolerance: how much slower is still a pass, as a share.
    """
    if low is None or high is None:
        return Outcome.UNRESOLVED
    if high <= 1.0 + tolerance:
        return Outcome.PASS
    return Outcome.FAIL if low > 1.0 + tolerance else Outcome.UNRESOLVED


def overall(found: Sequence[Against]) -> Outcome:
    """``fail`` where a Case failed, else ``unresolved`` where one is, else ``pass``; of no Case ``unresolved``."""
    outcomes = {each.outcome for each in found}
    for outcome in (Outcome.FAIL, Outcome.UNRESOLVED):
        if outcome in outcomes:
            return outcome
    return Outcome.PASS if outcomes else Outcome.UNRESOLVED


def compare(
    terms: Terms,
    bases: Sequence[Case],
    results: Sequence[CaseResult],
    samples: pd.DataFrame,
    rounds: pd.DataFrame,
) -> list[Against]:
    """The verdict on each Case, in the order given.

    Args:
        terms: of the comparison.
        bases: the latency Cases.
        results: how the copies ended.
        samples, rounds: as returned by ``RunFolder``.
    """
    ended = {result.case.case_id: result for result in results}
    times = verdict.round_times([each for each in results if each.status is Status.OK], samples)
    disturbed = {int(number) for number in rounds.loc[rounds["disturbed"].astype(bool), "round"]}
    return [_against(terms, base, ended, times, disturbed, len(bases)) for base in bases]


def _against(
    terms: Terms,
    base: Case,
    ended: Mapping[str, CaseResult],
    times: Mapping[str, Mapping[int, float]],
    disturbed: set[int],
    comparisons: int,
) -> Against:
    import numpy as np

    ratios, numbers, reason, n_blocks = [], [], "", terms.n_blocks
    for block in range(1, n_blocks + 1):
        mine, theirs = (copy_of(base, name, block).case_id for name in (THIS, terms.other))
        outcome, reason = _trouble(ended.get(mine), ended.get(theirs), terms.other)
        if reason:
            break
        own, base_times = times.get(mine, {}), times.get(theirs, {})
        common = sorted(
            number for number in own.keys() & base_times.keys() if min(own[number], base_times[number]) > 0
        )
        if len(common) >= LEAST_ROUNDS:
            ratios.append(
                float(np.exp(np.median([math.log(own[each] / base_times[each]) for each in common])))
            )
            numbers += common
    low, high = interval(ratios, comparisons) or (None, None)
    if not reason:
        outcome = decide(low, high, terms.tolerance)
        if len(ratios) < n_blocks:
            outcome = Outcome.UNRESOLVED
            short = n_blocks - len(ratios)
            reason = f"{short} of {n_blocks} blocks had fewer than {LEAST_ROUNDS} rounds: give more --budget"
    return Against(
        label=base.label,
        outcome=outcome,
        ratio=float(np.exp(np.mean(np.log(ratios)))) if ratios else None,
        low=low,
        high=high,
        blocks=tuple(ratios),
        n_rounds=len(numbers),
        n_disturbed_rounds=len(disturbed & set(numbers)),
        reason=reason,
    )


def _trouble(mine: CaseResult | None, theirs: CaseResult | None, other: str) -> tuple[Outcome, str]:
    """Why a block says nothing, and what that means; an empty reason where both workers did their part."""
    if mine is None or theirs is None or Status.INTERRUPTED in (mine.status, theirs.status):
        return Outcome.UNRESOLVED, "the run was stopped before it was through"
    if theirs.status is not Status.OK:
        return Outcome.UNRESOLVED, f"{other} has no time: {theirs.status.value}, {theirs.reason}"
    if mine.status is not Status.OK:
        return Outcome.FAIL, f"{other} ran it, this tree did not: {mine.status.value}, {mine.reason}"
    return Outcome.UNRESOLVED, ""


def text(found: Sequence[Against], tolerance: float) -> str:
    """A line for each Case."""
    return "\n".join(f"{each.outcome.value}: {each.label}: {_figures(each, tolerance)}" for each in found)


def _figures(each: Against, tolerance: float) -> str:
    if each.ratio is None or each.reason:
        return each.reason
    ends = "" if each.low is None else f" ({each.low:.3f} to {each.high:.3f})"
    disturbed = f", {each.n_disturbed_rounds} of them disturbed" if each.n_disturbed_rounds else ""
    return (
        f"{each.ratio:.3f} times as long{ends}, up to {1.0 + tolerance:.3g} passes; "
        f"{len(each.blocks)} blocks, {each.n_rounds} rounds{disturbed}"
    )
