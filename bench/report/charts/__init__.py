"""Charts of a run as Vega-Lite specs: for pages, and for papers (``bench.report.charts.files``).

Specs are plain dictionaries with their data inside; the same run gives the same bytes. Whatever people wrote (names of
models, options) is data in them, and never part of an expression or of a field's name. Every mark tells by its tooltip
which Case it shows, and which of the run's files its figures come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.report.charts.chart import Chart, Source
from bench.report.charts.theme import themed

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.accuracy.predictions import ScoredRun

__all__ = ["Chart", "charts", "themed"]


def charts(
    run: Path, frame: pd.DataFrame, info: Mapping[str, Any], *, scored: ScoredRun | None = None
) -> list[Chart]:
    """The charts for which the run has data, in the order in which they are read.

    Args:
        run: its folder.
        frame: as of ``bench.analysis.table.load_frame``.
        info: as of ``bench.analysis.table.load_info``.
        scored: the run's predictions, where they are read already; reading them takes longest.

    Raises:
        BenchError: the folder holds no run.
    """
    from bench.report.charts import accuracy_latency, drift, ecdf, ratios, throughput, waterfall

    source = _source(run, frame, info, scored)
    drawings = (
        accuracy_latency.draw,
        ratios.draw,
        ecdf.draw,
        drift.draw,
        throughput.draw,
        waterfall.draw,
    )
    return [chart for draw in drawings for chart in draw(source)]


def _source(run: Path, frame: pd.DataFrame, info: Mapping[str, Any], scored: ScoredRun | None) -> Source:
    from bench.analysis.table import DEMO_NOTE
    from bench.analysis.time import verdict
    from bench.record.run_folder import RunFolder
    from bench.report.sentences import records, watermarks

    folder = RunFolder.open(run)
    rows = [row for row in records(frame) if row["status"] == "ok"]
    ids = {row["case_id"] for row in rows}
    return Source(
        rows=rows,
        results=[result for result in folder.case_results() if result.case.case_id in ids],
        samples=folder.samples(),
        rounds=folder.rounds(),
        steps=_steps(run, rows, scored),
        materiality=verdict.materiality(info),
        marks=[mark for mark in watermarks(frame, info) if mark == DEMO_NOTE],
    )


def _steps(run: Path, rows: list[dict[str, Any]], scored: ScoredRun | None) -> tuple[Any, ...]:
    """The accuracy waterfall; nothing where no two Cases may be scored, or their predictions do not fit."""
    from bench.analysis.accuracy.predictions import ScoredRun
    from bench.analysis.accuracy.waterfall import steps
    from scarlet.errors import BenchError

    if sum(row["top1_percent"] is not None for row in rows) < 2:
        return ()
    try:
        return steps(scored or ScoredRun.open(run))
    except BenchError:
        return ()  # the report's section on flips says what is wrong with the predictions
