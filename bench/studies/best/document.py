"""What a search (``bench.studies.best.drive``) found, as a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from bench.report.document import (
    Block,
    Cell,
    Column,
    Document,
    Head,
    Table,
    count_cell,
    interval_cell,
    notes,
    number_cell,
    rounded_cell,
    table_of,
)
from bench.report.text import one_line, options_text
from bench.studies.best import search
from bench.studies.best.drive import Found, Judged, form_key
from bench.studies.best.search import Standing


def document(found: Found) -> Document:
    """The forms with their accuracy, all candidates, and what to deploy."""
    blocks: list[Block] = [forms_table(found)] if found.judged else []
    blocks.append(tuning_table(found.standings, found.proofs))
    lines = list(found.notes)
    if found.best:
        n_tied = sum((standing.ratio_high or 0.0) >= 1.0 for standing in found.standings[1:])
        lines += [f"as fast as the first, as far as these rounds tell: {n_tied} more"] if n_tied else []
        lines += [f"to deploy: {found.deploy['file']}", f"session: {options_text(found.deploy['session'])}"]
        lines += [f"to measure it again: {found.command}"]
    title = f"What to deploy of {found.standings[0].case.model}" if found.standings else "What to deploy"
    return Document(title, [*blocks, *notes([*lines, f"stored: {found.run}"])], found.to_dict())


def forms_table(found: Found) -> Table:
    """A row a runtime and precision: top-1 against FP32's, and the fastest way of running it."""
    rates = {each.case: each.images_per_s for each in reversed(found.standings) if each.images_per_s}
    fastest: dict[tuple[Any, ...], float] = {}
    for case, rate in rates.items():
        fastest[form_key(case)] = max(rate, fastest.get(form_key(case), 0.0))

    def on_frontier(own: Judged) -> str:
        rate = fastest.get(form_key(own.case))
        if rate is None or own.top1_percent is None:
            return ""
        others = [(fastest.get(form_key(each.case)) or 0.0, each.top1_percent or 0.0) for each in found.judged]
        beaten = any(r >= rate and t >= own.top1_percent and (r, t) != (rate, own.top1_percent) for r, t in others)
        return "" if beaten else "yes"

    columns: list[Column[Judged]] = [
        Column(Head("Backend"), lambda form: form.case.backend),
        Column(Head("Precision"), lambda form: form.case.precision),
        Column(Head("Pipeline"), lambda form: form.case.pipeline),
        Column(Head("Options", folds=True), lambda form: options_text(dict(form.case.options))),
        Column(Head("Top-1 %", True), lambda form: rounded_cell(form.top1_percent, ".2f")),
        Column(Head("difference", True), lambda form: _points(form, form.difference_points)),
        Column(Head("at least", True), lambda form: _points(form, form.low_points)),
        Column(Head("kept"), lambda form: "" if form.why_not else "yes" if form.within else "not shown"),
        Column(Head("Images/s", True), lambda form: number_cell(fastest.get(form_key(form.case)))),
        Column(Head("frontier"), on_frontier),
        Column(Head("", folds=True), lambda form: one_line(form.why_not)),
    ]
    return table_of(
        f"Accuracy: at most {found.loss_percent:g} % of FP32's top-1 may be lost",
        columns,
        found.judged,
        (
            "difference: of top-1 from FP32, in points; at least: its lower bound, 95 % for all rows together",
            "nothing was chosen on these images",
            "images/s: of the fastest way tried; frontier: no other row is both faster and more accurate",
        ),
    )


def _points(form: Judged, value: float) -> Cell:
    return rounded_cell(None if form.why_not else value, "+.2f")


def tuning_table(standings: Sequence[Standing], proofs: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a candidate, the best first."""
    columns: list[Column[Standing]] = [
        Column(Head("Backend"), lambda standing: standing.case.backend, "varies"),
        Column(Head("Precision"), lambda standing: standing.case.precision, "varies"),
        Column(Head("Pipeline"), lambda standing: standing.case.pipeline, "varies"),
        Column(Head("Batch", True), lambda standing: count_cell(standing.case.batch)),
        Column(Head("Instances", True), lambda standing: count_cell(standing.case.instances)),
        Column(Head("Threads", True), lambda standing: count_cell(standing.case.threads)),
        Column(Head("Options", folds=True), lambda standing: options_text(dict(standing.case.options))),
        Column(Head("Images/s", True), lambda one: replace(_rate(one), detail="")),
        Column(Head("95 % interval", True, below=True), lambda one: _rate(one).detail),
        Column(Head("of best", True), lambda one: interval_cell(one.ratio, one.ratio_low, one.ratio_high)),
        Column(Head("Latency ms", True), _latency, "known"),
        Column(
            Head("CPU"), lambda standing: " ".join(search.cpu_features(proofs.get(standing.case.case_id, {}))), "known"
        ),
        Column(Head("Rounds", True), lambda standing: count_cell(standing.n_rounds or None)),
        Column(Head("", folds=True), lambda standing: one_line(standing.why_not)),
    ]
    return table_of(
        "Files to top-5",
        columns,
        standings,
        (
            "images/s: as in the run's table; of best: relative to the first row, median over the rounds both took",
            "options not given: decode_threads are as many as threads",
            "CPU: extensions and narrow types of the layers' kernels, as far as the runtime tells",
        ),
    )


def _latency(standing: Standing) -> Cell:
    words = f"{standing.latency_ms:.3g} ({standing.latency_is})" if standing.latency_ms else ""
    return Cell(words, value=standing.latency_ms)


def _rate(standing: Standing) -> Cell:
    return interval_cell(standing.images_per_s, standing.low, standing.high)
