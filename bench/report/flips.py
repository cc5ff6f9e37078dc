"""The flip ledger for people: tables and sentences that the terminal and ``report.md`` share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.analysis.accuracy.flips import Flip, FlipLedger, OneSided
from bench.record.case import Case
from bench.report.sentences import one_line
from bench.report.tables import Table
from bench.report.text import percent, whole

if TYPE_CHECKING:
    from bench.analysis.stats.paired import Paired

# Fields of a Case that are named only where they differ among the Cases shown.
VARYING = ("model", "weights", "pipeline", "batch", "threads")

POINTS = "points: the difference and its 95 % interval, paired by image"
TOO_FEW = "too few images to resolve any difference"


def short_names(cases: Sequence[Case]) -> list[str]:
    """What tells each of these accuracy Cases from the others: backend, device, precision, options, what varies.

    Cases of one name (of two runs, or that differ in nothing else) carry their ids.
    """
    varying = [name for name in VARYING if len({getattr(case, name) for case in cases}) > 1]
    names = []
    for case in cases:
        parts = [
            case.backend,
            case.device,
            case.precision,
            *(f"{key}={value}" for key, value in case.options),
        ]
        names.append(one_line(" ".join([*parts, *(f"{name} {getattr(case, name)}" for name in varying)])))
    return [
        f"{name} ({case.case_id})" if names.count(name) > 1 else name
        for name, case in zip(names, cases, strict=True)
    ]


def points(value: float, n: int) -> str:
    """A difference of two percentages of n images, signed, with no digit finer than one image."""
    digits = max(0, math.ceil(math.log10(n / 100)))
    text = f"{value:+.{digits}f}"
    return text[1:] if not float(text) else text


def p_text(p_value: float) -> str:
    """A p value in two digits."""
    return "<0.0001" if p_value < 0.0001 else f"{p_value:.2g}"


def _difference(pair: Paired | None, n: int) -> str:
    if pair is None:
        return ""
    low, high = points(pair.low_points, n), points(pair.high_points, n)
    return f"{points(pair.difference_points, n)} ({low} to {high})"


def _both(pair: Paired | None, n: int) -> str:
    return "" if pair is None else f"{percent(pair.base_percent, n)} to {percent(pair.other_percent, n)}"


def _resolvable(pair: Paired | None) -> str:
    if pair is None or pair.resolvable_points is None:
        return ""
    return f"{float(f'{pair.resolvable_points:.2g}'):g}"  # 100, and not 1e+02


_Cell = Callable[[FlipLedger], str]

_CELLS: dict[str, _Cell] = {
    "Images": lambda ledger: whole(ledger.n_images),
    "Flips": lambda ledger: whole(ledger.n_flips),
    "Wins": lambda ledger: whole(ledger.top1.wins if ledger.top1 else None),
    "Losses": lambda ledger: whole(ledger.top1.losses if ledger.top1 else None),
    "p": lambda ledger: p_text(ledger.top1.p_value) if ledger.top1 else "",
    "Top-1 points": lambda ledger: _difference(ledger.top1, ledger.n_images),
    "Resolves": lambda ledger: _resolvable(ledger.top1),
    "Top-5 points": lambda ledger: _difference(ledger.top5, ledger.n_images),
    "Top-1 %": lambda ledger: _both(ledger.top1, ledger.n_images),
    "Same top-1 %": lambda ledger: percent(ledger.agreement_percent, ledger.n_images),
    "Same top-5 %": lambda ledger: percent(ledger.top5_ordered_agreement_percent, ledger.n_images),
}
# The report has the accuracies and the agreement in its own table.
REPORT = ("Images", "Flips", "Wins", "Losses", "p", "Top-1 points", "Resolves", "Top-5 points")
# A terminal has 80 characters: two tables.
COUNTS = ("Images", "Flips", "Wins", "Losses", "p", "Top-1 points")
TOTALS = ("Top-1 %", "Top-5 points", "Same top-1 %", "Same top-5 %")


def ledgers_table(
    title: str, names: Sequence[str], ledgers: Sequence[FlipLedger], columns: Sequence[str], *notes: str
) -> Table:
    """A row for each ledger; columns that no ledger can fill are left out.

    Args:
        title: what they are compared with.
        names: of the sides that are judged, in the order of the ledgers.
        ledgers: at least one.
        columns: ``REPORT``, ``COUNTS`` or ``TOTALS``.
        notes: lines to stand below.
    """
    shown = {header: [_CELLS[header](ledger) for ledger in ledgers] for header in columns}
    kept = {header: cells for header, cells in shown.items() if any(cells)}
    return Table(
        title=one_line(title),
        header=("Case", *kept),
        rows=tuple(zip(names, *kept.values(), strict=True)),
        numeric=(False, *(True for _ in kept)),
        notes=notes,
    )


def how_to_read(ledgers: Sequence[FlipLedger]) -> tuple[str, ...]:
    """What the columns mean, and what the images resolve; nothing where nothing is scored."""
    pairs = [ledger.top1 for ledger in ledgers if ledger.top1]
    if not pairs:
        return ()
    alone = "; each Case on its own" if len(ledgers) > 1 else ""
    counts = f"win: right where the base is wrong; loss: the reverse; p: exact McNemar test{alone}"
    least = {_resolvable(pair): pair.resolvable_points or 0.0 for pair in pairs}
    if "" in least:
        return counts, POINTS, TOO_FEW
    between = " to ".join(
        dict.fromkeys((min(least, key=least.__getitem__), max(least, key=least.__getitem__)))
    )
    return (
        counts,
        POINTS,
        f"resolved: top-1 differences of {between} points or more (80 % power, as many images differing as seen)",
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


def flips_table(title: str, ledger: FlipLedger, most: int) -> Table:
    """The flips with the largest margin of the base, at most so many; each class with its side's margin."""
    scored = not ledger.no_accuracy
    return Table(
        title=one_line(title),
        header=("Image", "Label", "Base", "Other", *(["Kind"] if scored else [])),
        rows=tuple(_flip_cells(flip) for flip in ledger.flips.first(most)),
        numeric=(False, True, True, True, *([False] if scored else [])),
    )


def _flip_cells(flip: Flip) -> tuple[str, ...]:
    base = f"{flip.base_top1} ({flip.base_margin:.2g})"
    other = f"{flip.other_top1} ({flip.other_margin:.2g})"
    return (one_line(flip.image_id), str(flip.label), base, other, *([flip.kind] if flip.kind else []))
