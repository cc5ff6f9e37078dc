"""Which rows may be set in bold: the best of a group whose difference to every other one of it is resolved.

What is best by its median alone may be best by chance. A row is called the best only where the interval of its
difference to each of the others keeps clear of nothing: times as in ``bench.analysis.time.verdict``, faster
beyond what counts; accuracies with the paired interval above 0. The best is chosen by what was measured, so that all
pairs of all groups are counted as comparisons (Bonferroni), and not the few that were looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from bench.analysis.accuracy.flips import compare
from bench.analysis.accuracy.predictions import Predicted, ScoredRun
from bench.analysis.stats import paired
from bench.analysis.stats.paired import wins_and_losses
from bench.analysis.time import verdict
from bench.record.case import Status
from bench.record.run_folder import CaseResult, RunFolder
from scarlet.errors import BenchError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Best:
    """The rows of a table that are the best of their group.

    Attributes:
        n_pairs: comparisons that hold together; 0 where nothing could be compared.
    """

    case_ids: frozenset[str] = frozenset()
    n_pairs: int = 0


def fastest(folder: RunFolder, case_ids: Iterable[str], material: float) -> Best:
    """The timed Cases that are faster than all others of their group.

    A group has one model, scenario, device, batch, stage, and one number of threads and instances.

    Args:
        case_ids: of the rows of the table; others, and those that are not ok, are left out.
        material: the least difference that counts, as a share.
    """
    requested = set(case_ids)
    timed = {
        result.case.case_id: result
        for result in folder.case_results()
        if result.case.case_id in requested and result.status is Status.OK and result.case.scenario != "accuracy"
    }
    times = verdict.round_times(list(timed.values()), folder.samples()) if timed else {}
    groups: dict[tuple[object, ...], list[CaseResult]] = {}
    for case_id, result in timed.items():
        case = result.case
        if times[case_id]:
            key = (case.model, case.scenario, case.device, case.batch, case.threads, case.instances)
            groups.setdefault((*key, case.pipeline, result.stage), []).append(result)
    n_pairs = pairs(map(len, groups.values()))
    best = set()
    for group in groups.values():
        if len(group) > 1:
            first = min(group, key=lambda result: median(times[result.case.case_id].values()))
            others = [result for result in group if result is not first]
            if all(_is_faster(first, other, times, n_pairs, material) for other in others):
                best.add(first.case.case_id)
    return Best(frozenset(best), n_pairs)


def _is_faster(
    first: CaseResult, other: CaseResult, times: Mapping[str, Mapping[int, float]], n_pairs: int, material: float
) -> bool:
    if verdict.refusal(first, other):
        return False
    found = verdict.ratio(first, other, times, n_pairs)
    if found is None:
        return False
    return verdict.decide(found.low, found.high, verdict.asked(material, found.n_lives)) is verdict.Verdict.FASTER


def most_accurate(groups: Iterable[Sequence[Predicted]]) -> Best:
    """The accuracy Cases that have a higher top-1 than all others of their group, on the images that both have."""
    listed = [list(group) for group in groups]
    n_pairs = pairs(map(len, listed))
    best = set()
    for group in listed:
        if len(group) > 1:
            shares = [_top1(predicted) for predicted in group]
            # The others are paired image by image only where there is one best: of two equal ones neither is.
            if shares.count(max(shares)) == 1:
                first = group[shares.index(max(shares))]
                if all(_is_better(first, other, n_pairs) for other in group if other is not first):
                    best.add(first.case.case_id)
    return Best(frozenset(best), n_pairs)


def groups_of_run(run: ScoredRun, case_ids: Iterable[str]) -> list[list[Predicted]]:
    """The predictions of these accuracy Cases, all of one model together."""
    requested = set(case_ids)
    groups: dict[tuple[str, str], list[Predicted]] = {}
    for case_id, predicted in run.predicted.items():
        if case_id in requested and not predicted.no_accuracy and len(predicted.label):
            groups.setdefault((predicted.case.model, predicted.case.weights), []).append(predicted)
    return list(groups.values())


def _top1(predicted: Predicted) -> float:
    return float((predicted.top[:, 0] == predicted.label).mean())


def _is_better(first: Predicted, other: Predicted, n_pairs: int) -> bool:
    wins, losses, n = _discordant(first, other)
    if not n:
        return False
    return paired.lower(wins, losses, n, (1.0 - CONFIDENCE) / 2.0 / n_pairs) > 0.0


def _discordant(first: Predicted, other: Predicted) -> tuple[int, int, int]:
    """Images that the first alone and that the other alone got right, and how many both have; 0 for the last where
    they cannot be paired.
    """
    if first.image_ids is other.image_ids:  # of one run: no need to look images up by name, nor to list flips
        own, its = (_hits(predicted) for predicted in (first, other))
        both = (own >= 0) & (its >= 0)
        return *wins_and_losses(its[both] > 0, own[both] > 0), int(np.count_nonzero(both))
    try:
        ledger = compare(other, first)
    except BenchError:  # no image in common, or labels that differ
        return 0, 0, 0
    if ledger.top1 is None:
        return 0, 0, 0
    return ledger.top1.wins, ledger.top1.losses, ledger.n_images


def _hits(predicted: Predicted) -> NDArray[np.int8]:
    """Of each image of the run whether its top-1 is right, -1 where it was not predicted."""
    hits = np.full(len(predicted.image_ids), -1, dtype=np.int8)
    hits[predicted.image] = predicted.top[:, 0] == predicted.label
    return hits


def pairs(sizes: Iterable[int]) -> int:
    """How many pairs there are within groups of these sizes."""
    return sum(n * (n - 1) // 2 for n in sizes)
