"""The field as a LaTeX table: published and measured accuracy side by side, latencies with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.accuracy.predictions import Predicted, ScoredRun
from bench.analysis.best import Best, most_accurate
from bench.analysis.table import DEMO_NOTE
from bench.report.latex.layout import Cell, Column, TexTable, source
from bench.report.latex.table import ended, model_name
from bench.studies.model_table import document as text
from bench.studies.model_table.rows import FieldRow, Row, Setup, setups

CAPTION = "Models measured and published: cost, ImageNet top-1 accuracy and latency."
LABEL = "tab:field"
BOLD = "Bold: higher than every other measured top-1, resolved at 95 % over all pairs."


def latex(made: Sequence[FieldRow], caption: str = "", label: str = "") -> str:
    """The table, ready for ``\\input``. A top-1 is bold where it is resolved against every other measured one.

    Args:
        made: the rows.
        caption: plain text; empty for the usual one.
        label: for ``\\ref``; empty for ``tab:field``.

    Raises:
        BenchError: the label cannot be one.
    """
    best, columns = _best(made), setups(made)
    # Units stand below the names, and the notes tell the interval's level: several backends must fit a page.
    heads = [Column("Model"), Column("(M)", "r", "Params"), Column("(M)", "r", "Mult-adds")]
    heads += [Column(head, "r", "Top-1 (%)") for head in ("published", "measured")]
    heads += [
        Column(head, "r", f"{name} (ms)")
        for name in text.setup_names(columns)
        for head in ("median", "interval")
    ]
    first_published = [index for index, row in enumerate(made) if row.status == "published"][:1]
    return source(
        TexTable(
            columns=heads,
            rows=[_cells(row, columns, best) for row in made],
            caption=caption or CAPTION,
            label=label or LABEL,
            watermarks=text.watermarks(made),
            notes=[f"{line[0].upper()}{line[1:]}." for line in text.how(made)] + [BOLD] * bool(best.case_ids),
            breaks=frozenset(first_published) - {0},
            empty="no model",
        )
    )


def _cells(row: FieldRow, columns: Sequence[Setup], best: Best) -> list[Cell]:
    measured = text.measured_top1(row)
    is_best = row.accuracy is not None and row.accuracy["case_id"] in best.case_ids
    cells = [
        _model(row),
        *(
            Cell(figure.text, bool(figure.text), note=text.AS_PUBLISHED if figure.is_published else "")
            for figure in (text.parameters(row), text.multiply_adds(row))
        ),
        Cell(
            text.published_top1(row),
            row.published is not None,
            note=f"published: {row.published.source}" if row.published else "",
        ),
        Cell(measured, bool(measured), is_best, DEMO_NOTE if measured and row.is_demo else ""),
    ]
    for setup in columns:
        cells += _latency(row.latencies.get(setup))
    return cells


def _best(made: Sequence[FieldRow]) -> Best:
    """The model with the highest top-1, where the difference to all others is resolved on the images they share."""
    found: list[Predicted] = []
    for row in made:
        if row.run is None or row.accuracy is None or row.top1_percent is None:
            continue
        predicted = ScoredRun.open(row.run).predicted.get(row.accuracy["case_id"])
        if predicted is not None:
            found.append(predicted)
    # A Case that stands there twice, of two runs, could not be told apart by its id.
    ids = [predicted.case.case_id for predicted in found]
    return most_accurate([found]) if len(set(ids)) == len(ids) else Best()


def _model(row: FieldRow) -> Cell:
    failed = row.status not in ("ok", "published") and not row.latencies
    return Cell(
        row.published.name if row.published else model_name(row.model),
        note=ended({"status": row.status, "reason": row.reason}) if failed else "",
    )


def _latency(row: Row | None) -> list[Cell]:
    """The median, and its interval."""
    if row is None:
        return [Cell(), Cell()]
    value, (low, high) = text.latency(row), text.interval(row)
    note = "" if row["status"] == "ok" else ended(row)
    return [
        Cell(value or row["status"], bool(value), note=note),
        Cell(f"{low}–{high}" if low and high else ""),
    ]
