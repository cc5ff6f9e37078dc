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
from dataclasses import dataclass
from enum import Enum

import numpy as np

from bench.analysis.stats.paired import Bound, lower, paired_bound, wins_and_losses
from bench.record.case import Case
from bench.studies.check.snapshot import NOT_SCORED, UNREADABLE, Labels, Row, Snapshot, Timed, array_digest
from bench.studies.check.tolerances import Config, Tolerance

# Beyond this no set of images is of help.
MOST_IMAGES = 10**9


class Verdict(str, Enum):
    """What a check says of a row."""

    PASS = "pass"
    FAIL = "fail"
    UNRESOLVED = "unresolved"
    NEW = "new"


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
        largest_margin: of the changed images, the current lead of the first class in probability; None if unknown.
    """

    n: int
    changed: int
    wins: int
    losses: int
    right: int
    newly_unreadable: int = 0
    largest_margin: float | None = None

    @property
    def baseline_right(self) -> int:
        """Images that the baseline has right."""
        return self.right - self.wins + self.losses

    @property
    def agreement_percent(self) -> float:
        """Share of images with the same top-1 class."""
        return 100.0 * (self.n - self.changed) / self.n


@dataclass(frozen=True)
class Decision:
    """A verdict and why.

    Attributes:
        verdict: of the row.
        reason: a sentence.
        bound: of the difference of top-1; None where none was made.
        margin: share that may be lost; None where none applies.
        tolerance: name of the class.
    """

    verdict: Verdict
    reason: str
    bound: Bound | None = None
    margin: float | None = None
    tolerance: str = ""


# --- comparing -------------------------------------------------------------------------------------------


def images_needed(comparison: Comparison, margin: float, alpha: float) -> int | None:
    """About how many images would pass, if wins and losses grow in proportion; None where none would."""
    n, wins, losses = comparison.n, comparison.wins, comparison.losses
    if (wins - losses) / n <= -margin:
        return None
    low, high = 1.0, 2.0
    while lower(wins * high, losses * high, n * high, alpha) <= -margin:
        low, high = high, high * 2.0
        if n * high > MOST_IMAGES:
            return None
    while n * (high - low) > 0.01 * n * high:
        middle = (low + high) / 2.0
        if lower(wins * middle, losses * middle, n * middle, alpha) <= -margin:
            low = middle
        else:
            high = middle
    return math.ceil(n * high)


def compare(baseline: Labels, current: Labels, labels: Labels) -> Comparison | None:
    """Compares top-1 classes image by image; None where there is no image to compare.

    Args:
        baseline: int16, ``(n,)``, as of ``snapshot.Row.top1``.
        current: likewise; images that are ``NOT_SCORED`` take no part.
        labels: int16, ``(n,)``.
    """
    taken = (current != NOT_SCORED) & ~((current == UNREADABLE) & (baseline == UNREADABLE))
    before, now, truth = baseline[taken], current[taken], labels[taken]
    if not len(truth):
        return None
    was, is_ = before == truth, now == truth
    wins, losses = wins_and_losses(was, is_)
    return Comparison(
        n=len(truth),
        changed=int(np.count_nonzero(before != now)),
        wins=wins,
        losses=losses,
        right=int(np.count_nonzero(is_)),
        newly_unreadable=int(np.count_nonzero((now == UNREADABLE) & (before != UNREADABLE))),
    )


def compare_rows(baseline: Row, current: Row, labels: Labels) -> Comparison | None:
    """As ``compare``, with the margin of the changed images."""
    if baseline.top1 is None or current.top1 is None:
        return None
    found = compare(baseline.top1, current.top1, labels)
    changed = (current.top1 != NOT_SCORED) & (baseline.top1 != current.top1)
    if found is None or current.margin is None or not changed.any():
        return found
    return Comparison(**{**found.__dict__, "largest_margin": float(current.margin[changed].max())})


# --- verdicts -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """What a row is judged by.

    Attributes:
        tolerance: the class of the row's precision.
        config: alpha, and whether unchanged rows pass.
        name: of the class.
        n_rows: rows decided together.
        whole: every image of the baseline was compared.
        no_accuracy: why these predictions have no accuracy; only their agreement can then be judged.
    """

    tolerance: Tolerance
    config: Config
    name: str = ""
    n_rows: int = 1
    whole: bool = True
    no_accuracy: str = ""


def decide(comparison: Comparison, terms: Terms) -> Decision:
    """The verdict on a row. See the top of this module for the rule."""
    tolerance, n_rows, no_accuracy = terms.tolerance, terms.n_rows, terms.no_accuracy
    alpha = terms.config.alpha
    n, changed = comparison.n, comparison.changed
    margin = tolerance.margin(comparison.baseline_right / n)
    bound = paired_bound(comparison.wins, comparison.losses, n, alpha, alpha / n_rows)

    def decided(verdict: Verdict, reason: str) -> Decision:
        return Decision(verdict, reason, bound, margin, terms.name)

    if not changed and terms.whole and terms.config.unchanged_passes:
        hidden = f"a loss of up to {points(-bound.low)} points elsewhere would not show in so few"
        few = "" if bound.low > -margin else f" ({hidden})"
        return decided(Verdict.PASS, f"none of {n:,} predictions changed{few}")
    wanted = tolerance.agreement_percent
    if wanted is not None and comparison.agreement_percent < wanted:
        return decided(Verdict.FAIL, disagreement(comparison, wanted))
    if no_accuracy:
        if wanted is not None:
            return decided(Verdict.PASS, f"{changed} of {n:,} predictions changed ({no_accuracy})")
        return decided(Verdict.UNRESOLVED, f"{changed} of {n:,} predictions changed, and {no_accuracy}")
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
    needed = images_needed(comparison, margin, alpha)
    if needed is not None:
        reason += f"; {n:,} images cannot tell, about {_rounded(needed):,} could"
    return decided(Verdict.UNRESOLVED, reason)


def disagreement(comparison: Comparison, wanted_percent: float) -> str:
    """The sentence for a row that agrees with the baseline on too few images."""
    text = (
        f"{comparison.changed:,} of {comparison.n:,} predictions changed: agreement "
        f"{comparison.agreement_percent:.4g} %, wanted {wanted_percent:g} %; "
        f"{comparison.wins} became right, {comparison.losses} wrong"
    )
    if comparison.largest_margin is not None:
        text += f"; the changed images' largest lead of the first class is {comparison.largest_margin:.2g}"
    return text


def points(share: float) -> str:
    """A share as percentage points, to three digits."""
    return f"{100.0 * share:.3g}"


def _rounded(count: int) -> int:
    """To two digits, upwards."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return int(-(-count // unit) * unit)


def decide_ratio(baseline: Timed, current: Timed, config: Config) -> Decision:
    """The verdict on a ratio of times: ``fail`` where its whole interval lies beyond what is allowed."""
    allowed = (baseline.ratio or 0.0) * (1.0 + config.latency.tolerance_percent / 100.0)
    limit = (
        f"the baseline's is {baseline.ratio:.3g}, {allowed:.3g} is allowed "
        f"({config.latency.tolerance_percent:g} % more)"
    )
    if baseline.reference is None or current.reference is None or current.ratio is None:
        return Decision(Verdict.UNRESOLVED, current.reason or "there is no row to compare it with")
    if not same_row(baseline.reference, current.reference):
        reason = f"compared with {current.reference.label}, in the baseline with {baseline.reference.label}"
        return Decision(Verdict.UNRESOLVED, reason)
    who = f"time over that of {current.reference.backend} {current.reference.precision}"
    if current.low is None or current.high is None:
        return Decision(
            Verdict.UNRESOLVED, f"{who} is {current.ratio:.3g}, with too few rounds for an interval"
        )
    found = f"{who} is {current.ratio:.3g} ({current.low:.3g} to {current.high:.3g}); {limit}"
    if current.low > allowed:
        return Decision(Verdict.FAIL, found)
    return Decision(Verdict.PASS if current.high <= allowed else Verdict.UNRESOLVED, found)


# --- which row is which -------------------------------------------------------------------------------------


def same_row(first: Case, second: Case) -> bool:
    """Equal, or equal but for the number of threads: a machine has its own, and no prediction depends on it."""
    return first == second or _loose(first) == _loose(second)


def _loose(case: Case) -> tuple[object, ...]:
    # The path of an ONNX file is another on every machine; its digest is what tells it.
    model = "onnx" if case.model.startswith("onnx:") else case.model
    timed = (case.batch, case.instances) if case.scenario != "accuracy" else ()
    return (
        model,
        case.backend,
        case.device,
        case.precision,
        case.pipeline,
        case.scenario,
        case.options,
        timed,
    )


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
    """Stage and sentence where run and baseline do not rest on the same images, labels and weights.

    Both have the same number of images. None where they may be compared.
    """
    if baseline.ids_sha256 != current.ids_sha256:
        return "data", f"the {current.n_images:,} images are not those of the baseline (other file names)"
    labels = array_digest(baseline.labels) != array_digest(current.labels)
    if labels:
        differing = int(np.count_nonzero(baseline.labels != current.labels))
        return (
            "labels",
            f"{differing:,} of {current.n_images:,} images have another label than in the baseline",
        )
    if baseline.dataset.get("fingerprint") != current.dataset.get("fingerprint"):
        return (
            "data",
            "the images' files are not those of the baseline: other sizes, or other files in the set",
        )
    if baseline.weights["sha256"] != current.weights["sha256"]:
        return "weights", (
            f"the weights are not the baseline's: {current.weights['sha256'][:12] or 'unknown'} "
            f"instead of {baseline.weights['sha256'][:12] or 'unknown'}"
        )
    return None
