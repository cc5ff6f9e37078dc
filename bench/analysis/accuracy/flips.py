"""The flip ledger: two Cases' predictions of the same images, compared image by image.

One side is the base, the other is judged against it. An image *flips* when its top-1 class differs: a win where only
the other side is right, a loss where only the base is, and else both are wrong. Totals hide flips: as many wins as
losses leave top-1 as it was.

Flips are ordered by the base's margin, the largest first. The margin is how far the base's first class led before
anything was changed, so that it does not depend on what is being judged. Arithmetic in another order or of fewer bits
turns only close calls; a flip of an image on which the base was sure is what a fault in the pixels, the labels or the
graph looks like, and must not end up at the foot of a list that is cut.

Intervals, p values and resolvable differences are of one comparison each, without a correction for several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.accuracy.predictions import Predicted
from bench.analysis.stats.paired import Paired, paired
from bench.record.files import plain
from scarlet.errors import BenchError

WIN, LOSS, BOTH_WRONG = "win", "loss", "both wrong"
KINDS = (WIN, LOSS, BOTH_WRONG)

# Ids listed of images that only one side has: enough to see which they are.
FIRST_IDS = 5

# Under this a bound on margins is rounded to its first digit, else to the second place: 0.02, 0.14.
FINE_MARGIN = 0.1


@dataclass(frozen=True)
class OneSided:
    """Images that only one side predicted: how many, and the ids of the first, sorted."""

    count: int
    first_ids: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FlipLedger:
    """What two Cases predicted for the images that both have.

    Attributes:
        n_images: images in common, at least 1.
        agreement_percent: images with the same top-1 class.
        top5_ordered_agreement_percent: images with the same five classes in the same order.
        no_accuracy: why nothing may be scored (random weights); empty where it may.
        top1, top5: None where nothing may be scored.
        flips: a row for each image whose top-1 class differs, the largest margin of the base first, equal ones by image
            id: ``image_id``, ``label``, ``base_top1``, ``other_top1``, ``base_margin``, ``other_margin`` and ``kind``,
            one of ``KINDS``, None where nothing may be scored.
        margins: a sentence about the flips' margins; empty where nothing flipped.
    """

    base: Predicted
    other: Predicted
    n_images: int
    only_base: OneSided
    only_other: OneSided
    agreement_percent: float
    top5_ordered_agreement_percent: float
    no_accuracy: str
    top1: Paired | None
    top5: Paired | None
    flips: pd.DataFrame
    margins: str

    @property
    def n_flips(self) -> int:
        """Images whose top-1 class differs."""
        return len(self.flips)

    def to_dict(self, most_flips: int | None = None) -> dict[str, Any]:
        """Plain JSON types, without NaN."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values |= {name: _side_dict(values[name]) for name in ("base", "other")}
        values |= {"n_flips": self.n_flips, "flips": self.flips.iloc[:most_flips].to_dict("records")}
        made: dict[str, Any] = plain(values)
        return made


def _side_dict(side: Predicted) -> dict[str, Any]:
    case = side.case
    return {"run": side.run, "case_id": case.case_id, "label": case.label, "case": case.to_dict()}


def compare(base: Predicted, other: Predicted) -> FlipLedger:
    """The ledger of two Cases, of one run or of two.

    Raises:
        BenchError: a side has an image twice, they have no image in common, or different labels for the same image.
    """
    base_rows, other_rows = _common(base, other)
    n = len(base_rows)
    if not n:
        raise BenchError(
            f"{_named(base)} and {_named(other)} have no image in common",
            "Compare Cases that were measured on the same images; ids are paths inside the data folder.",
        )
    labels = base.label[base_rows]
    _check_labels(base, other, base_rows, labels, other.label[other_rows])
    base_top, other_top = base.top[base_rows], other.top[other_rows]
    same = base_top == other_top
    reason = base.no_accuracy or other.no_accuracy
    top1 = top5 = None
    kinds = np.full(n, None, dtype=object)
    if not reason:
        base_hits, other_hits = base_top == labels[:, None], other_top == labels[:, None]
        tied = (base.margin[base_rows] == 0) | (other.margin[other_rows] == 0)
        top1 = paired(base_hits[:, 0], other_hits[:, 0], tied)
        top5 = paired(base_hits.any(axis=1), other_hits.any(axis=1))
        kinds = np.select([other_hits[:, 0], base_hits[:, 0]], [WIN, LOSS], BOTH_WRONG).astype(object)
    flips = _flips(base, other, (base_rows, other_rows), kinds)
    return FlipLedger(
        base=base,
        other=other,
        n_images=n,
        only_base=_one_sided(base, base_rows),
        only_other=_one_sided(other, other_rows),
        agreement_percent=100.0 * (n - len(flips)) / n,
        top5_ordered_agreement_percent=100.0 * float(same.all(axis=1).mean()),
        no_accuracy=reason,
        top1=top1,
        top5=top5,
        flips=flips,
        margins=margin_sentence(flips["base_margin"].to_numpy(), base.margin[base_rows]),
    )


def _flips(
    base: Predicted, other: Predicted, rows: tuple[NDArray[np.intp], NDArray[np.intp]], kinds: NDArray[np.object_]
) -> pd.DataFrame:
    """The flips among the images that both sides have, of these rows; see ``FlipLedger``."""
    flipped = base.top[rows[0], 0] != other.top[rows[1], 0]
    mine, its = (side[flipped] for side in rows)
    ids = base.image_ids[base.image[mine]].to_numpy(dtype=object)
    order = np.lexsort((ids.astype(str), -base.margin[mine]))
    columns = {
        "image_id": ids,
        "label": base.label[mine],
        "base_top1": base.top[mine, 0],
        "other_top1": other.top[its, 0],
        "base_margin": base.margin[mine],
        "other_margin": other.margin[its],
        "kind": kinds[flipped],
    }
    return pd.DataFrame({name: values[order] for name, values in columns.items()})


def margin_sentence(flipped: NDArray[np.float32], all_margins: NDArray[np.float32]) -> str:
    """Such as "all 41 flips have a margin under 0.02 (half of them under 0.004), as have 213 of all 50,000 images".

    Args:
        flipped: the base's margins of the images that flipped.
        all_margins: the base's margins of all images in common.
    """
    n = len(flipped)
    if not n:
        return ""
    bound = _bound(float(flipped.max()))
    who = "the only flip has" if n == 1 else "both flips have" if n == 2 else f"all {n:,} flips have"
    if bound > 1.0:  # the base was certain, and no smaller bound says more
        return f"{who} a margin of up to 1"
    half = _bound(float(np.median(flipped)))
    # In 64 bits: 0.02 as a float32 is less than 0.02.
    within = int(np.count_nonzero(all_margins.astype(np.float64) < bound))
    middle = f" (half of them under {half:g})" if n > 2 and half < bound else ""
    verb = "has" if within == 1 else "have"
    return f"{who} a margin under {bound:g}{middle}, as {verb} {within:,} of all {len(all_margins):,} images"


def _bound(margin: float) -> float:
    """The next round number above a margin."""
    places: int = 2 if margin >= FINE_MARGIN or margin <= 0 else -math.floor(math.log10(margin))
    scale = 10.0**places
    steps = math.floor(margin * scale) + 1
    return (steps if steps / scale > margin else steps + 1) / scale  # 0.29 * 100 is less than 29


def _common(base: Predicted, other: Predicted) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of both sides that hold the same images, in the order of the other side."""
    for side in (base, other):
        _check_once(side)
    row_of = np.full(len(base.image_ids) + 1, -1, dtype=np.intp)  # one more, that a place of -1 stays -1
    row_of[base.image] = np.arange(len(base.image))
    places = other.image
    if other.image_ids is not base.image_ids:
        places = base.image_ids.get_indexer(other.image_ids)[other.image]
    base_rows = row_of[places]
    other_rows = np.flatnonzero(base_rows >= 0)
    return base_rows[other_rows], other_rows


def _check_once(side: Predicted) -> None:
    times = np.bincount(side.image, minlength=1)
    if times.max() > 1:
        again = side.image_ids[int(times.argmax())]
        raise BenchError(
            f"{_named(side)} has {int((times > 1).sum()):,} images more than once, '{again}' first",
            "Measure that Case again: pairs and shares need each image once.",
        )


def _check_labels(
    base: Predicted, other: Predicted, base_rows: NDArray[np.intp], labels: NDArray[np.int16], others: NDArray[np.int16]
) -> None:
    wrong = np.flatnonzero(labels != others)
    if len(wrong):
        first = wrong[0]
        image_id = base.image_ids[int(base.image[base_rows[first]])]
        raise BenchError(
            f"{len(wrong):,} of {len(labels):,} images have another label in {_named(other)} than in "
            f"{_named(base)}: '{image_id}' is class {others[first]} and was {labels[first]}",
            "Compare runs that read the same ground truth: look at the class folders or val.txt of both data folders.",
        )


def _one_sided(side: Predicted, common: NDArray[np.intp]) -> OneSided:
    alone = np.ones(len(side.image), dtype=bool)
    alone[common] = False
    places = side.image[alone]
    first = sorted(side.image_ids[places])[:FIRST_IDS]
    return OneSided(len(places), tuple(first))


def _named(side: Predicted) -> str:
    return f"Case {side.case.case_id} of {side.run}"
