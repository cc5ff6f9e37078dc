"""What reports of a run for people share: the tables, their columns and what stands below, and the sections."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from bench.analysis.accuracy.flips import FlipLedger
from bench.analysis.accuracy.pairing import LeftOut
from bench.analysis.accuracy.predictions import RANDOM_NOTE
from bench.analysis.columns import REGISTRY
from bench.analysis.table import DEMO_NOTE, Loaded
from bench.analysis.time.quantiles import BESIDES, PARTS
from bench.record.case import IN_MEMORY, LOAD
from bench.report import flips
from bench.report.document import Block, Cell, Column, Head, Note, Table, notes, table_of
from bench.report.sentences import (
    accuracy_lines,
    baseline_name,
    bound_lines,
    build_lines,
    comparison_lines,
    pixel_lines,
    records,
)
from bench.report.text import interval_ends, number, one_line, written

Row = Mapping[str, Any]
RunColumn = Column[Row]

NOT_OK = "Not ok"
# A broken set may have thousands; all of them are in cases.jsonl.
BAD_IMAGES_SHOWN = 20

# Texts that are folded where space is short, so that numbers stay whole.
_LONG = ("reason", "options")


def _column(name: str, when: str = "known", cell: Callable[[Row], Cell] | None = None) -> RunColumn:
    """A column of the registry, its cells as ``written``."""
    column = REGISTRY[name]

    def made(row: Row) -> Cell:
        shown = cell(row) if cell else Cell(written(name, row), mark=row[name] if name == "status" else "")
        value = row[column.sort or name]
        if not shown.text or shown.value is not None or not isinstance(value, (int, float)):
            return shown
        return replace(shown, value=value / column.scale)

    return RunColumn(Head(column.heading, column.is_numeric, name, folds=name in _LONG), made, when)


def _interval(name: str) -> RunColumn:
    """The interval of the column before it."""
    return RunColumn(
        Head("95 % interval", True, name, below=True), lambda row: " to ".join(interval_ends(name, row) or ()), "known"
    )


def _versus(row: Row) -> Cell:
    """How much faster or slower than the baseline, with the interval of that; of the unresolved, of the ratio."""
    ratio, low, high, verdict = (row[name] for name in ("ratio", "ratio_low", "ratio_high", "verdict"))
    if not verdict:
        return Cell("baseline", value=1.0) if row["case_id"] == row["baseline_case_id"] else Cell()
    if verdict == "same":
        return Cell("same", mark=verdict)
    if low is None or high is None:
        return Cell(verdict, f"{row['n_rounds']} rounds", mark=verdict)
    if verdict == "unresolved":
        # One end lies beyond a bound: rounding must not put it on the other side.
        fine = (high - low) / 4.0
        return Cell(verdict, f"{number(low, fine)} to {number(high, fine)}", mark=verdict)
    factor = ratio
    if verdict == "faster":
        factor, low, high = 1.0 / ratio, 1.0 / high, 1.0 / low
    # Nobody reads a speed-up finer than to a hundredth of it.
    least = max((high - low) / 2.0, 0.01 * factor)
    ends = f"{number(low, least)} to {number(high, least)}"
    return Cell(f"{number(factor, least)}x {verdict}", ends, mark=verdict)


def _agreement(row: Row) -> Cell:
    if row["case_id"] == row["reference_case_id"]:
        return Cell("reference", value=100.0)  # it agrees with itself
    return Cell(written("agreement_percent", row))


def _unreadable(row: Row) -> Cell:
    return Cell(written("n_bad_images", row) if row["n_bad_images"] else "")


_WHO = (
    _column("backend", "always"),
    _column("device", "always"),
    _column("precision", "always"),
    _column("options"),
    _column("weights", "varies"),
    _column("pipeline", "varies"),
    _column("threads", "varies"),
    _column("instances", "varies"),
)
_VERSUS = _column("verdict", cell=_versus)

_TABLES: dict[str, tuple[RunColumn, ...]] = {
    "accuracy": (
        *_WHO,
        _column("n_images"),
        _column("n_bad_images", cell=_unreadable),
        _column("top1_percent"),
        _column("top5_percent"),
        _column("agreement_percent", cell=_agreement),
        _column("top5_ordered_agreement_percent"),
        _column("peak_rss_bytes"),
    ),
    "latency": (
        *_WHO,
        _column("batch", "always"),
        _column("stage", "varies"),
        _column("latency_ns_p50"),
        _interval("latency_ns_p50"),
        *map(_column, ("latency_ns_p90", "latency_ns_p99", *(f"{stage}_ns_p50" for stage in BESIDES))),
        _VERSUS,
        *map(_column, ("throughput_images_per_s", "n_samples", "n_outliers", "peak_rss_bytes")),
    ),
    "throughput": (
        *_WHO,
        _column("batch", "always"),
        _column("stage", "varies"),
        _column("throughput_images_per_s"),
        _interval("throughput_images_per_s"),
        _VERSUS,
        *(_column(f"{stage}_images_per_s") for stage in PARTS),
        *map(_column, ("sum_of_parts_percent", "bound_by", "n_images", "n_samples", "peak_rss_bytes")),
    ),
}
_QUERIES = (
    *_WHO,
    _column("batch", "always"),
    _column("latency_ns_p50"),
    _interval("latency_ns_p50"),
    *map(_column, ("latency_ns_p90", "latency_ns_p99")),
    _VERSUS,
    *map(_column, ("throughput_images_per_s", "loadgen", "n_samples")),
)
_TABLES |= {
    "singlestream": _QUERIES,
    "multistream": _QUERIES,
    "offline": (
        *_WHO,
        _column("batch", "always"),
        _column("throughput_images_per_s"),
        _interval("throughput_images_per_s"),
        _VERSUS,
        *map(_column, ("loadgen", "n_images", "n_samples")),
    ),
    "server": (
        *_WHO,
        *(_column(name, "always") for name in ("batch", "throughput_images_per_s", "latency_limit_ns")),
        *map(_column, ("latency_ns_p50", "latency_ns_p99", "queue_ns_p50", "service_ns_p50", "loadgen", "n_samples")),
    ),
}
_NOT_OK = (
    _column("scenario", "always"),
    *_WHO,
    _column("batch", "always"),
    # Of what ran, but elsewhere than requested.
    _column("top1_percent"),
    _column("latency_ns_p50"),
    _column("status", "always"),
    _column("reason", "always"),
)
# Left out where space is short; intervals too.
_DETAILS = frozenset(
    (
        *("top5_ordered_agreement_percent", "peak_rss_bytes", "latency_ns_p90", "latency_ns_p99"),
        *("n_samples", "n_outliers"),
        *(f"{stage}_ns_p50" for stage in BESIDES),
        *(f"{stage}_images_per_s" for stage in PARTS),
    )
)


def tables(frame: pd.DataFrame, info: Mapping[str, Any] | None = None, brief: bool = False) -> list[Table]:
    """Accuracy, Latency, Throughput and Not ok: those that have rows. Each Case stands in exactly one.

    Args:
        brief: leave out columns of detail.
    """
    rows = records(frame)
    n_comparisons = sum(1 for row in rows if row["ratio"] is not None)
    several = len({row["pipeline"] for row in rows}) > 1
    shown = []
    for scenario, columns in _TABLES.items():
        measured = [row for row in rows if row["status"] == "ok" and row["scenario"] == scenario]
        if measured:
            baseline = baseline_name(measured)
            lines = (
                (*accuracy_lines(measured), *pixel_lines(info or {}))
                if scenario == "accuracy"
                else (*comparison_lines(measured, baseline, n_comparisons, info or {}), *bound_lines(measured))
            )
            versus = replace(_VERSUS, head=replace(_VERSUS.head, text=f"vs {baseline}"))
            columns = tuple(versus if column is _VERSUS else column for column in columns)
            # Latency Cases use the first pipeline only, and do not time it.
            names_pipeline = several and scenario not in IN_MEMORY
            title = LOAD.get(scenario) or scenario.capitalize()
            shown.append(_table(title, columns, measured, brief, lines, names_pipeline))
    failed = [row for row in rows if row["status"] != "ok"]
    return [*shown, _table(NOT_OK, _NOT_OK, failed, brief, (), several)] if failed else shown


def _table(
    title: str,
    columns: Sequence[RunColumn],
    rows: Sequence[Row],
    brief: bool,
    lines: Sequence[str] = (),
    several_pipelines: bool = False,
) -> Table:
    """The table of some rows; with ``several_pipelines`` in the run each row's is shown, also where all agree."""
    shown = [
        replace(column, when="always") if several_pipelines and column.head.name == "pipeline" else column
        for column in columns
        if not (brief and (column.head.below or column.head.name in _DETAILS))
    ]
    table = table_of(title, shown, rows, (*lines, *_notes(rows, shown, several_pipelines)))
    return replace(table, records=tuple(rows))


def _notes(rows: Sequence[Row], shown: Sequence[RunColumn], several_pipelines: bool) -> tuple[str, ...]:
    """What the rows' notes say beyond the watermarks, which stand at the top, and why cells shown here are empty."""
    elsewhere = (DEMO_NOTE, RANDOM_NOTE)
    names = {f"{column.head.name}_low" if column.head.below else column.head.name: column.head.text for column in shown}
    who_by_note: dict[str, list[str]] = {}
    for row in rows:
        said = [
            f"{REGISTRY[name].header or names[name]} {why}"
            for name, why in json.loads(row["left_empty"] or "{}").items()
            if name in names
        ]
        said += [note for note in row["note"].split("; ") if note and note not in elsewhere]
        reader = f"{row['pipeline']}, " if several_pipelines else ""
        who = one_line(f"{row['backend']} {row['device']} {row['precision']}, {reader}batch {row['batch']}")
        for note in said:
            who_by_note.setdefault(one_line(note), []).append(who)
    return tuple(_grouped(who_by_note, len(rows)))


_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def _grouped(who_by_note: Mapping[str, Sequence[str]], n_rows: int) -> Iterator[str]:
    """A line for each note; those that differ in numbers alone become one, with the least and the greatest of each."""
    alike: dict[str, list[str]] = {}
    for note in who_by_note:
        alike.setdefault(_NUMBER.sub("{}", note.replace("{", "(").replace("}", ")")), []).append(note)
    for form, same in alike.items():
        columns = zip(*(_NUMBER.findall(note) for note in same), strict=True)
        ends = [sorted(set(column), key=lambda text: float(text.replace(",", ""))) for column in columns]
        said = form.format(*(each[0] if len(each) == 1 else f"{each[0]} to {each[-1]}" for each in ends))
        who = list(dict.fromkeys(name for note in same for name in who_by_note[note]))
        yield f"{'all rows' if len(who) == n_rows > 1 else '; '.join(who)}: {said}"


def sections(run: Loaded, ledgers: Sequence[FlipLedger], left_out: Sequence[LeftOut]) -> dict[str, list[Block]]:
    """What a report tells after the tables: builds, who lost the accuracy, flips, what disturbed the run, and what
    could not be read; by title, those that have something to tell.

    Args:
        ledgers: of the run's Cases against its reference, as of ``bench.analysis.accuracy.pairing.against_reference``.
        left_out: what that could not pair.
    """
    steps = flips.waterfall_table(flips.telling_steps(run.scored))
    warnings, bad = run.info.get("warnings") or (), run.info.get("bad_images") or ()
    unreadable: list[Block] = []
    if bad:
        files = f"{len(bad):,} file{'s' if len(bad) > 1 else ''}"
        unreadable = [
            Note(f"{files} could not be decoded and took no part.", "paragraph"),
            *notes(f"{image['image_id']}: {image['reason']}" for image in bad[:BAD_IMAGES_SHOWN]),
        ]
    if len(bad) > BAD_IMAGES_SHOWN:
        unreadable.append(Note(f"and {len(bad) - BAD_IMAGES_SHOWN:,} more, listed in cases.jsonl"))
    alone = [f"{each.case.label} is not compared: {each.reason}" for each in left_out]
    found: dict[str, list[Block]] = {
        "Builds": [*notes(build_lines(run.frame, run.scored))],
        flips.WATERFALL: [steps] if steps else [],
        "Flips": [*_flips(ledgers), *notes(alone)],
        "What may have disturbed the measurement": [
            *notes(f"{warning.get('text', '')}. {warning.get('advice', '')}" for warning in warnings)
        ],
        "Unreadable images": unreadable,
    }
    return {title: blocks for title, blocks in found.items() if blocks}


def _flips(ledgers: Sequence[FlipLedger]) -> Iterator[Block]:
    """Every accuracy Case against the reference; one line where no image changed sides."""
    if not ledgers:
        return
    base, *names = flips.names_of(ledgers)
    if any(ledger.n_flips for ledger in ledgers):
        yield Note(f"Images whose top-1 class differs from that of {base}, the base.", "paragraph")
        remarks = (*flips.how_to_read(ledgers), *flips.lines(names, ledgers))
        yield flips.ledgers_table("", names, ledgers, flips.REPORT, *remarks)
    else:
        yield Note(flips.all_same(base, names, ledgers), "paragraph")
