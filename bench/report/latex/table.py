"""``table.tex``: the run as a table for a paper, ready for ``\\input``.

Needs booktabs, siunitx (version 3) and threeparttable in the preamble; longtable instead of the last where the table
goes on over pages. The file says which.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis import best as latex_best
from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.best import Best
from bench.record.files import write_text
from bench.record.run_folder import RunFolder
from bench.report.latex import columns as latex_columns
from bench.report.latex.columns import RANKED, SPECS, Line
from bench.report.latex.layout import Column, TexTable, source
from bench.report.latex.notes import baseline, notes
from bench.report.sentences import watermarks

if TYPE_CHECKING:
    import pandas as pd

FILE_NAME: str = "table.tex"


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        columns: names of ``latex_columns.SPECS``, comma-separated; empty for those that are worth their place.
        caption: plain text; empty for one that names the models.
        label: for ``\\ref``; empty for one with the first model's name.
    """

    columns: str = ""
    caption: str = ""
    label: str = ""


def write(frame: pd.DataFrame, info: Mapping[str, Any], path: Path, options: Options | None = None) -> None:
    """Writes the table. See ``bench.report.Format``; what may be bold is decided by the raw samples and predictions of
    the run in the folder of ``path``.

    Raises:
        BenchError: a column or the label is at fault, or the file cannot be written.
    """
    write_text(path, source(table(frame, info, path.parent, options or Options())))


def table(frame: pd.DataFrame, info: Mapping[str, Any], run: Path, options: Options) -> TexTable:
    """The table of a run.

    Args:
        frame: as of ``bench.analysis.table.load_frame``.
        info: as of ``bench.analysis.table.load_info``.
        run: its folder.
        options: what the user chose.

    Raises:
        BenchError: there is no such column, the label is none, or the folder holds no run.
    """
    names = latex_columns.chosen(options.columns)
    made = latex_columns.lines(frame, latex_columns.scenarios_of(names))
    names = names or latex_columns.default_columns(made)
    best = _best(run, info, made, names)
    bold = frozenset(case_id for one in best.values() for case_id in one.case_ids)
    named = baseline(made)
    models = list(dict.fromkeys(SPECS["model"].value(line.first) for line in made))
    below = notes(frame, info, made, names, best)
    return TexTable(
        columns=[Column(SPECS[name].header.format(baseline=named), SPECS[name].side) for name in names],
        rows=[latex_columns.cells(names, line, bold) for line in made],
        caption=options.caption or _caption(models, made),
        label=options.label or f"tab:{_slug(models[0] if models else 'no-case')}",
        watermarks=watermarks(frame, info),
        notes=below,
        breaks=_breaks(made),
        remarks=_remarks(info, options),
        empty="no Case was planned",
    )


def _best(run: Path, info: Mapping[str, Any], made: list[Line], names: tuple[str, ...]) -> dict[str, Best]:
    """What may be bold of each scenario that has a ranked column."""
    from bench.analysis.time import verdict

    ids = [row["case_id"] for line in made for row in line.rows.values()]
    found: dict[str, Best] = {}
    for name in RANKED:
        if name not in names:
            continue
        scenario = SPECS[name].scenario
        if scenario == "accuracy":
            scored = ScoredRun.open(run)
            found[scenario] = latex_best.most_accurate(latex_best.groups_of_run(scored, ids))
        else:
            own = [line.rows[scenario]["case_id"] for line in made if scenario in line.rows]
            found[scenario] = latex_best.fastest(RunFolder.open(run), own, verdict.materiality(info))
    return found


def _caption(models: list[str], made: list[Line]) -> str:
    if not made:
        return "No Case was planned."
    weights = ", ".join(dict.fromkeys(line.first["weights"] for line in made))
    held = {name for line in made for name in line.rows}
    shown = [name for name in ("accuracy", "latency", "throughput") if name in held]
    what = " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
    return f"{what[0].upper()}{what[1:]} of {', '.join(models)} ({weights} weights)."


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "table"


def _breaks(made: list[Line]) -> frozenset[int]:
    """Rows that begin another model, device or batch."""
    groups = [(line.first["model"], line.first["device"], SPECS["batch"].value(line.first)) for line in made]
    return frozenset(place for place in range(1, len(groups)) if groups[place] != groups[place - 1])


def _remarks(info: Mapping[str, Any], options: Options) -> tuple[str, ...]:
    """The command that measured, and the one that makes this file again."""
    words = [str(word) for word in info.get("command") or ()]
    measured = [f"Measured by: {shlex.join([Path(words[0]).name, *words[1:]])}"] if words else []
    given = [
        word
        for name in ("columns", "caption", "label")
        if (value := getattr(options, name))
        for word in (f"--{name}", value)
    ]
    remake = shlex.join(["scarlet-bench", "report", ".", "--format", "latex", *given])
    return (*measured, f"Made again, in the run's folder, by: {remake}")
