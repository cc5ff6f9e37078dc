"""The flip ledger and the accuracy waterfall for people: tables and sentences that all forms share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from bench.analysis.accuracy.flips import FlipLedger, OneSided
from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.accuracy.waterfall import Step, steps
from bench.analysis.columns import PREDICTIONS
from bench.analysis.stats.paired import Paired
from bench.record.case import Case
from bench.report.document import Cell, Column, Head, Table, count_cell, table_of
from bench.report.text import one_line, percent, row_names, two_digits
from scarlet.errors import BenchError

# Fields of a Case that are named only where they differ among the Cases shown.
VARYING = ("model", "weights", "pipeline", "batch", "threads")

POINTS = "points: the difference and its 95 % interval, paired by image"
TOO_FEW = "too few images to resolve any difference"
WATERFALL = "Where accuracy was lost"


def short_names(cases: Sequence[Case]) -> list[str]:
    """What tells each of these accuracy Cases from the others: backend, device, precision, options, what varies.

    Cases of one name (of two runs, or that differ in nothing else) carry their ids.
    """
    called = row_names([case.to_dict() for case in cases], varying=VARYING)
    return [
        f"{name} ({case.case_id})" if called.count(name) > 1 else name for name, case in zip(called, cases, strict=True)
    ]


def names_of(ledgers: Sequence[FlipLedger]) -> list[str]:
    """What to call the base that these ledgers share, and then each other side; empty where there is no ledger."""
    return short_names([*(ledger.base.case for ledger in ledgers[:1]), *(ledger.other.case for ledger in ledgers)])


def points(value: float, n: int) -> str:
    """A difference of two percentages of n images, signed, with no digit finer than one image."""
    digits = max(0, math.ceil(math.log10(n / 100)))
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text


def p_text(p_value: float) -> str:
    """A p value in two digits."""
    return "<0.0001" if p_value < 0.0001 else f"{p_value:.2g}"


def difference_cell(pair: Paired | None, n: int) -> Cell:
    """A difference of two percentages of n images, in points, with its interval."""
    if pair is None:
        return Cell()
    low, high = points(pair.low_points, n), points(pair.high_points, n)
    return Cell(points(pair.difference_points, n), f"{low} to {high}", pair.difference_points)


def _both(pair: Paired | None, n: int) -> Cell:
    if pair is None:
        return Cell()
    return Cell(f"{percent(pair.base_percent, n)} to {percent(pair.other_percent, n)}", value=pair.base_percent)


def _p(pair: Paired | None) -> Cell:
    return Cell(p_text(pair.p_value), value=pair.p_value) if pair else Cell()


def _share(value: float | None, n: int) -> Cell:
    return Cell(percent(value, n), value=value)


def _resolvable(pair: Paired | None) -> str:
    if pair is None or pair.resolvable_points is None:
        return ""
    return two_digits(pair.resolvable_points)


_CELLS: dict[str, Callable[[FlipLedger], Cell]] = {
    "Images": lambda ledger: count_cell(ledger.n_images),
    "Flips": lambda ledger: count_cell(ledger.n_flips),
    "Wins": lambda ledger: count_cell(ledger.top1.wins if ledger.top1 else None),
    "Losses": lambda ledger: count_cell(ledger.top1.losses if ledger.top1 else None),
    "Ties": lambda ledger: count_cell((ledger.top1.ties or None) if ledger.top1 else None),
    "p": lambda ledger: _p(ledger.top1),
    "Top-1 points": lambda ledger: difference_cell(ledger.top1, ledger.n_images),
    "Resolves": lambda ledger: Cell(
        _resolvable(ledger.top1), value=ledger.top1.resolvable_points if ledger.top1 else None
    ),
    "Top-5 points": lambda ledger: difference_cell(ledger.top5, ledger.n_images),
    "Top-1 %": lambda ledger: _both(ledger.top1, ledger.n_images),
    "Same top-1 %": lambda ledger: _share(ledger.agreement_percent, ledger.n_images),
    "Same top-5 %": lambda ledger: _share(ledger.top5_ordered_agreement_percent, ledger.n_images),
}
# The report has the accuracies and the agreement in its own table.
REPORT = ("Images", "Flips", "Wins", "Losses", "Ties", "p", "Top-1 points", "Resolves", "Top-5 points")
# A terminal has 80 characters: two tables.
COUNTS = ("Images", "Flips", "Wins", "Losses", "p", "Top-1 points")
TOTALS = ("Ties", "Top-1 %", "Top-5 points", "Same top-1 %", "Same top-5 %")


def ledgers_table(
    title: str, names: Sequence[str], ledgers: Sequence[FlipLedger], columns: Sequence[str], *notes: str
) -> Table:
    """A row for each ledger; columns that no ledger can fill are left out.

    Args:
        names: of the sides that are judged, in the order of the ledgers.
    """
    named = dict(zip(map(id, ledgers), names, strict=True))
    made = table_of(
        title,
        [
            Column(Head("Case"), lambda ledger: named[id(ledger)]),
            *(Column(Head(header, True), _CELLS[header], "known") for header in columns),
        ],
        ledgers,
        notes,
    )
    return replace(made, records=tuple(_record(ledger.other.case, ledger.base.case) for ledger in ledgers))


def _record(case: Case, base: Case | None) -> dict[str, str]:
    """Whose row it is, and the words for where its numbers come from."""
    against = f" against Case {base.case_id}, image by image" if base else ""
    return {"case_id": case.case_id, "title": f"Case {case.case_id}{against}, from {PREDICTIONS}"}


def how_to_read(ledgers: Sequence[FlipLedger]) -> tuple[str, ...]:
    """What the columns mean, and what the images resolve; nothing where nothing is scored."""
    pairs = [ledger.top1 for ledger in ledgers if ledger.top1]
    if not pairs:
        return ()
    alone = f" of each Case on its own: {len(pairs)} times the least is that of all together" * (len(pairs) > 1)
    counts = f"win: right where the base is wrong; loss: the reverse; p: exact McNemar test{alone}"
    if any(pair.ties for pair in pairs):
        counts += "; tie: two first classes of equal logits, told apart by a hash of the image's id, and not in p"
    least = {_resolvable(pair): pair.resolvable_points or 0.0 for pair in pairs}
    if "" in least:
        return counts, POINTS, TOO_FEW
    between = " to ".join(dict.fromkeys((min(least, key=least.__getitem__), max(least, key=least.__getitem__))))
    return (
        counts,
        POINTS,
        f"resolved: top-1 differences of {between} points or more (80 % power), if as many images differ as here",
    )


def lines(names: Sequence[str], ledgers: Sequence[FlipLedger]) -> list[str]:
    """What must be said beyond the tables: margins, images of one side only, why nothing is scored."""
    said = [
        f"{name}: {line}"
        for name, ledger in zip(names, ledgers, strict=True)
        for line in [*([ledger.margins] if ledger.margins else []), *one_sided(ledger)]
    ]
    reasons = dict.fromkeys(ledger.no_accuracy for ledger in ledgers if ledger.no_accuracy)
    for reason in reasons:
        who = [name for name, ledger in zip(names, ledgers, strict=True) if ledger.no_accuracy == reason]
        said.append(reason if len(who) == len(ledgers) else f"{', '.join(who)}: {reason}")
    return said


def one_sided(ledger: FlipLedger) -> list[str]:
    """How many images only one side has, and the first of them; nothing where both have the same."""
    return _only_in("the base", ledger.only_base) + _only_in("the other side", ledger.only_other)


def _only_in(side: str, alone: OneSided) -> list[str]:
    if not alone.count:
        return []
    more = ", ..." if alone.count > len(alone.first_ids) else ""
    are = "image is" if alone.count == 1 else "images are"
    return [f"{alone.count:,} {are} only in {side}: {', '.join(map(one_line, alone.first_ids))}{more}"]


def all_same(base: str, names: Sequence[str], ledgers: Sequence[FlipLedger]) -> str:
    """A sentence where no image changed sides."""
    n = min(ledger.n_images for ledger in ledgers)
    said = [f"On all {n:,} images {', '.join(names)} and {base} have the same top-1 class."]
    for name, ledger in zip(names, ledgers, strict=True):
        said += [f"{name}: {line}." for line in one_sided(ledger)]
    return one_line(" ".join(said))


def flips_tables(names: Sequence[str], ledgers: Sequence[FlipLedger], most: int) -> Iterator[Table]:
    """Of each ledger that has some the flips with the largest margin of the base, at most so many."""
    for name, ledger in zip(names, ledgers, strict=True):
        if most and ledger.n_flips:
            shown = min(most, ledger.n_flips)
            title = f"{name}: {shown} of {ledger.n_flips:,} flips, the largest margin of the base first (class, margin)"
            columns: list[Column[Any]] = [
                Column(Head("Image"), lambda flip: one_line(flip.image_id)),
                Column(Head("Label", True), lambda flip: str(flip.label)),
                Column(Head("Base", True), lambda flip: Cell(str(flip.base_top1), f"{flip.base_margin:.2g}")),
                Column(Head("Other", True), lambda flip: Cell(str(flip.other_top1), f"{flip.other_margin:.2g}")),
            ]
            if not ledger.no_accuracy:
                columns.append(Column(Head("Kind"), lambda flip: flip.kind or ""))
            yield replace(table_of(title, columns, list(ledger.flips.iloc[:most].itertuples())), level=3)


def telling_steps(run: ScoredRun) -> list[Step]:
    """The steps of a run's waterfall; none where one step is all there is, which the tables of flips show as well."""
    try:
        found = steps(run)
    except BenchError:
        return []  # the section on flips says what is wrong with the predictions
    return list(found) if max((step.depth for step in found), default=0) > 1 else []


def waterfall_table(shown: Sequence[Step]) -> Table | None:
    """A row a step; None where there is no step to show."""
    if not any(step.ledger for step in shown):
        return None
    names = dict(zip(map(id, shown), short_names([step.case for step in shown]), strict=True))
    columns: list[Column[Step]] = [
        Column(Head("Case"), lambda step: names[id(step)]),
        Column(Head("Step"), lambda step: step.change),
        Column(
            Head("Top-1 %", True),
            lambda step: (
                _share(step.ledger.top1.other_percent, step.ledger.n_images) if step.ledger and step.ledger.top1 else ""
            ),
        ),
        Column(Head("Step, points", True), lambda step: _of_ledger(step.ledger)),
        Column(Head("p", True), lambda step: _p(step.ledger.top1) if step.ledger else ""),
        Column(
            Head("Flips", True),
            lambda step: Cell(str(step.ledger.n_flips), value=step.ledger.n_flips) if step.ledger else "",
        ),
        Column(Head("From the start, points", True), lambda step: _of_ledger(step.total)),
    ]
    note = (
        "each step is against the Case it differs from in that one thing, on the same images, with the 95 % interval "
        "of the paired difference"
    )
    made = table_of("", columns, shown, (note,))
    return replace(made, records=tuple(_record(step.case, step.parent) for step in shown))


def _of_ledger(ledger: FlipLedger | None) -> Cell:
    return difference_cell(ledger.top1, ledger.n_images) if ledger else Cell()
