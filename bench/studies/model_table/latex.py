"""The field as a LaTeX table: published and measured accuracy side by side, latencies with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.accuracy.predictions import Predicted, ScoredRun
from bench.analysis.best import Best, most_accurate
from bench.analysis.table import DEMO_NOTE
from bench.report.latex.columns import LONGEST_NAME, LONGEST_REASON, Marks
from bench.report.latex.escape import escaped, shortened
from bench.report.latex.layout import Cell, Column, Span, TexTable, checked_label, source
from bench.studies.model_table import document as text
from bench.studies.model_table.rows import FieldRow, Row, Setup, setups

CAPTION = "Models measured and published: cost, ImageNet top-1 accuracy and latency."
LABEL = "tab:field"


def latex(made: Sequence[FieldRow], caption: str = "", label: str = "") -> str:
    """The table, ready for ``\\input``. A top-1 is bold where it is resolved against every other measured one.

    Args:
        made: the rows.
        caption: plain text; empty for the usual one.
        label: for ``\\ref``; empty for ``tab:field``.

    Raises:
        BenchError: the label cannot be one.
    """
    marks, best, columns = Marks(), _best(made), setups(made)
    names = text.setup_names(columns)
    # Units stand below the names, and the notes tell the interval's level: several backends must fit a page.
    heads = ["Model", "(M)", "(M)", "published", "measured"]
    heads += [head for _ in columns for head in ("median", "interval")]
    # Row by row, so that marks follow one another as they are read.
    cells = [_cells(row, columns, marks, best) for row in made]
    drawn = tuple(
        Column(head, tuple(row[place] for row in cells), "r" if place else "l")
        for place, head in enumerate(heads)
    )
    spans = [Span("Params", 1, 1), Span("Mult-adds", 2, 2), Span(r"Top-1 (\%)", 3, 4)]
    spans += [Span(escaped(f"{name} (ms)"), 5 + 2 * place, 6 + 2 * place) for place, name in enumerate(names)]
    notes = [rf"\textbf{{{escaped(mark, breakable=True)}}}" for mark in text.watermarks(made)]
    notes += [escaped(f"{line[0].upper()}{line[1:]}.", breakable=True) for line in text.how(made)]
    if best.case_ids:
        notes.append(
            escaped("Bold: higher than every other measured top-1, resolved at 95 % over all pairs.")
        )
    return source(
        TexTable(
            columns=drawn,
            caption=escaped(caption or CAPTION),
            label=checked_label(label or LABEL),
            notes=tuple(notes),
            marked=marks.notes(),
            breaks=frozenset(place for place in _first_published(made) if place),
            spans=tuple(spans),
            empty=escaped("no model"),
        )
    )


def _cells(row: FieldRow, columns: Sequence[Setup], marks: Marks, best: Best) -> list[Cell]:
    cells = [
        _model(row, marks),
        _figure(text.parameters(row), marks),
        _figure(text.multiply_adds(row), marks),
        _published(row, marks),
        _measured(row, marks, best),
    ]
    for setup in columns:
        cells += [_latency(row, setup, marks), _interval(row.latencies.get(setup))]
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


def _first_published(made: Sequence[FieldRow]) -> list[int]:
    """Where the rows of papers alone begin."""
    return [place for place, row in enumerate(made) if row.status == "published"][:1]


def _model(row: FieldRow, marks: Marks) -> Cell:
    name = row.published.name if row.published else _short(row.model)
    mark = ""
    if row.status not in ("ok", "published") and not row.latencies:
        mark = marks.of(f"{row.status}: {shortened(row.reason, LONGEST_REASON)}")
    return Cell(escaped(name), mark=mark)


def _short(model: str) -> str:
    kind, colon, path = model.partition(":")
    return shortened(path.replace("\\", "/").rpartition("/")[2] if colon and path else kind, LONGEST_NAME)


def _figure(figure: text.Figure, marks: Marks) -> Cell:
    mark = marks.of(text.AS_PUBLISHED) if figure.is_published else ""
    return Cell(figure.text, number=bool(figure.text), mark=mark)


def _published(row: FieldRow, marks: Marks) -> Cell:
    mark = marks.of(f"published: {row.published.source}") if row.published else ""
    value = text.published_top1(row)
    return Cell(value, number=bool(value), mark=mark)


def _measured(row: FieldRow, marks: Marks, best: Best) -> Cell:
    value = text.measured_top1(row)
    mark = marks.of(DEMO_NOTE) if value and row.is_demo else ""
    bold = row.accuracy is not None and row.accuracy["case_id"] in best.case_ids
    return Cell(value, bool(value), bold, mark)


def _latency(row: FieldRow, setup: Setup, marks: Marks) -> Cell:
    its = row.latencies.get(setup)
    if its is None:
        return Cell()
    value = text.latency(its)
    mark = (
        ""
        if its["status"] == "ok"
        else marks.of(f"{its['status']}: {shortened(its['reason'], LONGEST_REASON)}")
    )
    return Cell(value, number=True, mark=mark) if value else Cell(escaped(its["status"]), mark=mark)


def _interval(row: Row | None) -> Cell:
    low, high = text.interval(row) if row is not None else ("", "")
    return Cell(f"{low}--{high}" if low and high else "")
