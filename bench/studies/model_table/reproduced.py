"""Are a model's published figures met? Each with what was measured, its interval, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt

from bench.report.document import Column, Document, Head, notes, table_of
from bench.studies.model_table.rows import FieldRow
from scarlet.errors import BenchError

FULL_SET = 50_000  # ILSVRC2012's validation images
# What another decoder, resize or rounding of arithmetic may move top-1 by, of the same network on the same images.
PIXELS_PERCENT = 0.1

REPRODUCED, NOT_REPRODUCED, NOT_RESOLVED = "reproduced", "not reproduced", "not resolved"


@dataclass(frozen=True)
class Figure:
    """A published figure and what was measured of it, in the unit of its name; ``why`` where it is not resolved."""

    name: str
    published: float
    within: float
    low: float | None
    high: float | None
    why: str = ""

    @property
    def verdict(self) -> str:
        """Reproduced where all of the interval is as near as ``within``, not reproduced where none of it is."""
        if self.why or self.low is None or self.high is None:
            return NOT_RESOLVED
        least, most = self.published - self.within, self.published + self.within
        if least <= self.low and self.high <= most:
            return REPRODUCED
        return NOT_REPRODUCED if self.high < least or self.low > most else NOT_RESOLVED


def figures(row: FieldRow) -> list[Figure]:
    """Top-1 (in per cent), parameters and multiply-adds (in millions) of a model's row.

    Raises:
        BenchError: nothing is published of the model.
    """
    said, counts = row.published, {"parameters": row.parameters, "multiply_adds": row.multiply_adds}
    if said is None:
        raise BenchError(f"nothing is published of {row.model}", "Name a model of `scarlet-bench table --published`.")
    found = [_top1(row, said.top1_percent)]
    for name, count in counts.items():
        published = getattr(said, f"{name}_millions")
        # A count has no error; what was printed has few digits.
        value = None if count is None else count / 1e6
        found.append(Figure(f"{name}_millions", published, _last_digit(published), value, value))
    return found


def _top1(row: FieldRow, published: float) -> Figure:
    """Of images drawn from the whole set the interval narrows to nothing as all of them are scored: Wilson's, with the
    finite population's correction.
    """
    within, n, top1 = _last_digit(published) + PIXELS_PERCENT, row.n_images or 0, row.top1_percent
    dataset = row.info.get("dataset") or {}
    why = row.reason or ("" if top1 is not None else f"{row.weights or 'no'} weights have no top-1 here")
    if row.is_demo or dataset.get("n_images_in_set") != FULL_SET or dataset.get("n_classes_present", 1000) != 1000:
        why = why or f"the images are not ImageNet's {FULL_SET:,} for validation"
    if top1 is None or not n:
        return Figure("top1_percent", published, within, None, None, why)
    share, z2 = top1 / 100, 1.96**2 * max(0, FULL_SET - n) / (FULL_SET - 1)
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Figure("top1_percent", published, within, 100 * (middle - half), 100 * (middle + half), why)


def _last_digit(printed: float) -> float:
    """One of the last digit that was printed: papers round, or cut off."""
    return 10.0 ** -len(str(printed).partition(".")[2])


def document(row: FieldRow, found: Sequence[Figure]) -> Document:
    """The figures as a table, with the paper that they are of."""
    columns: list[Column[Figure]] = [
        Column(Head("Figure"), lambda one: one.name),
        Column(Head("Published", True), lambda one: f"{one.published} ± {one.within:g}"),
        Column(Head("Measured", True), lambda one: "" if one.low is None else f"{one.low:.2f} to {one.high:.2f}"),
        Column(Head("Verdict", folds=True), lambda one: f"{one.verdict}{f': {one.why}' if one.why else ''}"),
    ]
    lines = [
        row.published.source if row.published else "",
        f"top-1 on {row.n_images or 0:,} images, {row.weights} weights",
        f"±: one of the last digit printed, and for top-1 {PIXELS_PERCENT:g} for other decoders and resizing",
    ]
    data = {"model": row.model, "figures": [{**asdict(one), "verdict": one.verdict} for one in found]}
    return Document(f"Published figures of {row.model}", [table_of("", columns, found), *notes(lines)], data)
