"""``table.tex``: the run as a table for a paper, ready for ``\\input``.

A line of it is what a reader of a paper takes for one row: a backend in one precision at one batch, with its
accuracy, its latency and its throughput, which are Cases of their own in a run. The notes below tell of the machine, of
the method and of the data.

Needs booktabs, siunitx (version 3) and threeparttable in the preamble.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.best import Best, fastest, groups_of_run, most_accurate
from bench.analysis.columns import REGISTRY
from bench.analysis.table import Loaded
from bench.analysis.time import verdict
from bench.backends import display_name
from bench.record.files import write_text
from bench.report.document import Cell, Head, Table
from bench.report.latex.escape import shortened
from bench.report.latex.layout import source
from bench.report.sentences import (
    accuracy_lines,
    baseline_name,
    command_line,
    comparison_lines,
    machine_lines,
    records,
    span,
    stages,
    watermarks,
)
from bench.report.text import interval_ends, written
from scarlet.errors import BenchError, unknown_name

Row = Mapping[str, Any]

# What there is room for in a cell, and in a note below; the whole text stands in the other reports.
LONGEST_NAME, LONGEST_OPTIONS, LONGEST_REASON = 32, 28, 200

UNRESOLVED = "unresolved: this run does not settle which is faster"
_SCENARIOS = ("latency", "throughput", "accuracy")
_IDENTITY = ("model", "weights", "backend", "device", "precision", "options", "threads", "pipeline")
# What all rows share is told below instead of in a column.
_SHARED = ("model", "weights", "device", "precision", "options", "pipeline", "threads", "instances", "batch")


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        columns: names of ``SPECS``, comma-separated; empty for those that are worth their place.
        caption: plain text; empty for one that names the models.
        label: for ``\\ref``; empty for one with the first model's name.
        notes: ``short`` leaves below the table what its rows share, the machine and what bold means.
    """

    columns: str = ""
    caption: str = ""
    label: str = ""
    notes: str = ""


# One row of the table: the rows of the frame that belong together, by their scenario.
Line = Mapping[str, Row]


def _first(line: Line) -> Row:
    """The row that names it: a timed one where there is one."""
    return next(line[name] for name in _SCENARIOS if name in line)


@dataclass(frozen=True)
class Spec:
    """A column, by the short name that a user writes.

    Attributes:
        column: of the registry, which says how it is written.
        scenario: whose row it reads; empty for what tells lines apart.
        default: whether it is chosen where nobody chooses: always, known (some cell is not empty), varies, never.
        is_interval: it shows the ends of the column's interval.
    """

    column: str
    scenario: str = ""
    default: str = "never"
    is_interval: bool = False

    @property
    def is_number(self) -> bool:
        """Its texts are numbers, to be aligned at their points."""
        return bool(self.scenario) and REGISTRY[self.column].is_numeric and not self.is_interval

    def header(self, baseline: str) -> str:
        """What stands above it, with its unit."""
        column = REGISTRY[self.column]
        if self.is_interval:
            return "95 % interval"
        if self.column == "ratio":
            return f"Time / {baseline}"
        return f"{column.title or column.header} {f'({column.unit})' if column.unit else ''}".strip()

    def text(self, line: Line) -> str:
        """Its text in a line; empty where it is not known."""
        row = line.get(self.scenario) if self.scenario else _first(line)
        if row is None:
            return ""
        if self.is_interval:
            return "–".join(interval_ends(self.column, row) or ())
        if self.column in _WRITTEN:
            return _WRITTEN[self.column](row)
        text = written(self.column, row)
        return text if self.is_number else shortened(text, LONGEST_NAME)


def model_name(model: str) -> str:
    """Of a path the file's name: folders are the user's own."""
    kind, colon, path = model.partition(":")
    return shortened(path.replace("\\", "/").rpartition("/")[2] if colon and path else kind, LONGEST_NAME)


# What is written otherwise than the registry says. The batch of an accuracy Case is of no consequence.
_WRITTEN: dict[str, Callable[[Row], str]] = {
    "model": lambda row: model_name(row["model"]),
    "backend": lambda row: shortened(display_name(row["backend"]), LONGEST_NAME),
    "options": lambda row: shortened(written("options", row), LONGEST_OPTIONS),
    "batch": lambda row: "" if row["scenario"] == "accuracy" else str(row["batch"]),
    "agreement_percent": lambda row: (
        "" if row["case_id"] == row["reference_case_id"] else written("agreement_percent", row)
    ),
}
# In the order in which they stand where nobody chooses.
SPECS: dict[str, Spec] = {
    "model": Spec("model", default="varies"),
    "backend": Spec("backend", default="always"),
    **{name: Spec(name, default="varies") for name in ("device", "precision")},
    "options": Spec("options", default="known"),
    **{name: Spec(name, default="varies") for name in ("weights", "pipeline", "threads", "instances", "batch")},
    "stage": Spec("stage"),
    "status": Spec("status"),
    "top1": Spec("top1_percent", "accuracy", "known"),
    "top5": Spec("top5_percent", "accuracy"),
    "agreement": Spec("agreement_percent", "accuracy", "known"),
    "images": Spec("n_images", "accuracy"),
    "latency": Spec("latency_ns_p50", "latency", "known"),
    "interval": Spec("latency_ns_p50", "latency", "known", is_interval=True),
    "p90": Spec("latency_ns_p90", "latency"),
    "p99": Spec("latency_ns_p99", "latency"),
    "h2d": Spec("h2d_ns_p50", "latency"),
    "d2h": Spec("d2h_ns_p50", "latency"),
    "call": Spec("end_to_end_ns_p50", "latency", "known"),
    "samples": Spec("n_samples", "latency"),
    "ratio": Spec("ratio", "latency", "known"),
    "ratio_interval": Spec("ratio", "latency", is_interval=True),
    "verdict": Spec("verdict", "latency"),
    "memory": Spec("peak_rss_bytes", "latency"),
    "throughput": Spec("throughput_images_per_s", "throughput", "known"),
}
# What is best in a group, and may be bold.
RANKED = ("top1", "latency", "throughput")


def write(run: Loaded, path: Path, options: Options | None = None) -> None:
    """Writes the table (see ``bench.report.forms.Format``); raw samples and predictions decide what may be bold.

    Raises:
        BenchError: a column or the label is at fault, or the file cannot be written.
    """
    options = options or Options()
    frame, info = run.frame, run.info
    names = chosen(options.columns)
    lines = _lines(frame, names)
    names = names or _default_columns(lines)
    best = _best(run, lines, names)
    models = list(dict.fromkeys(SPECS["model"].text(line) for line in lines))
    if options.notes not in ("", "short"):
        raise BenchError(f"--notes {options.notes} is not known", "Write --notes short, or leave it out.")
    notes = [*_shared(lines, names), *itertools.islice(machine_lines(info), 1), *_bold(best)]
    full = [
        *_shared(lines, names),
        *machine_lines(info),
        *_accuracy(lines, names, info),
        *_timing(lines, names),
        *_ratios(lines, names, frame, info),
        *_bold(best),
    ]
    # Rows that begin another model, device or batch.
    groups = [(_first(line)["model"], _first(line)["device"], SPECS["batch"].text(line)) for line in lines]
    heads = [
        Head(spec.header(_baseline(lines)), spec.is_interval or REGISTRY[spec.column].is_numeric)
        for spec in map(SPECS.__getitem__, names)
    ]
    cells = tuple(tuple(_cells(names, line, best)) for line in lines)
    cells = cells or ((Cell("no Case was planned"), *[Cell()] * (len(heads) - 1)),)
    tex = source(
        Table("", tuple(heads), cells, tuple(notes if options.notes else full)),
        options.caption or _caption(models, lines),
        options.label or f"tab:{_slug(models[0] if models else 'no-case')}",
        watermarks=watermarks(frame, info),
        breaks=frozenset(index for index in range(1, len(groups)) if groups[index] != groups[index - 1]),
        remarks=_remarks(info, options),
    )
    write_text(path, tex)


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


def _lines(frame: pd.DataFrame, names: Sequence[str]) -> list[Line]:
    """The lines of a run in the order of its frame; accuracies that belong to no timed line come last.

    Args:
        names: of the columns. Cases of which they name no figure are left out; all stand where they name none of any.
    """
    scenarios = {SPECS[name].scenario for name in names} - {""} or set(_SCENARIOS)
    rows = [row for row in records(frame) if row["scenario"] in scenarios]
    timed: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if row["scenario"] != "accuracy":
            timed.setdefault((*_identity(row), row["batch"], row["instances"]), {})[row["scenario"]] = row
    accuracies = {_identity(row): row for row in rows if row["scenario"] == "accuracy"}
    for line in timed.values():
        if (accuracy := accuracies.get(_identity(next(iter(line.values()))))) is not None:
            line["accuracy"] = accuracy
    named = {key[: len(_IDENTITY)] for key in timed}
    return [*timed.values(), *({"accuracy": row} for key, row in accuracies.items() if key not in named)]


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in _IDENTITY)


def _default_columns(lines: Sequence[Line]) -> tuple[str, ...]:
    """The columns that are worth their place."""
    firsts, names = _firsts(SPECS), []
    for name, spec in SPECS.items():
        texts = [spec.text(line) for line in lines]
        is_worth = {"always": True, "known": any(texts), "varies": len(set(texts)) > 1, "never": False}
        # A figure that all rows lack for the same reason is told once, as such: in the first column of its scenario.
        has_failed = any(row["status"] != "ok" for line in lines if (row := line.get(spec.scenario)))
        if is_worth[spec.default] or (has_failed and name in firsts):
            names.append(name)
    return tuple(names)


def _firsts(names: Iterable[str]) -> set[str]:
    """The first column of each scenario."""
    firsts: dict[str, str] = {}
    for name in names:
        firsts.setdefault(SPECS[name].scenario, name)
    return set(firsts.values())


def _cells(names: Sequence[str], line: Line, best: Mapping[str, Best]) -> list[Cell]:
    """The cells of a line. The first of each scenario says how a Case ended that is not ok."""
    firsts, cells = _firsts(names), []
    for name in names:
        spec, text, note = SPECS[name], SPECS[name].text(line), ""
        row = line.get(spec.scenario, {})
        value = row.get(spec.column) if spec.is_number else None
        if row and row["status"] != "ok" and name in firsts:
            note, text = ended(row), text or row["status"]
        if name == "ratio" and row and row["verdict"] == "unresolved":
            note = UNRESOLVED
        is_best = name in RANKED and bool(row) and row["case_id"] in best[spec.scenario].case_ids
        cells.append(Cell(text, value=value, mark="best" if is_best else "", note=note))
    return cells


def ended(row: Row) -> str:
    """How a Case ended that is not ok, and why."""
    return f"{row['status']}: {shortened(row['reason'], LONGEST_REASON)}"


def _best(run: Loaded, lines: Sequence[Line], names: Sequence[str]) -> dict[str, Best]:
    """What may be bold of each scenario that has a ranked column."""
    best: dict[str, Best] = {}
    for scenario in dict.fromkeys(SPECS[name].scenario for name in RANKED if name in names):
        ids = [line[scenario]["case_id"] for line in lines if scenario in line]
        if scenario == "accuracy":
            best[scenario] = most_accurate(groups_of_run(run.scored, ids))
        else:
            best[scenario] = fastest(run.folder, ids, verdict.materiality(run.info))
    return best


def _caption(models: Sequence[str], lines: Sequence[Line]) -> str:
    if not lines:
        return "No Case was planned."
    weights = ", ".join(dict.fromkeys(_first(line)["weights"] for line in lines))
    held = {name for line in lines for name in line}
    shown = [name for name in ("accuracy", "latency", "throughput") if name in held]
    what = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f"{what[0].upper()}{what[1:]} of {', '.join(models)} ({weights} weights)."


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "table"


def _remarks(info: Mapping[str, Any], options: Options) -> tuple[str, ...]:
    """The command that measured, and the one that makes this file again."""
    measured = [f"Measured by: {line}"] if (line := command_line(info)) else []
    given = [word for name, value in asdict(options).items() if value for word in (f"--{name}", value)]
    remake = shlex.join(["scarlet-bench", "report", ".", "--format", "latex", *given])
    return (*measured, f"Made again, in the run's folder, by: {remake}")


def _shared(lines: Sequence[Line], names: Sequence[str]) -> Iterator[str]:
    """What all rows have in common and no column says."""
    parts = []
    for name in _SHARED:
        # The batch of an accuracy alone is empty.
        texts = {text for line in lines if (text := SPECS[name].text(line)) or name != "batch"}
        if name not in names and len(texts) == 1 and (text := texts.pop()):
            if name == "instances" and text == "1":
                continue
            parts.append(f"{text} weights" if name == "weights" else _with_unit(name, text))
    if parts:
        yield f"all rows: {', '.join(parts)}"


def _with_unit(name: str, text: str) -> str:
    if name in ("threads", "instances"):
        return f"{text} {name[:-1] if text == '1' else name}"
    return f"{name} {text}" if name in ("batch", "pipeline") else text


def _shown(lines: Sequence[Line], names: Sequence[str], scenario: str) -> list[Row]:
    """The measured rows of a scenario, where a column shows it."""
    if not any(SPECS[name].scenario == scenario for name in names):
        return []
    rows = [line[scenario] for line in lines if scenario in line]
    return [row for row in rows if row["status"] in ("ok", "fallback")]


def _accuracy(lines: Sequence[Line], names: Sequence[str], info: Mapping[str, Any]) -> Iterator[str]:
    rows = _shown(lines, names, "accuracy")
    if any(row["n_images"] for row in rows):
        fingerprint = str((info.get("dataset") or {}).get("fingerprint") or "")
        which = f" (fingerprint {fingerprint[:12]})" if fingerprint else ""
        yield f"accuracy on {span(row['n_images'] for row in rows)} images{which}"
        yield from accuracy_lines(rows)
    if "agreement" in names and rows:
        named = [row for row in rows if row["case_id"] == row["reference_case_id"]]
        who = f", {display_name(named[0]['backend'])}" if named else ""
        yield f"same top-1: share of images with the same first class as in the reference row{who}"


def _timing(lines: Sequence[Line], names: Sequence[str]) -> Iterator[str]:
    latencies = _shown(lines, names, "latency")
    if any(row["n_samples"] for row in latencies):
        yield (
            f"latency: median of single calls after warm-up, n = {span(row['n_samples'] for row in latencies)} a row, "
            f"with its 95 % interval over lives, or over rounds of one life; {stages(latencies)}"
        )
    passes = _shown(lines, names, "throughput")
    if any(row["n_samples"] for row in passes):
        yield f"images/s: over n = {span(row['n_samples'] for row in passes)} slices or passes a row; {stages(passes)}"


def _ratios(
    lines: Sequence[Line], names: Sequence[str], frame: pd.DataFrame, info: Mapping[str, Any]
) -> tuple[str, ...]:
    if "ratio" not in names:
        return ()
    rows, n_comparisons = _shown(lines, names, "latency"), int(frame["ratio"].notna().sum())
    # The rows that are not resolved bear a mark that says so.
    return comparison_lines(rows, _baseline(lines), n_comparisons, info, explain_unresolved=False)


def _baseline(lines: Sequence[Line]) -> str:
    return baseline_name([line["latency"] for line in lines if "latency" in line])


def _bold(best: Mapping[str, Best]) -> Iterator[str]:
    compared = [one for one in best.values() if one.n_pairs]
    if any(one.case_ids for one in compared):
        yield (
            "bold: better than every other row of the same model, batch and device, resolved at 95 % over all pairs "
            "(times by more than counts as the same, accuracies by more than nothing)"
        )
    elif compared:
        yield "nothing is bold: no row's difference to every other of its group is resolved"
