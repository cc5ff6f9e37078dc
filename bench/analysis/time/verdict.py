"""Is this Case faster than that one? Ratios paired by round, over lives of their processes, and what may be said.

A verdict has three definite values and one that admits not to know. With materiality m (3 % unless the machine
resolves less) and the interval of the ratio of times, this Case's over the baseline's:

- ``slower``: the whole interval lies above 1 + m; ``faster``: the whole interval lies below 1 / (1 + m);
- ``same``: the whole interval lies between the two, both ends included;
- ``unresolved``: anything else, and everything with too few rounds for an interval.

*The interval* is the hull of two: Student's over the lives of the processes (``bench.analysis.stats.lives``), and the
sign test's over all rounds. So a definite verdict needs both. The first holds what processes differ by; the second
keeps a few lives that happen to agree from saying more than their rounds do. Measurements of one life, as all were
before runs had several, have the second alone: it says nothing of what another start of the same processes would give,
and a definite verdict asks for twice the materiality.

The interval must clear the materiality, not just 1, so that a wrong ``faster``, ``slower`` or ``same`` is no
likelier than the interval's error (docs/method.md has the simulated figures). Asking only for an interval that
excludes 1 and a material point estimate would find a true 5 % with fewer rounds, and toss a coin at a true 3 %: two
runs, two verdicts. Tests against a margin instead of against 1: Schuirmann, J. Pharmacokinet. Biopharm. 15 (1987), for
sameness; Murphy and Myors, J. Appl. Psychol. 84 (1999), for difference.

The price is a narrow interval: a true 5 % difference needs ends within 1.9 % of the ratio.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

from bench.analysis.stats import intervals, lives
from bench.record.case import REFERENCE_BACKEND, Case, Status
from bench.record.run_folder import CaseResult

# Under this nobody would change a backend, and layout, alignment and heat alone move a time by as much.
LEAST_MATERIALITY = 0.03

BASELINE = (REFERENCE_BACKEND, "fp32")


class Verdict(str, Enum):
    """What may be said of a Case against its baseline."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "same"
    UNRESOLVED = "unresolved"


@dataclass(frozen=True)
class Comparison:
    """A timed Case against its baseline.

    Attributes:
        baseline_case_id: what it is compared with; its own id where it is the baseline; empty where it is alone.
        ratio: its time per image over the baseline's, over lives; with one life the median over rounds.
        low, high: ends of the ratio's interval.
        verdict: None where nothing was compared.
        n_rounds: rounds compared; where nothing was, rounds measured.
        n_disturbed_rounds: how many of those the host disturbed. They are kept: a disturbance that hits both
            cancels, and one that does not is what the median is for.
        refusal: why the two cannot be compared, a sentence; else empty.
        n_lives: lives compared; where nothing was, lives measured.
        start_effect: what the process that was started first was slower by, as a share; None where nobody can tell.
        spread: standard deviation of a life's log ratio; None with one life.
    """

    case_id: str
    baseline_case_id: str
    n_rounds: int
    n_disturbed_rounds: int
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: Verdict | None = None
    refusal: str = ""
    n_lives: int = 1
    start_effect: float | None = None
    spread: float | None = None


def resolution(info: Mapping[str, Any]) -> float | None:
    """What the machine's A/A run could tell apart, as a share, from ``run.json``; None where there was none."""
    value = (info.get("noise") or {}).get("resolution")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) and value >= 0 else None


def materiality(info: Mapping[str, Any]) -> float:
    """The least difference that counts, as a share: 3 %, or the machine's A/A resolution if that is larger."""
    return max(LEAST_MATERIALITY, resolution(info) or 0.0)


def asked(material: float, n_lives: int) -> float:
    """The materiality of a comparison over so many lives: within one life twice as much."""
    return material if n_lives > 1 else 2.0 * material


def decide(low: float | None, high: float | None, material: float = LEAST_MATERIALITY) -> Verdict:
    """The verdict on a ratio of times with this interval. See the top of this module for the rule."""
    if low is None or high is None:
        return Verdict.UNRESOLVED
    if low > 1.0 + material:
        return Verdict.SLOWER
    if high < 1.0 / (1.0 + material):
        return Verdict.FASTER
    if low >= 1.0 / (1.0 + material) and high <= 1.0 + material:
        return Verdict.SAME
    return Verdict.UNRESOLVED


def baselines(cases: Iterable[Case]) -> dict[str, str]:
    """The id of each timed Case's baseline by its own id; a Case that nothing can be compared with has none.

    Cases of the same model, scenario, device, batch, threads, instances, pipeline and host are compared. The baseline
    is the first of them on PyTorch in fp32, else the first; it is its own.
    """
    groups: dict[tuple[Any, ...], list[Case]] = {}
    for case in cases:
        if case.scenario not in ("accuracy", "server"):  # a server's times are those of its own rate
            key = (case.model, case.scenario, case.device, case.batch, case.threads, case.instances)
            groups.setdefault((*key, case.pipeline, case.host), []).append(case)
    found: dict[str, str] = {}
    for group in groups.values():
        if len(group) > 1:
            usual = [case for case in group if (case.backend, case.precision) == BASELINE]
            found |= {case.case_id: (usual or group)[0].case_id for case in group}
    return found


def refusal(result: CaseResult, baseline: CaseResult) -> str:
    """Why two rows cannot be compared, in a sentence; empty where they can."""
    if result.stage != baseline.stage:
        return (
            f"not compared: it timed {result.stage or 'an unnamed stage'} and "
            f"{baseline.case.backend} timed {baseline.stage or 'an unnamed stage'}"
        )
    if not _side_by_side(result, baseline):
        return (
            f"not compared: it did not take turns with {baseline.case.backend}, "
            "because the run was resumed between them; measure both in a new run"
        )
    return ""


def _side_by_side(first: CaseResult, second: CaseResult) -> bool:
    """False where one ended before the other began. All Cases that take turns begin before the first one ends."""
    try:
        spans = [
            [datetime.fromisoformat(time) for time in (result.started_at, result.ended_at)]
            for result in (first, second)
        ]
        return max(start for start, _ in spans) <= min(end for _, end in spans)
    except (ValueError, TypeError):  # times missing, or one with and one without a time zone
        return True


def compare(
    results: Sequence[CaseResult],
    samples: pd.DataFrame,
    rounds: pd.DataFrame | None = None,
    material: float = LEAST_MATERIALITY,
) -> dict[str, Comparison]:
    """Every timed Case that is ok, with its baseline, by its id.

    The intervals hold together: with k comparisons in the run each has the confidence 1 - 0.05 / k.

    Args:
        samples: as returned by ``RunFolder.samples``.
        rounds: which rounds were disturbed: columns ``round``, ``disturbed`` and, where rounds of latency and of
            throughput are numbered apart, ``scenario``.
    """
    ok = {
        result.case.case_id: result
        for result in results
        if result.status is Status.OK and result.case.scenario != "accuracy"
    }
    times = round_times(list(ok.values()), samples)
    chosen = baselines(result.case for case_id, result in ok.items() if times[case_id])
    refusals = {case_id: refusal(ok[case_id], ok[other]) for case_id, other in chosen.items()}
    shared = {
        case_id: times[case_id].keys() & times[other].keys()
        for case_id, other in chosen.items()
        if case_id != other and not refusals[case_id]
    }
    n_comparisons = sum(1 for common in shared.values() if common)
    made = {}
    for case_id, result in ok.items():
        baseline_id = chosen.get(case_id, "")
        counted = shared.get(case_id, times[case_id].keys())
        disturbed = _disturbed(rounds, result.case.scenario)
        n_lives = len(set(lives_of(result, counted)))
        comparison: dict[str, Any] = {"refusal": refusals.get(case_id, ""), "n_lives": n_lives}
        if case_id in shared:
            found = ratio(result, ok[baseline_id], times, n_comparisons)
            if found is None:
                comparison["refusal"] = "not compared: there is no round in which both have a time above 0"
            else:
                comparison |= found._asdict()
                comparison["verdict"] = decide(found.low, found.high, asked(material, found.n_lives))
        made[case_id] = Comparison(case_id, baseline_id, len(counted), len(disturbed & set(counted)), **comparison)
    return made


def round_times(results: Sequence[CaseResult], samples: pd.DataFrame) -> dict[str, dict[int, float]]:
    """The median time per image of each Case's rounds, in ns, warm-up and other stages left out.

    A round's median, and not its mean: one call that was interrupted does not move it.
    """
    stages = {result.case.case_id: result.stage for result in results}
    measured = samples[~samples["warmup"]]
    # Plain text: the categories of other Cases would come back as empty groups.
    case_ids, stage_names = measured["case_id"].astype(str), measured["stage"].astype(str)
    wanted = case_ids.map(stages)
    kept = wanted.notna() & ((wanted == "") | (wanted == stage_names))
    times = (measured["latency_ns"] / measured["images"])[kept]
    medians = times.groupby([case_ids[kept], measured["round"][kept]]).median().rename("time").reset_index()
    found: dict[str, dict[int, float]] = {case_id: {} for case_id in stages}
    for case_id, round_, time in zip(medians["case_id"], medians["round"], medians["time"], strict=True):
        found[case_id][int(round_)] = float(time)
    return found


def _disturbed(rounds: pd.DataFrame | None, scenario: str) -> set[int]:
    if rounds is None:
        return set()
    marked = rounds[rounds["disturbed"].astype(bool)]
    if "scenario" in marked:
        marked = marked[marked["scenario"] == scenario]
    return {int(round_) for round_ in marked["round"]}


def lives_of(result: CaseResult, rounds: Iterable[int]) -> list[int]:
    """The number of the life, from 0, in which each of these rounds of a Case was taken."""
    starts = [life["first_round"] for life in _lives(result)]
    return [bisect_right(starts, round_) - 1 for round_ in rounds]


def _lives(result: CaseResult) -> list[Mapping[str, int]]:
    """The Case's lives in order; one where nobody wrote them down."""
    known = result.metrics.get("lives") or [{"first_round": 0}]
    return sorted(known, key=lambda life: int(life["first_round"]))


def by_life(
    result: CaseResult, baseline: CaseResult, times: Mapping[str, Mapping[int, float]]
) -> tuple[list[list[float]], list[int]]:
    """Logarithms of the ratio of two Cases in the rounds that both took, a list for each life of their processes.

    Args:
        times: of each by its id, by round, above 0: as returned by ``round_times``.

    Returns:
        these, and of each life +1 where the first was started before the other, else -1; none where nobody knows.
    """
    own, other = (times[each.case.case_id] for each in (result, baseline))
    common = sorted(own.keys() & other.keys())
    rounds: dict[tuple[int, int], list[float]] = {}
    for number, mine, its in zip(common, lives_of(result, common), lives_of(baseline, common), strict=True):
        rounds.setdefault((mine, its), []).append(math.log(own[number] / other[number]))
    return list(rounds.values()), _order(_lives(result), _lives(baseline), rounds)


def ratio(
    result: CaseResult, baseline: CaseResult, times: Mapping[str, Mapping[int, float]], comparisons: int = 1
) -> lives.OverLives | None:
    """The ratio of two Cases over the rounds that both took, with the interval that a verdict rests on.

    Args:
        times: as returned by ``round_times``.

    Returns:
        None where there is no common round, or a clock that stood still; the ends are None with too few rounds.
    """
    own, other = (times[each.case.case_id] for each in (result, baseline))
    common = sorted(own.keys() & other.keys())
    mine, its = (np.array([side[round_] for round_ in common]) for side in (own, other))
    if not common or min(mine.min(), its.min()) <= 0:
        return None
    signs = intervals.ratio_interval(mine, its, comparisons=comparisons)
    rounds, order = by_life(result, baseline, times)
    if len(rounds) == 1 or signs.low is None or signs.high is None:
        return lives.OverLives(*signs, None, None, len(rounds))
    found = lives.over_lives(
        list(map(lives.location, rounds)), order, comparisons, least_error=lives.clock_error(mine, its)
    )
    assert found.low is not None  # two lives have an interval
    assert found.high is not None
    return found._replace(low=min(found.low, signs.low), high=max(found.high, signs.high))


def _order(
    own: Sequence[Mapping[str, int]], other: Sequence[Mapping[str, int]], pairs: Iterable[tuple[int, int]]
) -> list[int]:
    """Of each pair of lives +1 where the first was started before the other, else -1; empty where one is not known."""
    starts = [(own[mine].get("start_index"), other[its].get("start_index")) for mine, its in pairs]
    order = [(its > mine) - (its < mine) for mine, its in starts if mine is not None and its is not None]
    return order if len(order) == len(starts) and all(order) else []
