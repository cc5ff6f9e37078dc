"""A run that has something for every chart, and rows of a frame with few words."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from report_run import add_samples, case, end, make_run

from bench.analysis.table import load
from bench.host import WarningKind
from bench.host.disturbance import RoundState
from bench.record.case import Case
from bench.record.run_folder import RunFolder
from bench.report.charts import charts
from bench.report.charts.chart import Chart

BACKENDS = (("pytorch", "fp32", 20.0), ("onnxruntime", "fp32", 10.0), ("onnxruntime", "int8", 6.0))
# Milliseconds more for each further image of a batch, as a share of those of the first.
MARGINAL = 0.7
N_IMAGES = 1000
N_ROUNDS, PER_ROUND = 40, 8
DISTURBED = (10, 11, 30)


def scored(backend: str, precision: str, **more: Any) -> Case:
    """An accuracy Case."""
    return case(backend=backend, precision=precision, scenario="accuracy", batch=32, **more)


def add_wrong(folder: RunFolder, one: Case, wrong: int, n_images: int = N_IMAGES) -> None:
    """Predictions of which every 7th image, and the first so many, are wrong."""
    top = np.tile(np.arange(5, dtype=np.int16), (n_images, 1))
    top[::7, 0] = 8
    top[:wrong, 0] = 7
    folder.write_predictions_part(
        one.case_id,
        image_id=[f"{place:05}" for place in range(n_images)],
        label=np.zeros(n_images, np.int16),
        top=top,
        margin=np.full(n_images, 0.5, np.float32),
    )
    end(folder, one)


def add_times(folder: RunFolder, one: Case, middle_ms: float, seed: int, n_rounds: int = N_ROUNDS) -> None:
    """Skewed times that rise by 5 % over the run; disturbed rounds take a third more."""
    source = np.random.default_rng(seed)
    n = n_rounds * PER_ROUND
    round_ = np.arange(n) // PER_ROUND
    slower = (1.0 + 0.05 * round_ / n_rounds) * np.where(np.isin(round_, DISTURBED), 1.33, 1.0)
    ns = 1e6 * middle_ms * slower * np.exp(0.03 * source.standard_normal(n) ** 2)
    stage = "end_to_end" if one.scenario == "throughput" else "compute"
    warm = [int(2e6 * middle_ms)] * 3
    add_samples(folder, one, [*warm, *ns.astype(int).tolist()], n_warmup=3, per_round=PER_ROUND, stage=stage)
    end(folder, one, stage=stage)


def fixed_run(path: Path, **fields: Any) -> RunFolder:
    """Three rows, at batches 1, 2 and 8, with accuracies of 1,000 images and disturbed rounds.

    Args:
        path: of the run.
        fields: of every Case.
    """
    dali = [scored(backend, precision, **fields) for backend, precision, _ in BACKENDS]
    start = replace(dali[0], pipeline="reference")
    timed = [
        (case(backend=backend, precision=precision, scenario=scenario, batch=batch, **fields), ms, batch)
        for scenario, batches in (("latency", (1, 2, 8)), ("throughput", (8, 32)))
        for batch in batches
        for backend, precision, ms in BACKENDS
    ]
    folder = make_run(path, [start, *dali, *(one for one, _, _ in timed)])
    for one, wrong in zip((start, *dali), (0, 4, 4, 60), strict=True):
        add_wrong(folder, one, wrong)
    for seed, (one, ms, batch) in enumerate(timed):
        add_times(folder, one, ms * (1.0 + MARGINAL * (batch - 1)), seed)
    folder.write_rounds(
        [
            RoundState(scenario, round_, 10**9, reasons=(WarningKind.LOAD,) if round_ in DISTURBED else ())
            for scenario in ("latency", "throughput")
            for round_ in range(N_ROUNDS)
        ]
    )
    folder.merge_parts()
    return folder


def drawn(folder: RunFolder) -> dict[str, Chart]:
    """The charts of a run by name."""
    return {chart.name: chart for chart in charts(load(folder.path))}


def latency_run(path: Path, cases: Iterable[Case], ns: Mapping[str, np.ndarray[Any, Any]]) -> RunFolder:
    """A run of latency Cases with these samples by id, ten rounds each."""
    planned = list(cases)
    folder = make_run(path, planned)
    for one in planned:
        samples = ns[one.case_id]
        add_samples(folder, one, samples.tolist(), per_round=max(1, len(samples) // 10))
        end(folder, one, stage="compute")
    return folder


def flattened(chart: Chart, *fields: str) -> pd.DataFrame:
    """The chart's rows, lists of these fields unpacked, as the transform ``flatten`` does."""
    return pd.DataFrame(chart.data["rows"]).explode(list(fields), ignore_index=True)
