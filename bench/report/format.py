"""What reports for people share: which columns a table has, units, how many digits are true, and the sentences."""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.frame import DEMO_NOTE, RANDOM_NOTE

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

# More digits than these are never true of a time, and never read.
MOST_DIGITS = 4
# Digits where nothing is known of the uncertainty.
PLAIN_DIGITS = 3

RUNTIMES = ("torch", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "nvidia-dali-cuda130", "timm")


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


# --- numbers ------------------------------------------------------------------------------------------------


def number(value: float | None, half_width: float | None = None) -> str:
    """The value with the digits that are true: down to the first digit of its uncertainty.

    Args:
        value: None gives an empty text.
        half_width: half of its interval, in the same unit; without one, three significant digits.
    """
    if value is None or not math.isfinite(value):
        return ""
    if half_width is None:
        places = _places(value, PLAIN_DIGITS)
    else:
        places = _places(value, MOST_DIGITS)
        if half_width > 0:
            places = min(places, -math.floor(math.log10(half_width)))
    return f"{round(value, places) + 0.0:.{max(places, 0)}f}"


def _places(value: float, digits: int) -> int:
    """Decimal places that leave so many significant digits."""
    return digits - 1 - math.floor(math.log10(abs(value))) if value else 0


def percent(value: float | None, n: int | None) -> str:
    """A share of n images in per cent, with no digit finer than one image: 75.6 of 1,000, 75.602 of 50,000.

    A share short of 100 is never rounded to it.
    """
    if value is None or not n:
        return ""
    return f"{value:.{max(0, math.ceil(math.log10(n / 100)))}f}"


def whole(value: float | None) -> str:
    """A count with thousands separated."""
    return "" if value is None else f"{int(value):,}"


def _ms(row: Row, column: str) -> str:
    value = row[column]
    return number(None if value is None else value / 1e6, _half_width_ms(row))


def _half_width_ms(row: Row) -> float | None:
    low, high = row["latency_ns_p50_low"], row["latency_ns_p50_high"]
    return None if low is None or high is None else (high - low) / 2e6


def _interval_ms(row: Row) -> str:
    low, high = _ms(row, "latency_ns_p50_low"), _ms(row, "latency_ns_p50_high")
    return f"{low} to {high}" if low and high else ""


def _throughput(row: Row) -> str:
    value, median, half_width_ms = row["throughput_images_per_s"], row["latency_ns_p50"], _half_width_ms(row)
    if value is None or not median or half_width_ms is None:
        return number(value)
    return number(value, value * half_width_ms * 1e6 / median)


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


_WHO = (
    _text("backend", "Backend"),
    _text("device", "Device"),
    _text("precision", "Precision"),
    Column("Options", _options, numeric=False),
    _text("weights", "Weights", when="varies"),
    _text("pipeline", "Pipeline", when="varies"),
    _text("threads", "Threads", when="varies", numeric=True),
    _text("instances", "Instances", when="varies", numeric=True),
)
_BATCH = _text("batch", "Batch", numeric=True)
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
        Column("p50 ms", lambda row: _ms(row, "latency_ns_p50")),
        Column("95 % interval", _interval_ms),
        Column("p90 ms", lambda row: _ms(row, "latency_ns_p90")),
        Column("p99 ms", lambda row: _ms(row, "latency_ns_p99")),
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
        _count("n_images", "Images"),
        _count("n_samples", "Samples", detail=True),
        _MEMORY,
    ),
}
_NOT_OK = (
    _text("scenario", "Scenario"),
    *_WHO,
    _BATCH,
    _text("status", "Status"),
    _text("reason", "Reason"),
)


def tables(frame: pd.DataFrame, brief: bool = False) -> list[Table]:
    """Accuracy, Latency, Throughput and Not ok: those that have rows. Each Case stands in exactly one.

    Args:
        frame: as of ``bench.report.frame.load_frame``.
        brief: leave out columns of detail.
    """
    rows = records(frame)
    made = []
    for scenario, columns in _TABLES.items():
        shown = [row for row in rows if row["status"] == "ok" and row["scenario"] == scenario]
        if shown:
            made.append(_table(scenario.capitalize(), columns, shown, brief))
    failed = [row for row in rows if row["status"] != "ok"]
    return [*made, _table("Not ok", _NOT_OK, failed, brief)] if failed else made


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows as plain dictionaries, unknown values as None."""
    plain = frame.astype(object)
    rows = plain.where(frame.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]


def _table(title: str, columns: tuple[Column, ...], rows: list[dict[str, Any]], brief: bool) -> Table:
    kept, cells = [], []
    for column in columns:
        made = [column.cell(row) for row in rows]
        if column.detail and brief:
            continue
        if {"always": True, "known": any(made), "varies": len(set(made)) > 1}[column.when]:
            kept.append(column)
            cells.append(made)
    return Table(
        title=title,
        header=tuple(column.header for column in kept),
        rows=tuple(zip(*cells, strict=True)),
        numeric=tuple(column.numeric for column in kept),
        notes=_notes(rows),
    )


def _notes(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """What the rows' notes say beyond the watermarks, which stand at the top of the report."""
    lines = []
    for row in rows:
        said = [note for note in row["note"].split("; ") if note and note not in (DEMO_NOTE, RANDOM_NOTE)]
        if said:
            lines.append(
                one_line(f"{row['backend']} {row['device']}, batch {row['batch']}: {'; '.join(said)}")
            )
    return tuple(lines)


# --- sentences ----------------------------------------------------------------------------------------------


def one_line(text: str) -> str:
    """The text on one line, without control characters (a worker's last words may hold terminal codes)."""
    visible = "".join(" " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") else sign for sign in text)
    return " ".join(visible.split())


def watermarks(frame: pd.DataFrame, info: Mapping[str, Any]) -> list[str]:
    """Sentences that must stand on every report of such a run."""
    weights = set(frame["weights"])
    is_demo = bool((info.get("dataset") or {}).get("is_demo")) or "demo" in weights
    return [note for note, due in ((DEMO_NOTE, is_demo), (RANDOM_NOTE, "random" in weights)) if due]


def summary(frame: pd.DataFrame) -> str:
    """The run in a sentence."""
    rows = records(frame)
    if not rows:
        return "No Case was planned."
    models = ", ".join(dict.fromkeys(f"{row['model']} ({row['weights']} weights)" for row in rows))
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    statuses = ", ".join(f"{count} {status}" for status, count in sorted(counts.items(), key=_ok_first))
    sentence = f"{len(rows)} Case{'s' if len(rows) > 1 else ''} of {models}: {statuses}"
    timed = [row for row in rows if row["latency_ns_p50"] is not None]
    if timed:
        # Only rows of one batch can be set beside each other.
        batch = min(row["batch"] for row in timed)
        best = min(
            (row for row in timed if row["batch"] == batch), key=lambda row: float(row["latency_ns_p50"])
        )
        who = f"{best['backend']} {best['device']} {best['precision']}"
        sentence += f"; lowest median latency at batch {batch}: {who}, {_ms(best, 'latency_ns_p50')} ms"
    return one_line(f"{sentence}.")


def _ok_first(item: tuple[str, int]) -> tuple[bool, str]:
    return item[0] != "ok", item[0]


def host_line(info: Mapping[str, Any]) -> str:
    """The machine and the versions that ran."""
    host, packages = info.get("host") or {}, info.get("packages") or {}
    parts = [host.get("cpu_model"), host.get("architecture")]
    if host.get("logical_cores_allowed"):
        parts.append(f"{host['logical_cores_allowed']} of {host.get('logical_cores') or '?'} logical cores")
    if host.get("memory_total_bytes"):
        parts.append(f"{host['memory_total_bytes'] / 2**30:.0f} GiB of memory")
    nvidia = host.get("nvidia") or {}
    parts += [gpu.get("name") for gpu in nvidia.get("gpus") or ()]
    if nvidia.get("driver"):
        parts.append(f"driver {nvidia['driver']}")
    parts += [host.get("os"), host.get("python")]
    parts += [f"{name} {packages[name]}" for name in RUNTIMES if packages.get(name)]
    git = info.get("git") or {}
    if git.get("commit"):
        parts.append(f"revision {git['commit'][:12]}{' with changes' if git.get('dirty') else ''}")
    return one_line(", ".join(str(part) for part in parts if part)) or "unknown"


def dataset_line(info: Mapping[str, Any]) -> str:
    """The images."""
    dataset = info.get("dataset") or {}
    if not dataset:
        return "unknown"
    parts = [f"{whole(dataset.get('n_images')) or '?'} images", dataset.get("layout"), dataset.get("root")]
    if dataset.get("fingerprint"):
        parts.append(f"fingerprint {dataset['fingerprint'][:12]}")
    return one_line(", ".join(str(part) for part in parts if part))
