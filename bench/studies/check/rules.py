"""Has accuracy or a ratio of times become worse than the baseline's? Pure functions; nothing is read or written.

*The verdict.* ``pass``: the whole interval lies above minus the margin. ``fail``: all of it lies below.
``unresolved``: anything else. Each end has the error alpha. A check passes only when all rows do, so that passing
needs no correction for their number (Berger, Technometrics 24 (1982)); it fails when any row does, so that failing
does: alpha over the number of rows (Bonferroni).

*Facts before inference.* Agreement is a fact about these images, decided without an interval. A row none of whose
predictions changed, on every image of the baseline, passes for the same reason (``unchanged_passes``), however
little so few images say of others; the bound is shown beside it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bench.analysis.stats.paired import Bound, lower, paired_bound
from bench.record.case import Case
from bench.studies.check.snapshot import NOT_SCORED, UNREADABLE, Labels, Row, Snapshot, Timed
from bench.studies.check.tolerances import Config, Tolerance
from scarlet.errors import BenchError

# Beyond this no set of images is of help.
MOST_IMAGES = 10**9


class Verdict(str, Enum):
    """What a check says of a row; ``new``: it is not in the baseline."""

    PASS = "pass"
    FAIL = "fail"
    UNRESOLVED = "unresolved"
    NEW = "new"


def overall(verdicts: Collection[Verdict]) -> Verdict:
    """``fail`` where one is, else ``unresolved`` where one is, else ``pass``; of none ``unresolved``."""
    for verdict in (Verdict.FAIL, Verdict.UNRESOLVED):
        if verdict in verdicts:
            return verdict
    return Verdict.PASS if verdicts else Verdict.UNRESOLVED


def of_interval(low: float | None, high: float | None, tolerance: float) -> Verdict:
    """Of a ratio of times that may be up to 1 + tolerance: ``fail`` where its whole interval lies above, ``pass``
    where all of it lies at or below; ``unresolved`` for anything else, and without an interval.
    """
    if low is None or high is None:
        return Verdict.UNRESOLVED
    if high <= 1.0 + tolerance:
        return Verdict.PASS
    return Verdict.FAIL if low > 1.0 + tolerance else Verdict.UNRESOLVED


@dataclass(frozen=True)
class Comparison:
    """A row's predictions against the baseline's on the same images.

    Attributes:
        n: images compared: those that at least one of the two could read.
        changed: images whose top-1 class differs; unreadable for one of the two counts as different.
        wins: images that only the current one has right.
        losses: images that only the baseline has right.
        right: images that the current one has right.
        newly_unreadable: images that only the baseline could read.
        ties: images whose two first classes have equal logits on either side.
        moved: images whose lead moved by more than ``lead_limit``; None where the class or the baseline has no leads.
        largest_move: the farthest that a lead moved, in probability.
        lead_limit: how far one may, likewise.
    """

    n: int
    changed: int
    wins: int
    losses: int
    right: int
    newly_unreadable: int = 0
    ties: int = 0
    moved: int | None = None
    largest_move: float = 0.0
    lead_limit: float = 0.0

    @property
    def baseline_right(self) -> int:
        """Images that the baseline has right."""
        return self.right - self.wins + self.losses

    @property
    def agreement_percent(self) -> float:
        """Share of images with the same top-1 class."""
        return 100.0 * (self.n - self.changed) / self.n


@dataclass(frozen=True)
class Looks:
    """``Comparison`` after each look at a growing number of images: running counts, ``(looks,)`` each.

    Attributes:
        counts: int64, by the names of ``Comparison``; without ``moved`` where no leads are known.
        largest_move: float64.
        lead_limit: of ``Comparison``.
        full: the first look by which every class of the labels was seen; the number of looks where none is.
    """

    counts: Mapping[str, NDArray[np.int64]]
    largest_move: NDArray[np.float64]
    lead_limit: float
    full: int

    def __len__(self) -> int:
        return len(self.largest_move)

    def at(self, place: int) -> Comparison:
        """The comparison at one look."""
        counts = {name: int(values[place]) for name, values in self.counts.items()}
        return Comparison(**counts, largest_move=float(self.largest_move[place]), lead_limit=self.lead_limit)


@dataclass(frozen=True)
class Decision:
    """A verdict and why; where predictions were compared also the comparison, the bound of the difference of top-1, the
    share that may be lost, and the name of the class.
    """

    verdict: Verdict
    reason: str
    bound: Bound | None = None
    margin: float | None = None
    tolerance: str = ""
    comparison: Comparison | None = None


def images_needed(comparison: Comparison, margin: float, alpha: float) -> int | None:
    """About how many images would pass, if wins and losses grow in proportion; None where none would."""
    n, wins, losses = comparison.n, comparison.wins, comparison.losses

    def would_pass(images: int) -> bool:
        return lower(wins * images / n, losses * images / n, images, alpha) > -margin

    needed = bisect_left(range(MOST_IMAGES), True, lo=n, key=would_pass)
    return needed if needed < MOST_IMAGES else None


def looks(
    baseline: Row,
    current: Row,
    labels: Labels,
    tolerance: Tolerance,
    order: NDArray[np.intp],
    ends: NDArray[np.intp] | None = None,
) -> Looks | None:
    """Compares image by image, with running counts; None where there is no image to compare.

    Images that were not scored on either side, or that neither could read, take no part.

    Args:
        labels: int16, ``(n,)``.
        tolerance: says how far a lead may move.
        order: places of the images, in the order in which they are seen.
        ends: after how many images to look, ascending; after each where it is None.
    """
    assert baseline.top1 is not None
    assert current.top1 is not None
    before, now, truth = baseline.top1[order], current.top1[order], labels[order]
    scored = (now != NOT_SCORED) & (before != NOT_SCORED)
    taken = scored & ~((now == UNREADABLE) & (before == UNREADABLE))
    was, is_ = before == truth, now == truth
    tied, move, limit = np.zeros(len(order), dtype=bool), np.zeros(len(order)), 0.0
    leads = [None if row.margin is None else row.margin[order].astype(np.float64) for row in (baseline, current)]
    for classes, lead in zip((before, now), leads, strict=True):
        tied |= False if lead is None else (lead == 0) & (classes >= 0)
    counted = {
        "n": taken,
        "changed": taken & (before != now),
        "wins": taken & is_ & ~was,
        "losses": taken & was & ~is_,
        "right": taken & is_,
        "newly_unreadable": taken & (now == UNREADABLE),
        "ties": taken & tied,
    }
    first, second = leads
    if tolerance.lead_percent and first is not None and second is not None and (before >= 0).any():
        limit = tolerance.lead_percent / 100.0 * float(np.median(first[before >= 0]))
        # Where the class changed, its lead went down to nothing and the other's up from it.
        move = np.where(before == now, np.abs(second - first), first + second)
        move = np.where(taken, np.where((before < 0) | (now < 0), np.inf, move), 0.0)
        counted["moved"] = taken & ~(move <= limit)
    places = (np.arange(len(order)) if ends is None else np.asarray(ends) - 1).astype(np.intp)
    sums = {name: np.cumsum(values, dtype=np.int64)[places] for name, values in counted.items()}
    seen = sums["n"] > 0
    if not seen.any():
        return None
    classes, firsts = np.unique(truth[scored], return_index=True)
    complete = len(classes) == len(np.unique(labels))
    full = int(np.searchsorted(places[seen], np.flatnonzero(scored)[firsts.max()])) if complete else int(seen.sum())
    return Looks(
        {name: values[seen] for name, values in sums.items()}, np.maximum.accumulate(move)[places][seen], limit, full
    )


def compare(baseline: Row, current: Row, labels: Labels, tolerance: Tolerance) -> Comparison | None:
    """As ``looks``, of all images at once."""
    n = len(labels)
    seen = looks(baseline, current, labels, tolerance, np.arange(n), np.array([n]))
    return seen.at(-1) if seen else None


@dataclass(frozen=True)
class Terms:
    """What a row is judged by.

    Attributes:
        tolerance: the class of the row's precision, called ``name``.
        n_rows: comparisons decided together.
        whole: every image of the baseline was compared.
        no_accuracy: why these predictions have no accuracy; only their agreement can then be judged.
    """

    tolerance: Tolerance
    config: Config
    name: str = ""
    n_rows: int = 1
    whole: bool = True
    no_accuracy: str = ""

    def decision(self, comparison: Comparison, margin: float, verdict: Verdict, reason: str) -> Decision:
        """The verdict with the bound that stands beside it."""
        alpha = self.config.alpha
        bound = paired_bound(comparison.wins, comparison.losses, comparison.n, alpha, alpha / self.n_rows)
        return Decision(verdict, reason, bound, margin, self.name, comparison)


def decide(comparison: Comparison, terms: Terms) -> Decision:
    """The verdict on a row. See the top of this module for the rule."""
    tolerance, n_rows, alpha = terms.tolerance, terms.n_rows, terms.config.alpha
    n, changed = comparison.n, comparison.changed
    margin = tolerance.margin(comparison.baseline_right / n)
    decided = partial(terms.decision, comparison, margin)
    bound = paired_bound(comparison.wins, comparison.losses, n, alpha, alpha / n_rows)
    wanted = tolerance.agreement_percent
    if comparison.moved is not None:
        if comparison.moved > tolerance.lead_images:
            return decided(Verdict.FAIL, moved_leads(comparison))
        if terms.whole:
            moved = f"the lead of the first class moved by {comparison.largest_move:.1g} at most"
            return decided(Verdict.PASS, f"{_told(comparison)}; {moved}")
    elif not changed and terms.whole and terms.config.unchanged_passes:
        hidden = f"a loss of up to {points(-bound.low)} points elsewhere would not show in so few"
        few = "" if bound.low > -margin else f" ({hidden})"
        return decided(Verdict.PASS, f"none of {n:,} predictions changed{few}")
    elif wanted is not None and comparison.agreement_percent < wanted:
        return decided(Verdict.FAIL, disagreement(comparison, wanted))
    if terms.no_accuracy:
        verdict = Verdict.UNRESOLVED if wanted is None else Verdict.PASS
        return decided(verdict, f"{changed} of {n:,} predictions changed ({terms.no_accuracy})")
    sure = f"{100.0 * (1.0 - alpha):g} %"
    allowed = f"the margin is {points(margin)} points"
    if bound.low > -margin:
        reason = f"top-1 is at most {points(-bound.low)} points lower ({sure}), {allowed}"
        if bound.low >= 0:
            reason = f"top-1 is at least {points(bound.low)} points higher ({sure})"
        return decided(Verdict.PASS, reason)
    if bound.high < -margin:
        reason = (
            f"top-1 is {points(-bound.difference)} points lower, at least {points(-bound.high)} ({sure}"
            f"{f' for {n_rows} rows together' if n_rows > 1 else ''}), {allowed}"
        )
        return decided(Verdict.FAIL, reason)
    reason = f"top-1 may be up to {points(-bound.low)} points lower ({sure}), {allowed}"
    if (needed := images_needed(comparison, margin, alpha)) is not None:
        reason += (
            f"; {n:,} images cannot tell: plan {_rounded(needed):,}; against a baseline --sequential may do with fewer"
        )
    return decided(Verdict.UNRESOLVED, reason)


def moved_leads(comparison: Comparison) -> str:
    """The sentence for a row in which more leads moved than may."""
    return (
        f"the lead of the first class moved by more than {comparison.lead_limit:.2g} in {comparison.moved:,} of "
        f"{comparison.n:,} images, by up to {comparison.largest_move:.2g}; {_told(comparison)}"
    )


def disagreement(comparison: Comparison, wanted_percent: float) -> str:
    """The sentence for a row that agrees with the baseline on too few images."""
    return f"{_told(comparison)}: agreement {comparison.agreement_percent:.4g} %, wanted {wanted_percent:g} %"


def _told(comparison: Comparison) -> str:
    changed = f"{comparison.changed:,} of {comparison.n:,} predictions changed"
    if not comparison.changed:
        return changed.replace("0 of", "none of", 1)
    return f"{changed} ({comparison.wins:,} became right, {comparison.losses:,} wrong)"


def points(share: float) -> str:
    """A share as percentage points, to three digits."""
    return f"{100.0 * share:.3g}"


def _rounded(count: int) -> int:
    """To two digits, upwards."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return int(-(-count // unit) * unit)


def decide_ratio(baseline: Timed, current: Timed, config: Config) -> Decision:
    """The verdict on a ratio of times: ``fail`` where its growth is beyond what is allowed, with its whole interval.

    Both ratios were measured: the interval of their quotient has, in logarithms, the root of the sum of squares of the
    two half-widths (the method of variance estimates recovery, as in ``bench.analysis.stats.paired``).
    """
    for side, ratio in (("the baseline", baseline), ("the run", current)):
        if ratio.reference is None or ratio.ratio is None:
            reason = ratio.reason or "there is no row to compare it with"
            return Decision(Verdict.UNRESOLVED, reason if ratio is current else f"in {side}: {reason}")
    assert baseline.reference is not None
    assert current.reference is not None
    if _loose(baseline.reference) != _loose(current.reference):
        reason = f"compared with {current.reference.label}, in the baseline with {baseline.reference.label}"
        return Decision(Verdict.UNRESOLVED, reason)
    who = f"time over that of {current.reference.backend} {current.reference.precision}"
    ends = [[math.log(value) for value in (each.low, each.ratio, each.high) if value] for each in (baseline, current)]
    (before, now), percent = ends, config.latency.tolerance_percent
    if len(before) < 3 or len(now) < 3:
        where = "" if len(now) < 3 else " in the baseline"
        return Decision(Verdict.UNRESOLVED, f"{who} is {current.ratio:.3g}, with too few rounds for an interval{where}")
    growth = now[1] - before[1]
    low = math.exp(growth - math.hypot(now[1] - now[0], before[2] - before[1]))
    high = math.exp(growth + math.hypot(now[2] - now[1], before[1] - before[0]))
    found = (
        f"{who} is {current.ratio:.3g}, in the baseline {baseline.ratio:.3g}: {math.exp(growth):.3g} times as much "
        f"({low:.3g} to {high:.3g}); {1.0 + percent / 100.0:.3g} is allowed ({percent:g} % more)"
    )
    return Decision(of_interval(low, high, percent / 100.0), found)


def _loose(case: Case) -> tuple[object, ...]:
    """What makes a row the same on another machine, which has its own number of threads, and path of an ONNX file."""
    model = "onnx" if case.model.startswith("onnx:") else case.model
    timed = (case.batch, case.instances) if case.scenario != "accuracy" else ()
    return (model, case.backend, case.device, case.precision, case.pipeline, case.scenario, case.options, timed)


def match(wanted: list[Case], found: list[Case]) -> dict[Case, Case]:
    """The Case of ``found`` that is the same row as each of ``wanted``; those without one are missing.

    Equal Cases first; then, one to one in order, those that differ in threads, in an accuracy row's batch, in whose
    weights they are or in the path of an ONNX file.
    """
    pairs = {case: case for case in wanted if case in found}
    left: dict[tuple[object, ...], list[Case]] = {}
    for case in found:
        if case not in pairs:
            left.setdefault(_loose(case), []).append(case)
    for case in wanted:
        if case not in pairs and left.get(_loose(case)):
            pairs[case] = left[_loose(case)].pop(0)
    return pairs


def changed_ground(baseline: Snapshot, current: Snapshot) -> tuple[str, str] | None:
    """Stage and sentence where run and baseline do not rest on the same images, labels and weights; None where they
    may be compared.

    Raises:
        BenchError: the images are of one set, and not as many.
    """
    other_files = baseline.dataset.get("fingerprint") != current.dataset.get("fingerprint")
    if baseline.n_images != current.n_images:
        counts = f"the run's {current.n_images:,} images are {{}} the baseline's {baseline.n_images:,}"
        if other_files:
            return "data", counts.format("of another set than")
        do = f"Run with --images {baseline.n_images}, or make a baseline of {current.n_images:,} images."
        raise BenchError(counts.format("not"), do)
    if baseline.ids_sha256 != current.ids_sha256:
        return "data", f"the {current.n_images:,} images are not those of the baseline (other file names)"
    if differing := int(np.count_nonzero(baseline.labels != current.labels)):
        return "labels", f"{differing:,} of {current.n_images:,} images have another label than in the baseline"
    if other_files:
        return "data", "the images' files are not those of the baseline: other sizes, or other files in the set"
    before, now = (each.weights["sha256"] for each in (baseline, current))
    if before != now:
        what = f"{now[:12] or 'unknown'} instead of {before[:12] or 'unknown'}"
        return "weights", f"the weights are not the baseline's: {what}"
    return None
