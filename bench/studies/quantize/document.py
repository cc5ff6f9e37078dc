"""What a search for a recipe says at its end, as a document."""

from __future__ import annotations

from collections.abc import Sequence

from bench.report.document import Cell, Column, Document, Head, Table, notes, rounded_cell, table_of
from bench.report.text import whole
from bench.studies.quantize.measured import BOUND, ESTIMATE, Measured
from bench.studies.quantize.outcome import Outcome, Row, Speed

HOLDS = {BOUND: "yes", ESTIMATE: "by estimate", "": "no"}


def document(outcome: Outcome) -> Document:
    """The frontier and the sentences below it."""
    tables = [_table(outcome.rows, outcome.asked.margin_percent)] if outcome.rows else []
    title = f"INT8 recipes for {outcome.asked.spec.network.name} on {outcome.asked.backend}"
    return Document(title, [*tables, *notes(lines(outcome))], outcome.to_dict())


def _table(rows: Sequence[Row], margin_percent: float) -> Table:
    columns: list[Column[Row]] = [
        Column(Head("Recipe", folds=True), lambda row: row.measured.label),
        Column(Head("In INT8", True), lambda row: _in_int8(row.measured)),
        Column(Head("Top-1 %", True), lambda row: rounded_cell(row.measured.top1_percent, ".2f")),
        Column(Head("Points to FP32 (95 %)"), lambda row: points(row.measured)),
        Column(Head("Changed", True), lambda row: rounded_cell(row.measured.changed, "d")),
        Column(Head("Won", True), lambda row: rounded_cell(row.measured.wins, "d")),
        Column(Head("Lost", True), lambda row: rounded_cell(row.measured.losses, "d")),
        Column(Head("p50 ms", True), lambda row: rounded_cell(row.speed.median_ms, ".3g")),
        Column(Head("Time over FP32"), lambda row: Cell(ratio(row.speed), value=row.speed.ratio)),
        Column(Head("Within margin"), lambda row: HOLDS[row.measured.holds(margin_percent)]),
    ]
    title = f"Recipes on {whole(rows[0].measured.n)} search images, the closest to FP32 first"
    return table_of(title, columns, rows)


def _in_int8(one: Measured) -> Cell:
    layers = one.asked - len(one.not_as_asked)
    return Cell(f"{layers}/{one.layers}", value=layers)


def points(one: Measured) -> str:
    """The difference from FP32 in points of top-1, with its interval."""
    difference, low, high = one.points
    return f"{difference:+.2f} ({low:+.2f} to {high:+.2f})"


def ratio(speed: Speed) -> str:
    """Time over FP32's, with its interval and the verdict."""
    if speed.ratio is None:
        return speed.reason
    ends = "" if speed.low is None or speed.high is None else f" ({speed.low:.3f} to {speed.high:.3f})"
    return f"{speed.ratio:.3f}{ends} {speed.verdict}"


def lines(outcome: Outcome) -> list[str]:
    """The sentences: what is in float though requested in INT8, what was confirmed, what speed there is."""
    asked, one = outcome.asked, outcome.chosen
    said = []
    for row in outcome.rows:
        if row.measured.not_as_asked:
            said.append(
                f"{row.measured.label}: {len(row.measured.not_as_asked)} of {row.measured.asked} layers that it "
                f"quantises ran in float ({', '.join(row.measured.not_as_asked[:3])} ...)"
            )
    for confirmed in outcome.confirmed:
        holds = HOLDS[confirmed.holds(asked.margin_percent)]
        said.append(
            f"confirmed on {confirmed.n:,} other images: {confirmed.label}: top-1 {confirmed.top1_percent:.2f} %, "
            f"FP32 {confirmed.fp32_top1_percent:.2f} %, {points(confirmed)} points, {confirmed.changed} predictions "
            f"changed; within {asked.margin_percent:g} % of FP32's top-1: {holds}"
        )
    said += outcome.found.notes
    if outcome.rows:
        said.append(
            "within margin: 'yes' where the lower end of the 95 % interval is, 'by estimate' where only the difference "
            "itself is"
        )
    said.append(speed_sentence(outcome))
    if one is None:
        said.append(f"no recipe: {outcome.why}")
    elif outcome.within:
        said.append(f"recipe: {one.label}; {outcome.why}")
    else:
        said.append(
            f"no recipe within {asked.margin_percent:g} % of FP32's top-1: {outcome.why}; the closest: {one.label}"
        )
    return said


def speed_sentence(outcome: Outcome) -> str:
    """Whether INT8 gains speed on this backend, of what keeps within the margin."""
    backend, margin = outcome.asked.backend, f"{outcome.asked.margin_percent:g} %"
    timed = [row for row in outcome.rows if row.speed.ratio is not None]
    if not timed:
        return f"nothing was timed: whether INT8 gains speed on {backend} is open"
    held = [row for row in timed if row.measured.holds(outcome.asked.margin_percent)]
    which = [row for row in held if row.speed.verdict == "faster"] or held or timed
    best = min(which, key=lambda row: row.speed.ratio or 0.0)
    if held and best.speed.verdict == "faster":
        return f"INT8 within {margin} is faster than FP32 on {backend}: {ratio(best.speed)}"
    what = f"within {margin}" if held else "of any of these recipes"
    if any(row.speed.verdict == "unresolved" for row in which):
        return (
            f"whether INT8 {what} gains speed on {backend} is unresolved: at best {ratio(best.speed)}; a larger "
            "--budget or a quieter machine settles it"
        )
    return f"INT8 {what} gains no speed on {backend}: at best {ratio(best.speed)}"
