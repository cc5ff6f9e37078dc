"""Where the level of a series of runs changes: pure functions, no I/O."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import mannwhitneyu, rankdata

# A level is told from chance by three values on either side at least.
MIN_SEGMENT = 3
PERMUTATIONS = 999
LEVEL = 0.01


@dataclass(frozen=True)
class ChangePoint:
    """A lasting change of level.

    Attributes:
        index: of the first value of the new level.
        before: median of the segment that ends there.
        after: median of the segment that begins there.
        p_value: of the permutation test that found it.
    """

    index: int
    before: float
    after: float
    p_value: float


def change_points(values: Sequence[float], materiality: float, seed: int = 0) -> list[ChangePoint]:
    """Lasting changes of level in a series of positive values, such as ratios of successive runs.

    Circular binary segmentation on ranks: the stretch whose ranks differ most from those of the rest (the Mann-Whitney
    statistic, standardised) is kept if fewer than ``LEVEL`` of random orders of the same values hold a stretch that
    differs as much, and if the medians of both differ by more than ``materiality``; then the pieces are looked at
    likewise. A stretch rather than a split, so that a change that was taken back is found too; ranks, since one
    disturbed run must not make a level. Sources: Olshen, Venkatraman, Lucito and Wigler, "Circular binary segmentation
    for the analysis of array-based DNA copy number data" (2004); ranks as in Pettitt (1979).

    Values are taken as independent. Where each is correlated with the one before, levels are seen that are none: of
    series of 20 and 40 values without a change 6 and 12 % hold one at 0.3, 24 and 54 % at 0.6.

    Args:
        values: in order of time, 0 or more.
        materiality: smallest change that matters, as a share: 0.03 for 3 %.

    Returns:
        in order of time; medians are those of the final segments.
    """
    series = np.asarray(values, dtype=np.float64)
    found: dict[int, float] = {}
    _segment(series, 0, materiality, np.random.default_rng(seed), found)
    edges = [0, *sorted(found), len(series)]
    medians = [float(np.median(series[a:b])) for a, b in itertools.pairwise(edges) if b > a]
    return [
        ChangePoint(index, medians[place], medians[place + 1], found[index])
        for place, index in enumerate(sorted(found))
    ]


def newest_change(values: Sequence[float], materiality: float) -> ChangePoint | None:
    """Whether the newest ``MIN_SEGMENT`` values lie on another level than those before; None where nothing says so.

    ``change_points`` looks everywhere, and pays for it: a step three values ago is under no order rare enough. Here the
    place is given, so that the exact rank-sum test (Mann and Whitney, Ann. Math. Statist. 18 (1947)) reaches ``LEVEL``
    from 12 values on. It takes values as independent, and errs in one of a hundred series at each look (3 and 8 of a
    hundred where each value is correlated with the one before by 0.3 and 0.6): asked after every run it is a hint, and
    not a proof.
    """
    before, newest = np.asarray(values[:-MIN_SEGMENT]), np.asarray(values[-MIN_SEGMENT:])
    if len(before) < MIN_SEGMENT:
        return None
    first, second = float(np.median(before)), float(np.median(newest))
    p_value = float(mannwhitneyu(newest, before, method="exact").pvalue)
    if p_value >= LEVEL or not _is_material(first, second, materiality):
        return None
    return ChangePoint(len(before), first, second, p_value)


def _is_material(first: float, second: float, materiality: float) -> bool:
    return max(first, second) > min(first, second) * (1.0 + materiality)


def _segment(
    values: NDArray[np.float64], offset: int, materiality: float, random: np.random.Generator, found: dict[int, float]
) -> None:
    n = len(values)
    if n < 2 * MIN_SEGMENT:
        return
    ranks: NDArray[np.float64] = rankdata(values)  # from 1; equal values share their mean rank
    best, start, end = _best_stretch(ranks)
    inside, outside = values[start:end], np.concatenate([values[:start], values[end:]])
    if not _is_material(float(np.median(inside)), float(np.median(outside)), materiality):
        return
    orders = random.permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)
    p_value = (1 + int(np.count_nonzero(_largest(orders) >= best - 1e-12))) / (PERMUTATIONS + 1)
    if p_value >= LEVEL:
        return
    edges = [edge for edge in (start, end) if 0 < edge < n]
    found.update({offset + edge: p_value for edge in edges})
    for left, right in itertools.pairwise([0, *edges, n]):
        _segment(values[left:right], offset + left, materiality, random, found)


def _stretches(n: int) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Lengths, and for each where a stretch of it may start: no piece beside it is shorter than ``MIN_SEGMENT``."""
    for length in range(MIN_SEGMENT, n - MIN_SEGMENT + 1):
        starts = np.arange(n - length + 1)
        before, after = starts, n - length - starts
        fits = ((before == 0) | (before >= MIN_SEGMENT)) & ((after == 0) | (after >= MIN_SEGMENT))
        if fits.any():
            yield length, starts[fits]


def _distance(ranks: NDArray[np.float64], length: int, starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Standardised distance of the rank sums of stretches from what chance would give, ``(rows, starts)``."""
    n = ranks.shape[-1]
    sums = np.cumsum(np.concatenate([np.zeros((*ranks.shape[:-1], 1)), ranks], axis=-1), axis=-1)
    spread = np.sqrt(length * (n - length) * (n + 1) / 12.0)
    distances: NDArray[np.float64] = (
        np.abs(sums[..., starts + length] - sums[..., starts] - length * (n + 1) / 2.0) / spread
    )
    return distances


def _best_stretch(ranks: NDArray[np.float64]) -> tuple[float, int, int]:
    """The stretch that differs most, of ranks ``(n,)``: how much, where it begins, where it ends."""
    best = (-1.0, 0, 0)
    for length, starts in _stretches(len(ranks)):
        distance = _distance(ranks, length, starts)
        place = int(distance.argmax())
        best = max(best, (float(distance[place]), int(starts[place]), int(starts[place]) + length))
    return best


def _largest(orders: NDArray[np.float64]) -> NDArray[np.float64]:
    """What the best stretch of each order reaches, of ranks ``(rows, n)``."""
    reached = np.zeros(len(orders))
    for length, starts in _stretches(orders.shape[1]):
        np.maximum(reached, _distance(orders, length, starts).max(axis=1), out=reached)
    return reached
