"""Charts of a run: for pages (``Chart.spec``), and for papers (``bench.report.charts.files``).

Altair builds them and checks them against Vega-Lite's schema; the same run gives the same bytes. Whatever people wrote
(names of models, options) is data in them, and never part of an expression or of a field's name. Every mark of a row
tells by its tooltip which Case it shows, and which of the run's files its figures come from.
"""

from __future__ import annotations

from bench.analysis.table import Loaded
from bench.report.charts.accuracy import accuracy_latency, waterfall
from bench.report.charts.chart import Chart, Source
from bench.report.charts.drift import drift
from bench.report.charts.ecdf import distributions
from bench.report.charts.ratios import ratios
from bench.report.charts.throughput import load, throughput


def charts(run: Loaded) -> list[Chart]:
    """The charts for which the run has data, in the order in which they are read."""

    source = Source.open(run)
    return [
        *accuracy_latency(source),
        *ratios(source),
        *distributions(source),
        *drift(source),
        *throughput(source),
        *load(source),
        *waterfall(source.steps, source.marks),
    ]
