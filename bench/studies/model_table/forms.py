"""The field as files: Markdown for pull requests, CSV for spreadsheets and notebooks."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from bench.report.data import safe_cell
from bench.report.markdown import escaped
from bench.report.sentences import one_line
from bench.studies.model_table.document import table
from bench.studies.model_table.rows import FieldRow, Setup

_PUBLISHED = ("multiply_adds_millions", "parameters_millions", "top1_percent", "top5_percent", "source")
_OF_SETUP = tuple(Setup.__dataclass_fields__)
_OF_TIMES = ("latency_ns_p50", "latency_ns_p50_low", "latency_ns_p50_high", "n_samples", "stage", "case_id")
_OF_ROW = ("model", "status", "reason", "weights", "parameters", "multiply_adds")
_OF_SCORE = ("top1_percent", "top5_percent", "n_images", "is_demo")
_CSV = (
    *_OF_ROW,
    *(f"published_{name}" for name in _PUBLISHED),
    *(f"measured_{name}" if name.endswith("percent") else name for name in _OF_SCORE),
    *_OF_SETUP,
    *_OF_TIMES,
    "latency_status",
    "latency_reason",
    "run",
)


def markdown(made: Sequence[FieldRow]) -> str:
    """The table as Markdown, its notes as a list below."""
    drawn = table(made)
    lines = [
        f"| {' | '.join(map(escaped, drawn.header))} |",
        f"| {' | '.join('---:' if numeric else '---' for numeric in drawn.numeric)} |",
        *(f"| {' | '.join(map(escaped, cells))} |" for cells in drawn.rows),
        "",
        *(f"- {escaped(note)}" for note in drawn.notes),
    ]
    return "\n".join(lines) + "\n"


def as_csv(made: Sequence[FieldRow]) -> str:
    """A line for each model and each of its latencies, in full precision; safe to open in a spreadsheet."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _CSV, lineterminator="\n")
    writer.writeheader()
    for row in made:
        about = _about(row)
        times = [_timed(setup, its) for setup, its in row.latencies.items()] or [{}]
        for timed in times:
            writer.writerow({name: _csv_cell(value) for name, value in {**about, **timed}.items()})
    return stream.getvalue()


def _about(row: FieldRow) -> dict[str, Any]:
    scores = {
        f"measured_{name}" if name.endswith("percent") else name: getattr(row, name) for name in _OF_SCORE
    }
    return {
        **{name: getattr(row, name) for name in _OF_ROW},
        **{f"published_{name}": getattr(row.published, name, None) for name in _PUBLISHED},
        **scores,
        "run": str(row.run) if row.run else None,
    }


def _timed(setup: Setup, its: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: getattr(setup, name) for name in _OF_SETUP},
        **{name: its[name] for name in _OF_TIMES},
        "latency_status": its["status"],
        "latency_reason": its["reason"],
    }


def _csv_cell(value: Any) -> Any:
    if isinstance(value, str):
        return safe_cell(one_line(value))
    return "" if value is None else value
