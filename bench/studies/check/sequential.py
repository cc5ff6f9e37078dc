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
(``bench.analysis.stats.paired``) needs 3.0 / margin. What is not decided after all images stays unresolved: to look
at the fixed bound then would spend the error twice.

The order has to be random. Blocks of ``subset`` visit the classes evenly, without replacement, in an order that is
hashed with a seed. At any fixed number of images this makes capital grow no faster (negative association; Joag-Dev and
Proschan, Ann. Statist. 11 (1983)), at a stop of one's choice a simulation says so. Where the classes that lose come
last a verdict could come before they were seen: so none is given before each class was seen once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bench.studies.check import rules
from bench.studies.check.rules import Decision, Looks, Terms, Verdict, points
from bench.studies.check.tolerances import Config

# Stakes as shares of the largest that cannot lose everything at once, and how the capital is divided among them.
STAKES = np.append(np.geomspace(1e-3, 0.6, 16), 0.95)
SHARES = np.append(np.full(16, 0.5 / 16), 0.5)


@dataclass(frozen=True)
class Evidence:
    """Logarithm of the capital after each look, ``(looks,)``: against a loss of the margin or more, and of less."""

    for_pass: NDArray[np.float64]
    for_fail: NDArray[np.float64]


def evidence(wins: ArrayLike, losses: ArrayLike, n: ArrayLike, margin: float) -> Evidence:
    """From running counts of wins, losses and all images, ``(looks,)`` each, and a margin between 0 and 1.

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


def first_crossing(found: Evidence, alpha: float, alpha_fail: float, first_look: int = 0) -> tuple[int, Verdict]:
    """The first look that decides, and what; the last look and ``unresolved`` where none does.

    ``alpha`` and ``alpha_fail`` are the errors of a pass and of a fail; looks before ``first_look`` decide nothing.
    """
    last = len(found.for_pass)
    first = {}
    for verdict, capital, error in ((Verdict.FAIL, found.for_fail, alpha_fail), (Verdict.PASS, found.for_pass, alpha)):
        reached = np.flatnonzero(capital[first_look:] >= -math.log(error))
        first[verdict] = first_look + int(reached[0]) if len(reached) else last
    verdict = min(first, key=first.__getitem__)
    return (first[verdict], verdict) if first[verdict] < last else (last - 1, Verdict.UNRESOLVED)


def decide(seen: Looks, terms: Terms, margin: float, n_total: int) -> Decision:
    """The verdict on a row as soon as it can be given, with the comparison at that look.

    Leads and agreement fail as soon as more images moved or changed than all of them together may; they pass only with
    the bound.

    Args:
        seen: as of ``rules.looks``.
        terms: what the row is judged by; ``whole`` where the last look is at all images. Without
            accuracy nothing is inferred, and all images are needed.
        margin: share that may be lost, from the accuracy in the baseline file.
        n_total: images that there are in all.
    """
    config, no_accuracy, last = terms.config, terms.no_accuracy, seen.at(-1)
    place, verdict = len(seen) - 1, Verdict.UNRESOLVED
    if margin > 0 and not no_accuracy:
        found = evidence(seen.counts["wins"], seen.counts["losses"], seen.counts["n"], margin)
        place, verdict = first_crossing(found, config.alpha, config.alpha / terms.n_rows, seen.full)
    by_leads, wanted = last.moved is not None, terms.tolerance.agreement_percent
    if by_leads or wanted is not None:
        share = 1 - (wanted or 0) / 100
        allowed = terms.tolerance.lead_images if by_leads else math.floor(n_total * share + 1e-9)
        broken = np.flatnonzero(seen.counts["moved" if by_leads else "changed"] > allowed)
        if len(broken) and (verdict is Verdict.UNRESOLVED or broken[0] <= place):
            look = seen.at(int(broken[0]))
            text = rules.moved_leads(look) if by_leads else rules.disagreement(look, wanted or 0)
            of_all = "" if look.n == n_total else f" of all {n_total:,}"
            return terms.decision(look, margin, Verdict.FAIL, text + of_all)
        if verdict is Verdict.PASS and not by_leads:
            agreeing = seen.counts["changed"] <= seen.counts["n"] * share + 1e-9
            later = place + np.flatnonzero(agreeing[place:])
            place, verdict = (int(later[0]), verdict) if len(later) else (len(seen) - 1, Verdict.UNRESOLVED)
    facts = by_leads or (config.unchanged_passes and not last.changed) or (no_accuracy and wanted is not None)
    if verdict is Verdict.UNRESOLVED and terms.whole and facts:
        return rules.decide(last, terms)
    look = seen.at(place)
    sure, side = f"{100.0 * (1.0 - config.alpha):g} % at any stop", "less" if verdict is Verdict.PASS else "more"
    text = f"top-1 is {side} than {points(margin)} points lower ({sure})"
    if verdict is Verdict.UNRESOLVED:
        text = no_accuracy or f"not decided against a margin of {points(margin)} points ({sure})"
    return terms.decision(look, margin, verdict, f"after {look.n:,} of {n_total:,} images: {text}")


def block_sizes(n_total: int, config: Config) -> Iterator[int]:
    """How many images all blocks together hold after each: 256, 512, 1024, ... and all."""
    size = float(config.sequential.first_block)
    while size < n_total:
        yield int(size)
        size = max(size + 1, size * config.sequential.growth)
    yield n_total
