"""All runs of a folder as one table, and where a Case's level changed.

Times of different days are not compared: load, clocks and kernels differ. What is followed is the ratio to the
baseline that took turns with the Case in the same run, on the same machine; and, of accuracy Cases, the predictions'
figures on the same images.
"""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import host
from bench.analysis.columns import REGISTRY
from bench.analysis.stats.changepoints import LEVEL, MIN_SEGMENT, ChangePoint, change_points, newest_change
from bench.analysis.table import DEMO_NOTE, load_frame
from bench.analysis.time.verdict import LEAST_MATERIALITY
from bench.record.case import Case
from bench.record.files import write_text
from bench.record.run_folder import CASES, RUN_INFO, RunFolder
from bench.report.document import Cell, Column, Document, Head, Table, interval_cell, notes, table_of
from bench.report.flips import p_text
from bench.report.html.safety import rendered
from bench.report.sentences import records
from bench.report.text import one_line, percent
from scarlet.errors import BenchError

if TYPE_CHECKING:
    import pandas as pd

# Of the runs' tables, what is followed; the rest is in each run's own report.
FOLLOWED = (
    *("case_id", "status", "model", "weights", "backend", "device", "precision", "pipeline", "batch", "threads"),
    *("instances", "scenario", "options", "baseline_case_id", "ratio", "ratio_low", "ratio_high", "verdict"),
    *("n_images", "top1_percent", "agreement_percent"),
)


@dataclass(frozen=True)
class Point:
    """One run of a series: the ratio to the baseline with its interval where it has one, or top-1 in per cent."""

    run: str
    created_at: str
    commit: str
    value: float
    low: float | None
    high: float | None
    n_images: int | None


@dataclass(frozen=True)
class Series:
    """A Case through the runs of one machine, oldest first.

    Attributes:
        kind: ``ratio`` (time per image over the baseline's) or ``top1_percent``.
        host: fingerprint of the machine (of the images, for ``top1_percent``).
        host_name: for people.
        case: what was measured.
        baseline_case_id: what a ratio is relative to; empty for ``top1_percent``.
        points: one for each run.
        changes: where the level of a ratio changed for good; where ``top1_percent`` differs from the run before.
    """

    kind: str
    host: str
    host_name: str
    case: Case
    baseline_case_id: str
    points: tuple[Point, ...]
    changes: tuple[ChangePoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        changes = [
            {"run": (point := self.points[change.index]).run, "commit": point.commit, **vars(change)}
            for change in self.changes
        ]
        return {
            **vars(self),
            "case": self.case.to_dict(),
            "case_id": self.case.case_id,
            "label": self.case.label,
            "points": [vars(point) for point in self.points],
            "changes": changes,
        }


def runs_in(folder: Path) -> list[Path]:
    """Every run below a folder, oldest first; links are not followed, so that ``latest`` is no second run.

    A run that cannot be read is left out with a ``UserWarning``.

    Raises:
        BenchError: there is none.
    """
    found = [path.parent for path in sorted(Path(folder).rglob(RUN_INFO)) if not path.parent.is_symlink()]
    if not found:
        raise BenchError(f"{folder} holds no run", "Name a folder with runs, such as results.")
    dated = []
    for path in found:
        try:
            created_at = str(RunFolder(path).read_run_info().get("created_at", ""))
        except BenchError as mistake:
            warnings.warn(f"{path} is left out: {mistake.what}", stacklevel=2)
            continue
        dated.append((created_at, path.name, path))
    return [path for _, _, path in sorted(dated)]


def load_history(folder: Path) -> pd.DataFrame:
    """A row for each Case of each run below a folder.

    A run's ``table.parquet`` is read where it is newer than what it was made from; else its figures are derived anew.

    Returns:
        ``run``, ``created_at``, ``commit``, ``host``, ``host_name``, ``dataset`` and the columns of ``FOLLOWED``.

    Raises:
        BenchError: there is no run.
    """
    import pandas as pd

    tables = [
        _table(path)[list(FOLLOWED)].assign(**_of_run(path, RunFolder(path).read_run_info()))
        for path in runs_in(folder)
    ]
    made = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(FOLLOWED))
    first = ["run", "created_at", "commit", "host", "host_name", "dataset"]
    return made.reindex(columns=[*first, *FOLLOWED])


def _table(run: Path) -> pd.DataFrame:
    import pandas as pd

    derived = run / "table.parquet"
    sources = [path for path in (run / RUN_INFO, run / CASES) if path.exists()]
    if derived.exists() and all(derived.stat().st_mtime_ns >= path.stat().st_mtime_ns for path in sources):
        table = pd.read_parquet(derived)
        if set(FOLLOWED) <= set(table.columns):
            return table
    return load_frame(run)


def _of_run(path: Path, info: Mapping[str, Any]) -> dict[str, str]:
    described = info.get("host") or {}
    git = info.get("git") or {}
    return {
        "run": path.name,
        "created_at": str(info.get("created_at", "")),
        "commit": str(git.get("commit", ""))[:12] + ("+" if git.get("dirty") else ""),
        "host": host.fingerprint(described),
        "host_name": str(described.get("cpu_model") or "unknown processor"),
        "dataset": str((info.get("dataset") or {}).get("fingerprint", "")),
    }


def series(history: pd.DataFrame) -> list[Series]:
    """Every Case that was measured more than once, with what changed.

    Args:
        history: as of ``load_history``.
    """
    measured = history[history["status"] == "ok"]
    timed = measured[measured["ratio"].notna()]
    scored = measured[measured["top1_percent"].notna()]
    by_time = ["host", "case_id", "baseline_case_id"]
    made = [
        *_series(timed, "ratio", by_time, _levels),
        *_series(scored, "top1_percent", ["dataset", "case_id"], _differences),
    ]
    return [each for each in made if len(each.points) > 1]


def _series(table: pd.DataFrame, kind: str, keys: list[str], judge: Any) -> Iterator[Series]:
    for _, group in table.groupby(keys, sort=False, dropna=False):
        rows = records(group)
        points = [_point(row, kind) for row in rows]
        yield Series(
            kind=kind,
            host=rows[0][keys[0]],
            host_name=rows[0]["host_name"],
            case=_case(rows[0]),
            baseline_case_id=rows[0]["baseline_case_id"] if kind == "ratio" else "",
            points=tuple(points),
            changes=tuple(judge([point.value for point in points])),
        )


def _point(row: Mapping[str, Any], kind: str) -> Point:
    low, high = (row["ratio_low"], row["ratio_high"]) if kind == "ratio" else (None, None)
    return Point(row["run"], row["created_at"], row["commit"], row[kind], low, high, row["n_images"])


def _case(row: Mapping[str, Any]) -> Case:
    fields = {name: row[name] for name in REGISTRY if name in Case.__dataclass_fields__}
    return Case(**{**fields, "options": tuple(sorted(json.loads(row["options"] or "{}").items()))})


def _levels(ratios: list[float]) -> list[ChangePoint]:
    """Changes anywhere, and of the newest runs against the level before them, for which the former need more runs."""
    changes = change_points(ratios, LEAST_MATERIALITY)
    since = changes[-1].index if changes else 0
    newest = newest_change(ratios[since:], LEAST_MATERIALITY)
    return [*changes, replace(newest, index=since + newest.index)] if newest else changes


def _differences(values: list[float]) -> list[ChangePoint]:
    """Every run whose top-1 differs from the one before: the same code on the same images gives the same classes."""
    return [
        ChangePoint(place, before, after, 0.0)
        for place, (before, after) in enumerate(itertools.pairwise(values), start=1)
        if before != after
    ]


BARS = "▁▂▃▄▅▆▇█"
# The runs that a sparkline shows: the newest.
MOST_BARS = 24
# Under so many runs no order of them is rarer than the test's level.
FEWEST_RUNS = 12


def document(history: pd.DataFrame, found: Sequence[Series], title: str) -> Document:
    """Tables of ratios by machine, and of top-1; for machines every run of every series."""
    groups: dict[str, list[Series]] = {}
    for each in found:
        groups.setdefault(each.host if each.kind == "ratio" else each.kind, []).append(each)
    lines = [] if found else ["no Case was measured in two runs or more"]
    demo = history["weights"].eq("demo").any()
    return Document(
        title=title,
        blocks=[*notes([DEMO_NOTE] if demo else [], "mark"), *map(_overview, groups.values()), *notes(lines)],
        data={"runs": sorted(set(history["run"])), "series": [each.to_dict() for each in found]},
        frames={"history": history},
    )


def sparkline(values: Sequence[float]) -> str:
    """The course of the newest values in a line of bars, the least and the largest of them as ends of the scale."""
    shown = list(values)[-MOST_BARS:]
    low, high = min(shown), max(shown)
    # What differs by less than this is drawn level, or noise would look like mountains.
    if high - low <= LEAST_MATERIALITY * abs(high):
        return BARS[3] * len(shown)
    return "".join(BARS[round((value - low) / (high - low) * (len(BARS) - 1))] for value in shown)


def _overview(group: Sequence[Series]) -> Table:
    """A row for each series of a machine, or of sets of images."""
    labels = {each.case.case_id: each.case.label for each in group}
    columns: list[Column[Series]] = [
        Column(Head("Case"), lambda each: one_line(each.case.label)),
        Column(
            Head("Baseline"), lambda each: one_line(labels.get(each.baseline_case_id, each.baseline_case_id)), "known"
        ),
        Column(Head("Runs", True), lambda each: Cell(str(len(each.points)), value=len(each.points))),
        Column(Head("Course"), lambda each: sparkline([point.value for point in each.points])),
        Column(Head("First", True), lambda each: _value(each, each.points[0])),
        Column(Head("Newest", True), lambda each: _value(each, each.points[-1])),
        Column(Head("Changes"), lambda each: "; ".join(_changes(each)) or _none(each)),
    ]
    if group[0].kind != "ratio":
        return table_of("Top-1 % on the same images, run by run", columns, group)
    note = (
        f"change: {MIN_SEGMENT} runs or more whose median differs by more than {LEAST_MATERIALITY:.0%} "
        f"from that of the others, permutation test p < {LEVEL:g}, or of the newest {MIN_SEGMENT}, rank-sum test; "
        f"this takes {FEWEST_RUNS} runs"
    )
    title = f"Time per image over the baseline's, run by run: {group[0].host_name} ({group[0].host})"
    return table_of(title, columns, group, (note,))


def _value(each: Series, point: Point) -> Cell:
    if each.kind == "ratio":
        return interval_cell(point.value, point.low, point.high)
    return Cell(percent(point.value, point.n_images), value=point.value)


def _changes(each: Series) -> list[str]:
    """Each change in words: from which level to which, from which run on."""
    said = []
    for change in each.changes:
        point = each.points[change.index]
        ends = (_value(each, replace(point, value=value, low=None)).text for value in (change.before, change.after))
        where = " ".join(filter(None, [point.created_at[:10], point.commit])) or point.run
        p = f" (p {p_text(change.p_value)})" if each.kind == "ratio" else ""
        said.append(f"{' to '.join(ends)} from {where} on{p}")
    return said


def _none(each: Series) -> str:
    return "none" if len(each.points) >= FEWEST_RUNS or each.kind != "ratio" else "too few runs to tell"


def write_page(found: Sequence[Series], folder: Path, title: str, path: Path) -> None:
    """Writes one page: each row's course with the changes of its level, and links to the runs' own pages."""
    reports = {run.name: run / "report.html" for run in runs_in(folder)}

    def link(run: str) -> str:
        return os.path.relpath(reports[run], path.parent) if reports[run].is_file() else ""

    figures = []
    for each in found:
        values = [point.value for point in each.points]
        low, high = min(values), max(values)
        xs = [100 * place / max(1, len(values) - 1) for place in range(len(values))]
        ys = [100 - 100 * (value - low) / ((high - low) or 1) for value in values]
        figures.append(
            {
                "label": one_line(each.case.label),
                "what": "time per image over the baseline's" if each.kind == "ratio" else "top-1 in per cent",
                "host": each.host_name,
                "low": f"{low:.4g}",
                "high": f"{high:.4g}",
                "line": " ".join(f"{x:.2f},{y:.2f}" for x, y in zip(xs, ys, strict=True)),
                "changes": [round(xs[change.index], 2) for change in each.changes],
                "told": _changes(each),
                "points": [{"run": p.run, "link": link(p.run), "text": f"{p.value:.4g}"} for p in each.points],
            }
        )
    marks = [DEMO_NOTE] if any(each.case.weights == "demo" for each in found) else []
    write_text(path, rendered("history.html.j2", figures=figures, title=title, marks=marks))


def benchmark_action(found: Sequence[Series]) -> list[dict[str, Any]]:
    """The newest figure of each row, where less is better: ``customSmallerIsBetter`` of github-action-benchmark."""
    rows = []
    for each in found:
        newest, is_ratio = each.points[-1], each.kind == "ratio"
        row: dict[str, Any] = {"name": each.case.label, "unit": "time / baseline" if is_ratio else "top-1 error %"}
        row |= {"value": newest.value if is_ratio else 100.0 - newest.value, "extra": f"run {newest.run}"}
        if newest.low is not None and newest.high is not None:
            row["range"] = f"± {(newest.high - newest.low) / 2:.3g}"
        rows.append(row)
    return rows
