"""The columns that a LaTeX table can have, by the short names that a user writes, and the lines that they are made of.

A line is what a reader of a paper takes for one row: a backend in one precision at one batch, with its accuracy, its
latency and its throughput, which are Cases of their own in a run.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.backends import display_name
from bench.report.latex.escape import shortened
from bench.report.latex.layout import Cell
from bench.report.sentences import milliseconds, records
from bench.report.text import number, percent, whole
from scarlet.errors import BenchError, unknown_name

if TYPE_CHECKING:
    import pandas as pd

Row = Mapping[str, Any]

# What there is room for in a cell, and in a note below; the whole text stands in the other reports.
LONGEST_NAME, LONGEST_OPTIONS, LONGEST_REASON = 32, 28, 200

_IDENTITY = ("model", "weights", "backend", "device", "precision", "options", "threads", "pipeline")
UNRESOLVED = "unresolved: these rounds do not settle which is faster"


@dataclass(frozen=True)
class Line:
    """One row of the table: the rows of the frame that belong together, by their scenario."""

    rows: Mapping[str, Row]

    @property
    def first(self) -> Row:
        """The row that names it: a timed one where there is one."""
        return next(self.rows[name] for name in ("latency", "throughput", "accuracy") if name in self.rows)

    @property
    def timed(self) -> Row | None:
        """The latency row, else the throughput row, else None."""
        return self.rows.get("latency") or self.rows.get("throughput")


def lines(frame: pd.DataFrame, scenarios: Sequence[str]) -> list[Line]:
    """The lines of a run in the order of its frame; accuracies that belong to no timed line come last.

    Args:
        frame: as of ``bench.analysis.table.load_frame``.
        scenarios: rows of others are left out.
    """
    rows = [row for row in records(frame) if row["scenario"] in scenarios]
    found: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if row["scenario"] != "accuracy":
            key = (*_identity(row), row["batch"], row["instances"])
            found.setdefault(key, {})[row["scenario"]] = row
    accuracies = {_identity(row): row for row in rows if row["scenario"] == "accuracy"}
    for key, line in found.items():
        if (own := accuracies.get(key[: len(_IDENTITY)])) is not None:
            line["accuracy"] = own
    timed = {key[: len(_IDENTITY)] for key in found}
    alone: list[dict[str, Row]] = [{"accuracy": row} for key, row in accuracies.items() if key not in timed]
    return [Line(rows) for rows in [*found.values(), *alone]]


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _IDENTITY)


@dataclass(frozen=True)
class Spec:
    """How a column is made.

    Attributes:
        header: plain text; ``{baseline}`` becomes the name of what rows are compared with.
        value: its text for a row; empty where it is not known.
        scenario: whose row it reads; empty for what tells lines apart.
        number: the text is a number.
        side: where the text is not.
        default: whether it is chosen where nobody chooses: always, known (some cell is not empty), varies, never.
    """

    header: str
    value: Callable[[Row], str]
    scenario: str = ""
    number: bool = False
    side: str = "l"
    default: str = "never"


def _named(name: str, most: int = LONGEST_NAME) -> Callable[[Row], str]:
    return lambda row: shortened("" if row[name] is None else str(row[name]), most)


def _model(row: Row) -> str:
    """Of a path the file's name: folders are the user's own."""
    kind, colon, path = str(row["model"]).partition(":")
    return shortened(path.replace("\\", "/").rpartition("/")[2] if colon and path else kind, LONGEST_NAME)


def _backend(row: Row) -> str:
    return shortened(display_name(str(row["backend"])), LONGEST_NAME)


def _options(row: Row) -> str:
    options = json.loads(row["options"] or "{}")
    return shortened(", ".join(f"{name}={value}" for name, value in options.items()), LONGEST_OPTIONS)


def _batch(row: Row) -> str:
    # The batch of an accuracy Case is of no consequence.
    return "" if row["scenario"] == "accuracy" else str(row["batch"])


def _percent(name: str) -> Callable[[Row], str]:
    return lambda row: percent(row[name], row["n_images"])


def _agreement(row: Row) -> str:
    return (
        ""
        if row["case_id"] == row["reference_case_id"]
        else percent(row["agreement_percent"], row["n_images"])
    )


def _ms(name: str) -> Callable[[Row], str]:
    return lambda row: milliseconds(row, name)


def _stage_ms(stage: str) -> Callable[[Row], str]:
    """Of a stage that a GPU's latency Case times beside its own."""

    def text(row: Row) -> str:
        value = row[f"{stage}_ns_p50"]
        return "" if value is None else number(value / 1e6)

    return text


def _interval(row: Row) -> str:
    return _ends(milliseconds(row, "latency_ns_p50_low"), milliseconds(row, "latency_ns_p50_high"))


def _ends(low: str, high: str) -> str:
    return f"{low}–{high}" if low and high else ""


def _ratio_half_width(row: Row) -> float | None:
    low, high = row["ratio_low"], row["ratio_high"]
    return None if low is None or high is None else (high - low) / 2.0


def _ratio(row: Row) -> str:
    return number(row["ratio"], _ratio_half_width(row))


def _ratio_interval(row: Row) -> str:
    half_width = _ratio_half_width(row)
    return _ends(number(row["ratio_low"], half_width), number(row["ratio_high"], half_width))


def _throughput(row: Row) -> str:
    low, high = row["throughput_images_per_s_low"], row["throughput_images_per_s_high"]
    half_width = None if low is None or high is None else (high - low) / 2.0
    return number(row["throughput_images_per_s"], half_width)


def _mebibytes(row: Row) -> str:
    return "" if row["peak_rss_bytes"] is None else whole(row["peak_rss_bytes"] / 2**20).replace(",", "")


def _count(name: str) -> Callable[[Row], str]:
    return lambda row: "" if row[name] is None else str(row[name])


# In the order in which they stand where nobody chooses.
SPECS: dict[str, Spec] = {
    "model": Spec("Model", _model, default="varies"),
    "backend": Spec("Backend", _backend, default="always"),
    "device": Spec("Device", _named("device"), default="varies"),
    "precision": Spec("Precision", _named("precision"), default="varies"),
    "options": Spec("Options", _options, default="known"),
    "weights": Spec("Weights", _named("weights"), default="varies"),
    "pipeline": Spec("Pipeline", _named("pipeline"), default="varies"),
    "threads": Spec("Threads", _named("threads"), side="r", default="varies"),
    "instances": Spec("Instances", _named("instances"), side="r", default="varies"),
    "batch": Spec("Batch", _batch, side="r", default="varies"),
    "stage": Spec("Stage", _named("stage")),
    "status": Spec("Status", _named("status")),
    "top1": Spec("Top-1 (%)", _percent("top1_percent"), "accuracy", True, default="known"),
    "top5": Spec("Top-5 (%)", _percent("top5_percent"), "accuracy", True),
    "agreement": Spec("Same top-1 (%)", _agreement, "accuracy", True, default="known"),
    "images": Spec("Images", _count("n_images"), "accuracy", True),
    "latency": Spec("Latency (ms)", _ms("latency_ns_p50"), "latency", True, default="known"),
    "interval": Spec("95 % interval", _interval, "latency", side="r", default="known"),
    "p90": Spec("p90 (ms)", _ms("latency_ns_p90"), "latency", True),
    "p99": Spec("p99 (ms)", _ms("latency_ns_p99"), "latency", True),
    "h2d": Spec("Copy in (ms)", _stage_ms("h2d"), "latency", True),
    "d2h": Spec("Copy out (ms)", _stage_ms("d2h"), "latency", True),
    "call": Spec("Whole call (ms)", _stage_ms("end_to_end"), "latency", True, default="known"),
    "samples": Spec("Calls", _count("n_samples"), "latency", True),
    "ratio": Spec("Time / {baseline}", _ratio, "latency", True, default="known"),
    "ratio_interval": Spec("95 % interval", _ratio_interval, "latency", side="r"),
    "verdict": Spec("Verdict", _named("verdict"), "latency"),
    "memory": Spec("Peak MiB", _mebibytes, "latency", True),
    "throughput": Spec("Images/s", _throughput, "throughput", True, default="known"),
}
# What is best in a group, and may be bold.
RANKED = ("top1", "latency", "throughput")
_SCENARIOS = ("latency", "throughput", "accuracy")


def chosen(columns: str) -> tuple[str, ...]:
    """The columns that a user names, comma-separated; none for the default.

    Raises:
        BenchError: there is no such column, or one is named twice.
    """
    names = tuple(name.strip().lower() for name in columns.split(",") if name.strip())
    for name in names:
        if name not in SPECS:
            raise unknown_name("column", name, SPECS)
        if names.count(name) > 1:
            raise BenchError(f"column '{name}' is named twice", "Name each column of --columns once.")
    return names


def scenarios_of(columns: Sequence[str]) -> tuple[str, ...]:
    """Whose Cases these columns show: all where they name no figure of any."""
    named = tuple(dict.fromkeys(SPECS[name].scenario for name in columns if SPECS[name].scenario))
    return named or _SCENARIOS


def default_columns(made: Sequence[Line]) -> tuple[str, ...]:
    """The columns that are worth their place."""

    def is_worth(spec: Spec) -> bool:
        texts = [_text(spec, line) for line in made]
        tells = {"always": True, "known": any(texts), "varies": len(set(texts)) > 1, "never": False}
        # A figure that all rows lack for the same reason is told once, as such.
        return tells[spec.default] or (spec.default == "known" and _has_failed(spec, made))

    return tuple(name for name, spec in SPECS.items() if is_worth(spec) and not _is_second(name, spec, made))


def _has_failed(spec: Spec, made: Sequence[Line]) -> bool:
    rows = [line.rows.get(spec.scenario) for line in made]
    return any(row is not None and row["status"] != "ok" for row in rows)


def _is_second(name: str, spec: Spec, made: Sequence[Line]) -> bool:
    """A column that has nothing to say beside the first of its scenario, where all Cases of that failed."""
    first = next((other for other, its in SPECS.items() if its.scenario == spec.scenario), "")
    return bool(spec.scenario) and name != first and not any(_text(spec, line) for line in made)


def _text(spec: Spec, line: Line) -> str:
    row = line.rows.get(spec.scenario) if spec.scenario else line.first
    return "" if row is None else spec.value(row)


def cells(names: Sequence[str], line: Line, best: frozenset[str]) -> tuple[Cell, ...]:
    """The cells of a line.

    Args:
        names: of the columns. The first of each scenario says how a Case ended that is not ok.
        line: to be shown.
        best: ids of Cases whose figures may be bold.
    """
    firsts: dict[str, str] = {}
    for name in names:
        firsts.setdefault(SPECS[name].scenario, name)
    return tuple(_cell(name, line, name in firsts.values(), best) for name in names)


def _cell(name: str, line: Line, is_first: bool, best: frozenset[str]) -> Cell:
    spec, text = SPECS[name], _text(SPECS[name], line)
    row, note = line.rows.get(spec.scenario), ""
    is_number = spec.number and bool(text)
    if row is not None and row["status"] != "ok" and is_first:
        note = ended(row)
        text = text or row["status"]
    if name == "ratio" and row is not None and row["verdict"] == "unresolved":
        note = UNRESOLVED
    is_bold = name in RANKED and row is not None and row["case_id"] in best
    return Cell(text, is_number, is_bold, note)


def ended(row: Row) -> str:
    """How a Case ended that is not ok, and why."""
    return f"{row['status']}: {shortened(row['reason'], LONGEST_REASON)}"
