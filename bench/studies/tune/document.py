"""What a search (``bench.studies.tune.search``) found, as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.report.document import Cell, Column, Document, Head, Table, count_cell, notes, number_cell, table_of
from bench.report.text import number, one_line, options_text
from bench.studies.tune.drive import Tuned
from bench.studies.tune.search import Standing, command


def document(tuned: Tuned) -> Document:
    """All candidates, and the command that measures the best."""
    table = tuning_table(tuned.standings)
    advice = []
    if tuned.best:
        advice = ["the fastest, to measure at length, with what bounds it:", command(tuned.best.case)]
    lines = notes([*tuned.notes, *advice, f"stored: {tuned.run}"])
    return Document(table.title, [table, *lines], tuned.to_dict())


def tuning_table(standings: Sequence[Standing]) -> Table:
    """A row a candidate, the best first."""
    first = standings[0].case
    columns: list[Column[Standing]] = [
        Column(Head("Batch", True), lambda standing: count_cell(standing.case.batch)),
        Column(Head("Instances", True), lambda standing: count_cell(standing.case.instances)),
        Column(Head("Threads", True), lambda standing: count_cell(standing.case.threads)),
        Column(Head("Options", folds=True), lambda standing: options_text(dict(standing.case.options))),
        Column(Head("Images/s", True), _rate),
        Column(Head("95 % interval", True, below=True), _interval),
        Column(Head("of best", True), _of_best),
        Column(Head("Rounds", True), lambda standing: count_cell(standing.n_rounds or None)),
        Column(Head("", folds=True), lambda standing: one_line(standing.why_not)),
    ]
    return table_of(
        f"{first.model}, {first.pipeline} and {first.backend} {first.device} {first.precision}, files to top-5",
        columns,
        standings,
        (
            "of best: images/s relative to the first row, median over the rounds that both took",
            "options not given: decode_threads are as many as threads",
        ),
    )


def _half_width(low: float | None, high: float | None) -> float | None:
    return None if low is None or high is None else (high - low) / 2.0


def _rate(standing: Standing) -> Cell:
    return number_cell(standing.images_per_s, _half_width(standing.low, standing.high))


def _interval(standing: Standing) -> str:
    half_width = _half_width(standing.low, standing.high)
    ends = [number(end, half_width) for end in (standing.low, standing.high)]
    return " to ".join(ends) if all(ends) else ""


def _of_best(standing: Standing) -> Cell:
    half_width = _half_width(standing.ratio_low, standing.ratio_high)
    cell = number_cell(standing.ratio, half_width)
    if half_width is None:
        return cell
    low, high = (number(end, half_width) for end in (standing.ratio_low, standing.ratio_high))
    return replace(cell, detail=f"{low} to {high}")
