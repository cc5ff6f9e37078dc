"""The field as a document: a table, the sentences below it, and the same for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.analysis.accuracy.predictions import RANDOM_NOTE
from bench.analysis.table import DEMO_NOTE
from bench.backends import display_name
from bench.report.document import Cell, Column, Document, Head, Table, table_of
from bench.report.sentences import machine_lines, milliseconds, span, stages
from bench.report.text import one_line, percent, row_names
from bench.studies.model_table.rows import FieldRow, Row, Setup, setups

# Parts of a setup that are named only where they differ among the columns.
_VARYING = ("device", "precision", "options", "batch", "threads", "instances")
AS_PUBLISHED = "as published: the network was not built here"


@dataclass(frozen=True)
class Figure:
    """A number of a row as text, and whether it is the paper's where another was looked for."""

    text: str = ""
    is_published: bool = False


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


def parameters(row: FieldRow) -> Figure:
    """Millions of parameters."""
    if row.parameters is not None:
        return Figure(f"{row.parameters / 1e6:.2f}")
    return (
        Figure(f"{row.published.parameters_millions:.1f}", row.status != "published")
        if row.published
        else Figure()
    )


def multiply_adds(row: FieldRow) -> Figure:
    """Millions of multiply-adds for one image."""
    if row.multiply_adds is not None:
        return Figure(f"{row.multiply_adds / 1e6:.1f}")
    return (
        Figure(f"{row.published.multiply_adds_millions:.0f}", row.status != "published")
        if row.published
        else Figure()
    )


def published_top1(row: FieldRow) -> str:
    """In per cent, as printed."""
    return f"{row.published.top1_percent:.1f}" if row.published else ""


def measured_top1(row: FieldRow) -> str:
    """In per cent, with no digit finer than one image."""
    return percent(row.top1_percent, row.n_images)


def latency(row: Row) -> str:
    """The median in ms; empty where it was not measured."""
    return milliseconds(row, "latency_ns_p50")


def interval(row: Row) -> tuple[str, str]:
    """The ends of the median's interval in ms; empty where there is none."""
    return milliseconds(row, "latency_ns_p50_low"), milliseconds(row, "latency_ns_p50_high")


# --- the table ----------------------------------------------------------------------------------------------


def document(rows: Sequence[FieldRow]) -> Document:
    """The field; for programs a line for each model and each of its latencies, in full precision."""
    import pandas as pd

    lines = [
        {**_about(row), **timed}
        for row in rows
        for timed in [_timed(setup, its) for setup, its in row.latencies.items()] or [{}]
    ]
    frame = pd.DataFrame(lines, columns=list(_FRAME), dtype=object)
    return Document("The field", [table(rows)], [row.to_dict() for row in rows], {"field": frame})


def table(made: Sequence[FieldRow]) -> Table:
    """The field as a table for people."""
    setups_ = setups(made)
    columns: list[Column[FieldRow]] = [
        Column(Head("Model"), lambda row: one_line(row.model)),
        Column(Head("Weights"), lambda row: row.weights),
        Column(Head("Params M", True), lambda row: _starred(parameters(row))),
        Column(Head("Mult-adds M", True), lambda row: _starred(multiply_adds(row))),
        Column(Head("Top-1 % published", True), published_top1),
        Column(Head("Top-1 % measured", True), _measured_cell),
        *(_latency_column(setup, name) for setup, name in zip(setups_, setup_names(setups_), strict=True)),
    ]
    if any(row.status not in ("ok", "published") for row in made):
        columns.append(Column(Head("Status"), lambda row: row.status))
    return table_of("The field", columns, made, notes(made))


def _starred(figure: Figure) -> str:
    return f"{figure.text}*" if figure.is_published else figure.text


def _measured_cell(row: FieldRow) -> Cell:
    text = measured_top1(row)
    return Cell(text, "demo" if text and row.is_demo else "", row.top1_percent)


def _latency_column(setup: Setup, name: str) -> Column[FieldRow]:
    return Column(Head(f"{name} ms", True), lambda row: _latency_cell(row.latencies.get(setup)))


def _latency_cell(row: Row | None) -> str:
    if row is None:
        return ""
    value, (low, high) = latency(row), interval(row)
    if not value:
        return str(row["status"])
    text = f"{value} ({low} to {high})" if low and high else value
    return text if row["status"] == "ok" else f"{text}, {row['status']}"


_PUBLISHED = ("multiply_adds_millions", "parameters_millions", "top1_percent", "top5_percent", "source")
_OF_SETUP = tuple(Setup.__dataclass_fields__)
_OF_TIMES = ("latency_ns_p50", "latency_ns_p50_low", "latency_ns_p50_high", "n_samples", "stage", "case_id")
_OF_ROW = ("model", "status", "reason", "weights", "parameters", "multiply_adds")
_OF_SCORE = ("top1_percent", "top5_percent", "n_images", "is_demo")
_FRAME = (
    *_OF_ROW,
    *(f"published_{name}" for name in _PUBLISHED),
    *(f"measured_{name}" if name.endswith("percent") else name for name in _OF_SCORE),
    *_OF_SETUP,
    *_OF_TIMES,
    "latency_status",
    "latency_reason",
    "run",
)


def _about(row: FieldRow) -> dict[str, Any]:
    scores = {
        f"measured_{name}" if name.endswith("percent") else name: getattr(row, name) for name in _OF_SCORE
    }
    return {
        **{name: _plain(getattr(row, name)) for name in _OF_ROW},
        **{f"published_{name}": _plain(getattr(row.published, name, None)) for name in _PUBLISHED},
        **scores,
        "run": str(row.run) if row.run else None,
    }


def _timed(setup: Setup, its: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: getattr(setup, name) for name in _OF_SETUP},
        **{name: its[name] for name in _OF_TIMES},
        "latency_status": its["status"],
        "latency_reason": _plain(its["reason"]),
    }


def _plain(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) else value


# --- what stands below --------------------------------------------------------------------------------------


def watermarks(made: Sequence[FieldRow]) -> list[str]:
    """Sentences that must not be overlooked, with whom they concern where that is not everybody."""
    found = []
    for note, concerned in (
        (DEMO_NOTE, [row for row in made if row.is_demo and row.status == "ok"]),
        (RANDOM_NOTE, [row for row in made if row.weights == "random" and row.status == "ok"]),
    ):
        if concerned:
            measured = [row for row in made if row.run is not None]
            who = "" if len(concerned) == len(measured) else f" ({', '.join(row.model for row in concerned)})"
            found.append(one_line(f"{note}{who}"))
    return found


def notes(made: Sequence[FieldRow]) -> Iterator[str]:
    """How the table was made and is to be read, sources, and why a model has no figures."""
    yield from watermarks(made)
    yield from failures(made)
    if any(figure.is_published for row in made for figure in (parameters(row), multiply_adds(row))):
        yield f"* {AS_PUBLISHED}"
    yield from how(made)
    for source, names in sources(made).items():
        yield one_line(f"published, {', '.join(names)}: {source}")


def failures(made: Sequence[FieldRow]) -> Iterator[str]:
    """Why a model, or a backend of it, has no figures; the same reason once."""
    columns = setups(made)
    names = dict(zip(columns, setup_names(columns), strict=True))
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for row in made:
        if row.status not in ("ok", "published"):
            reasons.setdefault((row.model, row.status, row.reason), [])
            continue
        for setup, its in row.latencies.items():
            if its["status"] != "ok":
                reasons.setdefault((row.model, its["status"], its["reason"]), []).append(names[setup])
    for (model, status, reason), where in reasons.items():
        who = f"{model}, {', '.join(where)}" if where else model
        yield one_line(f"{who}: {status}: {reason}")


def sources(made: Sequence[FieldRow]) -> dict[str, list[str]]:
    """Whose published figures are from where: names by source."""
    found: dict[str, list[str]] = {}
    for row in made:
        if row.published:
            found.setdefault(row.published.source, []).append(row.published.name)
    return found


def how(made: Sequence[FieldRow]) -> Iterator[str]:
    """What was measured, on what, and what may be compared."""
    accuracies = [row for row in made if row.top1_percent is not None]
    if accuracies:
        counts = [row.n_images or 0 for row in accuracies]
        yield f"measured top-1: on {span(counts)} images, of each run's reference row"
        prints = {str((row.info.get("dataset") or {}).get("fingerprint") or "unknown") for row in accuracies}
        if len(prints) > 1:
            yield "measured top-1: the rows were not scored on the same images"
    if any(row.status == "published" for row in made):
        yield "rows with no measured figure, of models that were not asked for: all as published"
    times = [its for row in made for its in row.latencies.values() if its["n_samples"]]
    if times:
        shared = shared_setup(setups(made))
        yield (
            f"latency: median of single calls after warm-up and its 95 % order-statistic interval, "
            f"n = {span([its['n_samples'] for its in times])}{f', {shared}' if shared else ''}; "
            f"{stages(times)}"
        )
        if len({row.run for row in made if row.run}) > 1:
            yield (
                "models were measured one after the other and not in turns: a difference between rows may be the "
                "machine's, and is given no verdict"
            )
    said = dict.fromkeys(line for row in made if row.info for line in machine_lines(row.info))
    yield from said
