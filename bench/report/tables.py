"""The tables that reports for people share: which columns they have, in which units, and what stands below."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.analysis.accuracy.predictions import RANDOM_NOTE
from bench.analysis.columns import REGISTRY
from bench.analysis.table import DEMO_NOTE
from bench.analysis.time.quantiles import PARTS, QUANTILES
from bench.backends import display_name
from bench.report.pixels import pixel_lines
from bench.report.sentences import (
    accuracy_lines,
    bound_lines,
    comparison_lines,
    milliseconds,
    one_line,
    records,
)
from bench.report.text import half_width, number, percent, whole

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """A table of text, ready to be drawn.

    Attributes:
        title: what it is about.
        header: of each column.
        rows: cells of each row.
        numeric: of each column: align it to the right.
        notes: lines to stand below.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """How a column of a table is made; an empty cell is an unknown value. ``when`` says if it is worth its place."""

    header: str
    cell: Callable[[Row], str]
    numeric: bool = True
    when: str = "known"  # always; known: some cell is not empty; varies: cells differ
    detail: bool = False  # left out where space is short


def _interval_ms(row: Row) -> str:
    low, high = milliseconds(row, "latency_ns_p50_low"), milliseconds(row, "latency_ns_p50_high")
    return f"{low} to {high}" if low and high else ""


def _throughput(row: Row) -> str:
    return number(row["throughput_images_per_s"], _half_width_of_throughput(row))


def _half_width_of_throughput(row: Row) -> float | None:
    return half_width(REGISTRY["throughput_images_per_s"], row)


def _of_sum(row: Row) -> str:
    value = row["sum_of_parts_percent"]
    return "" if value is None else f"{value:.0f} %"


def _throughput_interval(row: Row) -> str:
    half_width = _half_width_of_throughput(row)
    ends = [number(row[f"throughput_images_per_s_{end}"], half_width) for end in ("low", "high")]
    return " to ".join(ends) if all(ends) else ""


def _versus(row: Row) -> str:
    """How much faster or slower than the baseline, with the interval of that; of the unresolved, of the ratio."""
    ratio, low, high = row["ratio"], row["ratio_low"], row["ratio_high"]
    if not row["verdict"]:
        return "baseline" if row["case_id"] == row["baseline_case_id"] else ""
    if low is None or high is None:
        return f"{row['verdict']} ({row['n_rounds']} rounds)"
    if row["verdict"] == "faster":
        ratio, low, high = 1.0 / ratio, 1.0 / high, 1.0 / low
    if row["verdict"] == "same":
        return "same"
    half_width = (high - low) / 2.0
    if row["verdict"] == "unresolved":
        # One end lies beyond a bound: rounding must not put it on the other side.
        return f"unresolved ({number(low, half_width / 2.0)} to {number(high, half_width / 2.0)})"
    # Nobody reads a speed-up finer than to a hundredth of it.
    least = max(half_width, 0.01 * ratio)
    ends = f"({number(low, least)} to {number(high, least)})"
    return f"{number(ratio, least)}x {row['verdict']} {ends}"


def _agreement(row: Row) -> str:
    if row["case_id"] == row["reference_case_id"]:
        return "reference"
    return percent(row["agreement_percent"], row["n_images"])


# --- tables -------------------------------------------------------------------------------------------------


def _text(name: str, header: str, when: str = "always", numeric: bool = False) -> Column:
    return Column(header, lambda row: one_line("" if row[name] is None else str(row[name])), numeric, when)


def _count(name: str, header: str, detail: bool = False) -> Column:
    return Column(header, lambda row: whole(row[name]), detail=detail)


def _options(row: Row) -> str:
    options = json.loads(row["options"] or "{}")
    return one_line(", ".join(f"{name}={value}" for name, value in options.items()))


def _part_rate(stage: str) -> Callable[[Row], str]:
    return lambda row: number(row[f"{stage}_images_per_s"])


_PIPELINE = _text("pipeline", "Pipeline", when="varies")
_WHO = (
    _text("backend", "Backend"),
    _text("device", "Device"),
    _text("precision", "Precision"),
    Column("Options", _options, numeric=False),
    _text("weights", "Weights", when="varies"),
    _PIPELINE,
    _text("threads", "Threads", when="varies", numeric=True),
    _text("instances", "Instances", when="varies", numeric=True),
)
_BATCH = _text("batch", "Batch", numeric=True)
_VERSUS = Column("vs baseline", _versus, numeric=False)
_MEMORY = Column(
    "Peak MiB",
    lambda row: "" if row["peak_rss_bytes"] is None else whole(row["peak_rss_bytes"] / 2**20),
    detail=True,
)

_TABLES = {
    "accuracy": (
        *_WHO,
        _count("n_images", "Images"),
        Column("Unreadable", lambda row: whole(row["n_bad_images"] or None)),
        Column("Top-1 %", lambda row: percent(row["top1_percent"], row["n_images"])),
        Column("Top-5 %", lambda row: percent(row["top5_percent"], row["n_images"])),
        Column("Same top-1 %", _agreement),
        Column(
            "Same top-5 %",
            lambda row: percent(row["top5_ordered_agreement_percent"], row["n_images"]),
            detail=True,
        ),
        _MEMORY,
    ),
    "latency": (
        *_WHO,
        _BATCH,
        _text("stage", "Stage", when="varies"),
        Column("p50 ms", lambda row: milliseconds(row, "latency_ns_p50")),
        Column("95 % interval", _interval_ms, detail=True),
        Column("p90 ms", lambda row: milliseconds(row, "latency_ns_p90"), detail=True),
        Column("p99 ms", lambda row: milliseconds(row, "latency_ns_p99"), detail=True),
        *(
            Column(f"{title} ms", lambda row, name=name: milliseconds(row, name), detail=True)  # type: ignore[misc]
            for title, name in (
                ("H2D", "h2d_ns_p50"),
                ("D2H", "d2h_ns_p50"),
                ("End to end", "end_to_end_ns_p50"),
            )
        ),
        _VERSUS,
        Column("Images/s", _throughput),
        _count("n_samples", "Samples", detail=True),
        _count("n_outliers", "Outliers", detail=True),
        _MEMORY,
    ),
    "throughput": (
        *_WHO,
        _BATCH,
        _text("stage", "Stage", when="varies"),
        Column("Images/s", _throughput),
        Column("95 % interval", _throughput_interval, detail=True),
        _VERSUS,
        *(Column(f"{stage.capitalize()}/s", _part_rate(stage), detail=True) for stage in PARTS),
        Column("of sum of parts", _of_sum),
        _text("bound_by", "Bound by", when="known"),
        _count("n_images", "Images"),
        _count("n_samples", "Samples", detail=True),
        _MEMORY,
    ),
}
_NOT_OK = (
    _text("scenario", "Scenario"),
    *_WHO,
    _BATCH,
    # Of what ran, but elsewhere than asked.
    Column("Top-1 %", lambda row: percent(row["top1_percent"], row["n_images"])),
    Column("p50 ms", lambda row: milliseconds(row, "latency_ns_p50")),
    _text("status", "Status"),
    _text("reason", "Reason"),
)


def tables(frame: pd.DataFrame, info: Mapping[str, Any] | None = None, brief: bool = False) -> list[Table]:
    """Accuracy, Latency, Throughput and Not ok: those that have rows. Each Case stands in exactly one.

    Args:
        frame: as of ``bench.analysis.table.load_frame``.
        info: the content of ``run.json``.
        brief: leave out columns of detail.
    """
    rows = records(frame)
    n_comparisons = sum(1 for row in rows if row["ratio"] is not None)
    several = len({row["pipeline"] for row in rows}) > 1
    made = []
    for scenario, columns in _TABLES.items():
        shown = [row for row in rows if row["status"] == "ok" and row["scenario"] == scenario]
        if shown:
            named = _baseline_name(shown)
            lines = (
                (*accuracy_lines(shown), *pixel_lines(info or {}))
                if scenario == "accuracy"
                else (*comparison_lines(shown, named, n_comparisons, info or {}), *bound_lines(shown))
            )
            columns = tuple(
                replace(column, header=f"vs {named}") if column is _VERSUS else column for column in columns
            )
            # Latency Cases use the first pipeline only, and do not time it.
            named_too = several and scenario != "latency"
            made.append(_table(scenario.capitalize(), columns, shown, brief, lines, named_too))
    failed = [row for row in rows if row["status"] != "ok"]
    return [*made, _table("Not ok", _NOT_OK, failed, brief, (), several)] if failed else made


def _baseline_name(rows: list[dict[str, Any]]) -> str:
    """What the rows are compared with, where it is one backend."""
    backends = {row["backend"] for row in rows if row["case_id"] == row["baseline_case_id"]}
    return display_name(backends.pop()) if len(backends) == 1 else "baseline"


def _table(
    title: str,
    columns: tuple[Column, ...],
    rows: list[dict[str, Any]],
    brief: bool,
    lines: tuple[str, ...] = (),
    several_pipelines: bool = False,
) -> Table:
    """The table of some rows; with ``several_pipelines`` in the run each row's is shown, also where all agree."""
    kept, cells = [], []
    for column in columns:
        made = [column.cell(row) for row in rows]
        if column.detail and brief:
            continue
        if several_pipelines and column is _PIPELINE:
            column = replace(column, when="always")
        if {"always": True, "known": any(made), "varies": len(set(made)) > 1}[column.when]:
            kept.append(column)
            cells.append(made)
    return Table(
        title=title,
        header=tuple(one_line(column.header) for column in kept),
        rows=tuple(zip(*cells, strict=True)),
        numeric=tuple(column.numeric for column in kept),
        notes=(*lines, *_notes(rows, brief, several_pipelines)),
    )


def _notes(rows: list[dict[str, Any]], brief: bool, several_pipelines: bool) -> tuple[str, ...]:
    """What the rows' notes say beyond the watermarks, which stand at the top of the report."""
    elsewhere = (DEMO_NOTE, RANDOM_NOTE)
    left_out = tuple(f"{name} needs " for name in QUANTILES if brief and name != "p50")
    lines = []
    for row in rows:
        said = [
            note
            for note in row["note"].split("; ")
            if note and note not in elsewhere and not note.startswith(left_out)
        ]
        if said:
            reader = f"{row['pipeline']}, " if several_pipelines else ""
            who = f"{row['backend']} {row['device']}, {reader}batch {row['batch']}"
            lines.append(one_line(f"{who}: {'; '.join(said)}"))
    return tuple(lines)
