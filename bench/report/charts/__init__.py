"""Charts of a run: for pages (``Chart.spec``), and for papers (``bench.report.charts.files``).

Altair builds them and checks them against Vega-Lite's schema; the same run gives the same bytes. Whatever people wrote
(names of models, options) is data in them, and never part of an expression or of a field's name. Every mark of a row
tells by its tooltip which Case it shows, and which of the run's files its figures come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from bench.analysis.accuracy.predictions import ScoredRun
    from bench.report.charts.chart import Chart


def charts(
    run: Path, frame: pd.DataFrame, info: Mapping[str, Any], *, scored: ScoredRun | None = None
) -> list[Chart]:
    """The charts for which the run has data, in the order in which they are read.

    Args:
        run: its folder.
        frame: as returned by ``bench.analysis.table.load_frame``.
        info: as returned by ``bench.analysis.table.load_info``.
        scored: the run's predictions, where they are read already; reading them takes longest.

    Raises:
        BenchError: the folder holds no run.
    """
    # Altair takes long to import.
    from bench.report.charts.accuracy import accuracy_latency, waterfall
    from bench.report.charts.chart import Source
    from bench.report.charts.drift import drift
    from bench.report.charts.ecdf import distributions
    from bench.report.charts.ratios import ratios
    from bench.report.charts.throughput import throughput

    source = Source.open(run, frame, info, scored)
    return [
        *accuracy_latency(source),
        *ratios(source),
        *distributions(source),
        *drift(source),
        *throughput(source),
        *waterfall(source.steps, source.marks),
    ]
