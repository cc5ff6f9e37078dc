"""The models table: as a document for every form, as LaTeX for papers, and the sentences below it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.accuracy.predictions import RANDOM_NOTE, ScoredRun
from bench.analysis.best import Best, most_accurate
from bench.analysis.table import DEMO_NOTE
from bench.backends import display_name
from bench.record.files import write_text
from bench.report.document import Cell, Column, Document, Head, Table, rounded_cell, table_of
from bench.report.forms import write_document
from bench.report.latex.layout import source
from bench.report.latex.table import ended, model_name
from bench.report.sentences import machine_lines, span, stages
from bench.report.text import interval_ends, one_line, percent, row_names, written
from bench.studies.model_table.rows import FieldRow, Row, Setup, setups

# Parts of a setup that are named only where they differ among the columns.
_VARYING = ("device", "precision", "options", "batch", "threads", "instances")
AS_PUBLISHED = "as published: the network was not built here"


def setup_names(columns: Sequence[Setup]) -> list[str]:
    """What to call each column: the backend, and what else tells it from the others."""
    settings = [{**vars(setup), "backend": display_name(setup.backend)} for setup in columns]
    return row_names(settings, ("backend",), _VARYING)


def shared_setup(columns: Sequence[Setup]) -> str:
    """What all columns have in common, in words; empty where there is no column."""
    same = [name for name in _VARYING if len({getattr(setup, name) for setup in columns}) == 1]
    if columns and columns[0].instances == 1:
        same = [name for name in same if name != "instances"]
    return ", ".join(filter(None, (row_names([vars(columns[0])], (name,))[0] for name in same)))


def document(rows: Sequence[FieldRow]) -> Document:
    """The table; for programs a line for each model and each of its latencies, in full precision."""
    lines = [line for row in rows for line in _lines(row)]
    frame = pd.DataFrame(lines, columns=list(_FRAME), dtype=object)
    return Document("The field", [table(rows)], [row.to_dict() for row in rows], {"field": frame})


def write_all(rows: Sequence[FieldRow], out: Path, caption: str = "", label: str = "") -> list[Path]:
    """Writes ``table.md``, ``table.csv`` and ``table.tex`` into a folder; gives the files."""
    path = out / "table.tex"
    write_text(path, latex(rows, caption, label))
    return [*(file for name in ("table.md", "table.csv") for file in write_document(document(rows), out / name)), path]


def table(rows: Sequence[FieldRow], best: Best | None = None) -> Table:
    """The field as a table for people.

    Args:
        best: for papers, where notes below cells tell what others tell in words: which top-1 is bold.
    """
    setups_ = setups(rows)
    columns: list[Column[FieldRow]] = [
        Column(Head("Model"), _model if best else lambda row: one_line(row.model)),
        Column(Head("M", True, over="Params"), lambda row: _cost(row, "parameters", best)),
        Column(Head("M", True, over="Mult-adds"), lambda row: _cost(row, "multiply_adds", best)),
        Column(Head("published", True, over="Top-1 %"), _published),
        Column(Head("measured", True, over="Top-1 %"), lambda row: _measured(row, best)),
        *(_latencies(setup, name, best) for setup, name in zip(setups_, setup_names(setups_), strict=True)),
    ]
    if best:
        return table_of("", columns, rows, [*how(rows), *[BOLD] * bool(best.case_ids)])
    columns.insert(1, Column(Head("Weights"), lambda row: row.weights))
    if any(row.status not in ("ok", "published") for row in rows):
        columns.append(Column(Head("Status"), lambda row: row.status))
    return table_of("The field", columns, rows, notes(rows))


def _model(row: FieldRow) -> Cell:
    name = row.published.name if row.published else model_name(row.model)
    failed = row.status not in ("ok", "published") and not row.latencies
    return Cell(name, note=ended({"status": row.status, "reason": row.reason}) if failed else "")


def _is_published(row: FieldRow, name: str) -> bool:
    """A cost is the paper's although the model was requested."""
    return getattr(row, name) is None and row.published is not None and row.status != "published"


def _cost(row: FieldRow, name: str, best: Best | None) -> Cell:
    """Millions of parameters, or of multiply-adds for one image."""
    own, digits = getattr(row, name), {"parameters": 2, "multiply_adds": 1}[name]
    if own is not None or row.published is None:
        return rounded_cell(None if own is None else own / 1e6, f".{digits}f")
    cell = rounded_cell(getattr(row.published, f"{name}_millions"), f".{digits - 1}f")  # papers print a digit less
    if not _is_published(row, name):
        return cell
    return replace(cell, note=AS_PUBLISHED) if best else replace(cell, text=f"{cell.text}*")


def _published(row: FieldRow) -> Cell:
    """Top-1 in per cent, as printed."""
    if row.published is None:
        return Cell()
    return replace(rounded_cell(row.published.top1_percent, ".1f"), note=f"published: {row.published.source}")


def _measured(row: FieldRow, best: Best | None) -> Cell:
    cell = Cell(percent(row.top1_percent, row.n_images), value=row.top1_percent)
    if cell.text and row.is_demo:
        cell = replace(cell, note=DEMO_NOTE) if best else replace(cell, detail="demo")
    is_best = best and row.accuracy is not None and row.accuracy["case_id"] in best.case_ids
    return replace(cell, mark="best") if is_best else cell


def _latencies(setup: Setup, name: str, best: Best | None) -> Column[FieldRow]:
    return Column(Head("ms", True, over=name), lambda row: _latency(row.latencies.get(setup), best))


def _latency(row: Row | None, best: Best | None) -> Cell:
    if row is None:
        return Cell()
    median, status = written("latency_ns_p50", row), row["status"]
    cell = Cell(median or status, " to ".join(interval_ends("latency_ns_p50", row) or ()), row["latency_ns_p50"])
    if status == "ok":
        return cell
    if best:
        return replace(cell, note=ended(row))
    return replace(cell, text=f"{median}, {status}" if median else status)


_FRAME = (
    *("model", "status", "reason", "weights", "parameters", "multiply_adds"),
    *("published_multiply_adds_millions", "published_parameters_millions", "published_top1_percent"),
    *("published_top5_percent", "published_source"),
    *("measured_top1_percent", "measured_top5_percent", "n_images", "is_demo"),
    *Setup.__dataclass_fields__,
    *("latency_ns_p50", "latency_ns_p50_low", "latency_ns_p50_high", "n_samples", "stage", "case_id"),
    *("latency_status", "latency_reason", "run"),
)
_RENAMED = {
    **{f"{name}_percent": f"measured_{name}_percent" for name in ("top1", "top5")},
    **{name: f"latency_ns_{name}" for name in ("p50", "p50_low", "p50_high")},
}


def _lines(row: FieldRow) -> Iterator[dict[str, Any]]:
    """A line for each latency of a row, one where there is none; it may hold more than ``_FRAME`` names."""
    model = row.to_dict()
    published, latencies = model.pop("published") or {}, model.pop("latencies")
    for times in latencies or [{}]:
        renamed = {f"latency_{name}": times.pop(name) for name in ("status", "reason") if name in times}
        values = {_RENAMED.get(name, name): value for name, value in {**model, **times}.items()}
        values |= {**renamed, **{f"published_{name}": value for name, value in published.items()}}
        yield {name: one_line(value) if isinstance(value, str) else value for name, value in values.items()}


CAPTION = "Models measured and published: cost, ImageNet top-1 accuracy and latency."
LABEL = "tab:field"
BOLD = "bold: higher than every other measured top-1, resolved at 95 % over all pairs"


def latex(rows: Sequence[FieldRow], caption: str = "", label: str = "") -> str:
    """The table, ready for ``\\input``. A top-1 is bold where it is resolved against every other measured one.

    Args:
        caption: plain text; empty for the usual one.
        label: for ``\\ref``; empty for ``tab:field``.

    Raises:
        BenchError: the label cannot be one.
    """
    statuses = [row.status for row in rows]
    return source(
        table(rows, _best(rows)),
        caption or CAPTION,
        label or LABEL,
        watermarks=watermarks(rows),
        breaks=frozenset([statuses.index("published")] if "published" in statuses[1:] else []) - {0},
    )


def _best(rows: Sequence[FieldRow]) -> Best:
    """The model with the highest top-1, where the difference to all others is resolved on the images they share."""
    scored = [
        (row.run, row.accuracy["case_id"])
        for row in rows
        if row.run is not None and row.accuracy is not None and row.top1_percent is not None
    ]
    # A Case that stands there twice, of two runs, could not be told apart by its id.
    if len({case_id for _, case_id in scored}) < len(scored):
        return Best()
    predicted = [ScoredRun.open(run).predicted.get(case_id) for run, case_id in scored]
    return most_accurate([[one for one in predicted if one is not None]])


def watermarks(rows: Sequence[FieldRow]) -> list[str]:
    """Sentences that must not be overlooked, with whom they concern where that is not everybody."""
    marks = []
    for note, concerned in (
        (DEMO_NOTE, [row for row in rows if row.is_demo and row.status == "ok"]),
        (RANDOM_NOTE, [row for row in rows if row.weights == "random" and row.status == "ok"]),
    ):
        if concerned:
            measured = [row for row in rows if row.run is not None]
            who = "" if len(concerned) == len(measured) else f" ({', '.join(row.model for row in concerned)})"
            marks.append(one_line(f"{note}{who}"))
    return marks


def notes(rows: Sequence[FieldRow]) -> Iterator[str]:
    """How the table was made and is to be read, sources, and why a model has no figures."""
    yield from watermarks(rows)
    yield from failures(rows)
    if any(_is_published(row, name) for row in rows for name in ("parameters", "multiply_adds")):
        yield f"* {AS_PUBLISHED}"
    yield from how(rows)
    names: dict[str, list[str]] = {}
    for row in rows:
        if row.published:
            names.setdefault(row.published.source, []).append(row.published.name)
    for paper, named in names.items():
        yield one_line(f"published, {', '.join(named)}: {paper}")


def failures(rows: Sequence[FieldRow]) -> Iterator[str]:
    """Why a model, or a backend of it, has no figures; the same reason once."""
    columns = setups(rows)
    names = dict(zip(columns, setup_names(columns), strict=True))
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.status not in ("ok", "published"):
            reasons.setdefault((row.model, row.status, row.reason), [])
            continue
        for setup, times in row.latencies.items():
            if times["status"] != "ok":
                reasons.setdefault((row.model, times["status"], times["reason"]), []).append(names[setup])
    for (model, status, reason), where in reasons.items():
        yield one_line(f"{', '.join([model, *where])}: {status}: {reason}")


def how(rows: Sequence[FieldRow]) -> Iterator[str]:
    """What was measured, on what, and what may be compared."""
    accuracies = [row for row in rows if row.top1_percent is not None]
    if accuracies:
        counts = [row.n_images or 0 for row in accuracies]
        yield f"measured top-1: on {span(counts)} images, of each run's reference row"
        prints = {str((row.info.get("dataset") or {}).get("fingerprint") or "unknown") for row in accuracies}
        if len(prints) > 1:
            yield "measured top-1: the rows were not scored on the same images"
    if any(row.status == "published" for row in rows):
        yield "rows with no measured figure, of models that were not requested: all as published"
    measured = [times for row in rows for times in row.latencies.values() if times["n_samples"]]
    if measured:
        shared = shared_setup(setups(rows))
        yield (
            f"latency: median of calls after warm-up and its 95 % interval over lives, or over rounds of one life, "
            f"n = {span(times['n_samples'] for times in measured)}{f', {shared}' if shared else ''}; "
            f"{stages(measured)}"
        )
        if len({row.run for row in rows if row.run}) > 1:
            yield (
                "models were measured one after the other and not in turns: a difference between rows may be the "
                "machine's, and is given no verdict"
            )
    yield from dict.fromkeys(line for row in rows if row.info for line in machine_lines(row.info))
