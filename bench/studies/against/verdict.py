"""Is this tree slower than another revision of it? The figures and the verdict;
``bench.studies.against.drive`` measures.

Every latency Case is measured in lives, as in any run: fresh workers of both revisions take turns in rounds, and the
figure of a life is the middle of its rounds' ratios, this tree's time over the other revision's. The interval is over
lives (``bench.analysis.stats.lives``), with the order of starts, which is swapped from life to life, taken out.

*Why lives.* Two workers of the very same code differ by 1 to 3 % on a busy machine, for as long as both live (where
the scheduler keeps them, how their memory lies; see docs/method.md). All rounds of a life share that difference, so
that more rounds do not lower it, and an interval over rounds does not hold it: where processes differ with a standard
deviation of 1.5 %, the sign test's 95 % interval over the pooled rounds of six lives holds the true ratio in 47 % of
3,000 simulated comparisons, and the interval over lives in 94.5 % (tests/bench/studies/against/test_against.py has the
simulation).

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
from typing import Any

from bench.analysis.stats.lives import clock_error, location, over_lives
from bench.analysis.time import verdict
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder

REVISION = "revision"  # option of a Case that tells its copies apart; every backend ignores it
THIS = "this"


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
        ratio: this tree's time over the other's, over lives; None where there is none.
        low, high: ends of its interval; None with fewer than two lives.
        lives: each life's ratio, in the order of measurement.
        start_effect: what the revision that was started first is slower by, as a share; None where nobody can tell.
        n_rounds: of all lives together.
        n_disturbed_rounds: how many of them the host disturbed. They are kept.
        reason: why there is no more to say; else empty.
    """

    label: str
    outcome: Outcome
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    lives: tuple[float, ...] = ()
    start_effect: float | None = None
    n_rounds: int = 0
    n_disturbed_rounds: int = 0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "outcome": self.outcome.value, "lives": list(self.lives)}


def copy_of(base: Case, revision: str) -> Case:
    """The Case as one revision measures it: ``THIS``, or another short name."""
    return replace(base, options=tuple(sorted({**dict(base.options), REVISION: revision}.items())))


def decide(low: float | None, high: float | None, tolerance: float) -> Outcome:
    """The verdict on a ratio with this interval, if there is one: see the top of this module."""
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
    other: str, tolerance: float, bases: Sequence[Case], results: Sequence[CaseResult], run: RunFolder
) -> list[Against]:
    """The verdict on each latency Case, by how its copies ended (``other`` is the name in ``copy_of``), in the order
    given. The tolerance is a share.
    """
    ended, rounds = {result.case.case_id: result for result in results}, run.rounds()
    times = verdict.round_times([each for each in results if each.status is Status.OK], run.samples())
    disturbed = {int(number) for number in rounds.loc[rounds["disturbed"].astype(bool), "round"]}
    found = []
    for base in bases:
        mine, theirs = (ended.get(copy_of(base, name).case_id) for name in (THIS, other))
        outcome, reason = _trouble(mine, theirs, other)
        if reason or mine is None or theirs is None:
            found.append(Against(base.label, outcome, reason=reason))
            continue
        each = _against(base.label, (mine, theirs), times, tolerance, len(bases))
        numbers = times[mine.case.case_id].keys() & times[theirs.case.case_id].keys()
        found.append(replace(each, n_rounds=len(numbers), n_disturbed_rounds=len(disturbed & numbers)))
    return found


def _against(
    label: str,
    rows: tuple[CaseResult, CaseResult],
    times: Mapping[str, Mapping[int, float]],
    tolerance: float,
    comparisons: int,
) -> Against:
    rounds, order = verdict.by_life(*rows, times)
    logs = list(map(location, rounds))
    steps = clock_error(*(list(times[row.case.case_id].values()) for row in rows))
    over = over_lives(logs, order, comparisons, least_error=steps)
    lives, outcome = tuple(map(math.exp, logs)), decide(over.low, over.high, tolerance)
    return Against(label, outcome, over.ratio, over.low, over.high, lives, over.start_effect)


def _trouble(mine: CaseResult | None, theirs: CaseResult | None, other: str) -> tuple[Outcome, str]:
    """Why two rows say nothing, and what that means; an empty reason where both did their part."""
    if mine is None or theirs is None or Status.INTERRUPTED in (mine.status, theirs.status):
        return Outcome.UNRESOLVED, "the run was stopped before it was through"
    if theirs.status is not Status.OK:
        return Outcome.UNRESOLVED, f"{other} has no time: {theirs.status.value}, {theirs.reason}"
    if mine.status is not Status.OK:
        return Outcome.FAIL, f"{other} ran it, and this one did not: {mine.status.value}, {mine.reason}"
    return Outcome.UNRESOLVED, ""


def text(found: Sequence[Against], tolerance: float) -> str:
    """A line for each Case."""
    return "\n".join(f"{each.outcome.value}: {each.label}: {figures(each, tolerance)}" for each in found)


def figures(each: Against, tolerance: float) -> str:
    """The ratio with its interval, or why there is none."""
    if each.ratio is None or each.reason:
        return each.reason
    ends = "" if each.low is None else f" ({each.low:.3f} to {each.high:.3f})"
    disturbed = f", {each.n_disturbed_rounds} of them disturbed" if each.n_disturbed_rounds else ""
    first = "" if each.start_effect is None else f"; started first: {each.start_effect:+.1%}"
    return (
        f"{each.ratio:.3f} times as long{ends}, up to {1.0 + tolerance:.3g} passes; "
        f"{len(each.lives)} lives, {each.n_rounds} rounds{disturbed}{first}"
    )
