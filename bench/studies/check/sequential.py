"""A verdict on accuracy that may be asked for after every image, and stops as soon as it is known.

Each image gives d = +1 (only the current Case is right), -1 (only the baseline) or 0. Against the hypothesis that
the mean of d is at most -margin, a gambler who stakes a fixed share of his capital on each image multiplies it by
1 + stake * (d + margin). Under the hypothesis this cannot grow on average, so it ever reaches 1 / alpha with a chance
of alpha at most (Ville's inequality), whenever and however often one looks. The stake is mixed over a grid, half of
the capital on the largest, which is the best where nothing changed. The capital depends on counts of wins, losses
and ties alone. Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", J. R. Stat. Soc.
B 86 (2024), sections 2 and 4; mixtures: Robbins, Ann. Math. Statist. 41 (1970). The same against the hypothesis that
the mean is at least -margin.

The price of looking at will: with nothing changed about 3.9 / margin images pass, where the bound of a fixed number
(``bench.analysis.stats.paired``) needs 3.0 / margin. What is not decided after all images stays unresolved: to
look at the fixed bound
then would spend the error twice.

The order has to be random. Blocks of ``subset`` visit the classes evenly, without replacement, which makes capital
grow no faster (negative association; Joag-Dev and Proschan, Ann. Statist. 11 (1983)); a test with classes that
differ wildly shows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.analysis.stats.paired import paired_bound
from bench.studies.check import rules
from bench.studies.check.rules import Comparison, Decision, Terms, Verdict, disagreement, points
from bench.studies.check.snapshot import NOT_SCORED, UNREADABLE, Labels
from bench.studies.check.tolerances import Config

# Stakes as shares of the largest that cannot lose everything at once, and how the capital is divided among them.
STAKES = np.append(np.geomspace(1e-3, 0.6, 16), 0.95)
SHARES = np.append(np.full(16, 0.5 / 16), 0.5)


@dataclass(frozen=True)
class Evidence:
    """Log capital after each look: against "worse by the margin or more", and against "not so much worse".

    Attributes:
        for_pass: ``(looks,)``, natural logarithm.
        for_fail: likewise.
    """

    for_pass: NDArray[np.float64]
    for_fail: NDArray[np.float64]


def evidence(wins: ArrayLike, losses: ArrayLike, n: ArrayLike, margin: float) -> Evidence:
    """The log capital after each look.

    Args:
        wins: running count of images that only the current Case has right, ``(looks,)``.
        losses: of images that only the baseline has right.
        n: of all images.
        margin: share, 0..1 (both excluded).

    Raises:
        ValueError: the margin lies outside 0..1.
    """
    if not 0.0 < margin < 1.0:
        raise ValueError(f"a margin of {margin} makes no sense")
    won, lost, seen = (np.asarray(values, dtype=np.float64) for values in (wins, losses, n))
    ties = seen - won - lost
    return Evidence(
        _log_capital((won, margin + 1.0), (ties, margin), (lost, margin - 1.0)),
        _log_capital((lost, 1.0 - margin), (ties, -margin), (won, -1.0 - margin)),
    )


def _log_capital(*outcomes: tuple[NDArray[np.float64], float]) -> NDArray[np.float64]:
    """Of the mixture, from counts and pay-offs of a stake of 1; the last pay-off is the worst."""
    stakes = STAKES / -min(pay_off for _, pay_off in outcomes)
    total = sum(
        (count[:, None] * np.log1p(stakes * pay_off)[None, :] for count, pay_off in outcomes),
        start=np.zeros((len(outcomes[0][0]), len(stakes))),
    )
    most = total.max(axis=1)
    mixed: NDArray[np.float64] = most + np.log(np.exp(total - most[:, None]) @ SHARES)
    return mixed


def first_crossing(
    wins: ArrayLike, losses: ArrayLike, n: ArrayLike, margin: float, alpha: float, alpha_fail: float
) -> tuple[int, Verdict]:
    """The first look that decides, and what; the last look and ``unresolved`` where none does."""
    found = evidence(wins, losses, n, margin)
    passes = np.flatnonzero(found.for_pass >= -math.log(alpha))
    fails = np.flatnonzero(found.for_fail >= -math.log(alpha_fail))
    first_pass = int(passes[0]) if len(passes) else None
    first_fail = int(fails[0]) if len(fails) else None
    if first_pass is None and first_fail is None:
        return len(found.for_pass) - 1, Verdict.UNRESOLVED
    if first_fail is None or (first_pass is not None and first_pass < first_fail):
        assert first_pass is not None
        return first_pass, Verdict.PASS
    return first_fail, Verdict.FAIL


@dataclass(frozen=True)
class Looks:
    """Running counts, one a look, int64 ``(looks,)``. See ``gate.Comparison`` for what is counted."""

    n: NDArray[np.int64]
    changed: NDArray[np.int64]
    wins: NDArray[np.int64]
    losses: NDArray[np.int64]
    right: NDArray[np.int64]

    def at(self, place: int) -> Comparison:
        """The comparison at one look."""
        names = ("n", "changed", "wins", "losses", "right")
        return Comparison(**{name: int(getattr(self, name)[place]) for name in names})


def looks(
    baseline: Labels,
    current: Labels,
    labels: Labels,
    order: NDArray[np.intp],
    ends: NDArray[np.intp] | None = None,
) -> Looks | None:
    """Running counts over images in this order; None where there is no image to compare.

    Args:
        baseline: top-1 classes, int16, ``(n,)``, as of ``snapshot.Row.top1``.
        current: likewise; images that were not scored, or that neither could read, count as not seen.
        labels: likewise.
        order: places of the images, in the order in which they are seen.
        ends: after how many images to look, ascending; after each where it is None.
    """
    before, now, truth = baseline[order], current[order], labels[order]
    taken = (now != NOT_SCORED) & ~((now == UNREADABLE) & (before == UNREADABLE))
    was, is_ = before == truth, now == truth
    counted = (taken, taken & (before != now), taken & is_ & ~was, taken & was & ~is_, taken & is_)
    places = (np.arange(len(order)) if ends is None else np.asarray(ends) - 1).astype(np.intp)
    sums = [np.cumsum(column, dtype=np.int64)[places] for column in counted]
    seen = sums[0] > 0
    return Looks(*(column[seen] for column in sums)) if seen.any() else None


def decide(seen: Looks, terms: Terms, margin: float, n_total: int) -> tuple[Decision, Comparison]:
    """The verdict on a row as soon as it can be given, and the comparison at that look.

    Agreement fails as soon as more images changed than all of them together may; it passes only with the bound.

    Args:
        seen: as of ``looks``.
        terms: what the row is judged by; ``whole`` where the last look is at all images. Without
            accuracy nothing is inferred, and all images are needed.
        margin: share that may be lost, from the accuracy in the baseline file.
        n_total: images that there are in all.
    """
    config, no_accuracy, share = terms.config, terms.no_accuracy, terms.config.alpha / terms.n_rows
    last, wanted = seen.at(-1), terms.tolerance.agreement_percent
    place, verdict = len(seen.n) - 1, Verdict.UNRESOLVED
    if margin > 0 and not no_accuracy:
        place, verdict = first_crossing(seen.wins, seen.losses, seen.n, margin, config.alpha, share)

    def decided(look: Comparison, verdict: Verdict, reason: str) -> tuple[Decision, Comparison]:
        bound = paired_bound(look.wins, look.losses, look.n, config.alpha, share)
        return Decision(verdict, reason, bound, margin, terms.name), look

    if wanted is not None:
        tolerated = 1.0 - wanted / 100.0
        broken = np.flatnonzero(seen.changed > math.floor(n_total * tolerated + 1e-9))
        if len(broken) and (verdict is Verdict.UNRESOLVED or broken[0] <= place):
            look = seen.at(int(broken[0]))
            text = disagreement(look, wanted)
            return decided(look, Verdict.FAIL, text if look.n == n_total else f"{text} of all {n_total:,}")
        if verdict is Verdict.PASS:
            agreeing = np.flatnonzero(seen.changed[place:] <= seen.n[place:] * tolerated + 1e-9)
            if len(agreeing):
                place += int(agreeing[0])
            else:
                place, verdict = len(seen.n) - 1, Verdict.UNRESOLVED
    unchanged = config.unchanged_passes and not last.changed
    if verdict is Verdict.UNRESOLVED and terms.whole and (unchanged or (no_accuracy and wanted is not None)):
        return rules.decide(last, terms), last
    look = seen.at(place)
    after = f"after {look.n:,} of {n_total:,} images"
    sure = f"{100.0 * (1.0 - config.alpha):g} % at any stop"
    if verdict is Verdict.PASS:
        return decided(look, verdict, f"{after}: top-1 is less than {points(margin)} points lower ({sure})")
    if verdict is Verdict.FAIL:
        return decided(look, verdict, f"{after}: top-1 is more than {points(margin)} points lower ({sure})")
    why = no_accuracy or f"not decided against a margin of {points(margin)} points ({sure})"
    return decided(last, verdict, f"{after}: {why}")


def block_sizes(n_total: int, config: Config) -> Iterator[int]:
    """How many images all blocks together hold after each: 256, 512, 1024, ... and all."""
    size = float(config.sequential.first_block)
    while size < n_total:
        yield int(size)
        size = max(size + 1, size * config.sequential.growth)
    yield n_total
