"""One tidy table of a run, a Case a row, derived from its raw files and nothing else.

numpy, pandas and scipy are imported where they are needed, so that the formats can be listed cheaply.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.case import Case, Status
from bench.files import encodable
from bench.results import CaseResult, RunFolder
from bench.tables import TOP

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

# Column names and pandas types, in order. Unknown numbers are <NA>, unknown texts are empty.
COLUMNS = {
    "case_id": "string",
    "status": "string",
    "reason": "string",
    "model": "string",
    "weights": "string",
    "backend": "string",
    "device": "string",
    "precision": "string",
    "pipeline": "string",
    "batch": "Int64",
    "threads": "Int64",
    "instances": "Int64",
    "scenario": "string",
    "stage": "string",
    "n_samples": "Int64",
    "latency_ns_p50": "Float64",
    "latency_ns_p50_low": "Float64",
    "latency_ns_p50_high": "Float64",
    "latency_ns_p90": "Float64",
    "latency_ns_p99": "Float64",
    "throughput_images_per_s": "Float64",
    "n_images": "Int64",
    "n_bad_images": "Int64",
    "top1_percent": "Float64",
    "top5_percent": "Float64",
    "agreement_percent": "Float64",
    "peak_rss_bytes": "Int64",
    "options": "string",
    "top5_ordered_agreement_percent": "Float64",
    "reference_case_id": "string",
    "n_warmup": "Int64",
    "stop_reason": "string",
    "n_outliers": "Int64",
    "note": "string",
}
TEXT_COLUMNS = tuple(name for name, type_ in COLUMNS.items() if type_ == "string")

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}

RANDOM_NOTE = "random weights: accuracy is not meaningful"
DEMO_NOTE = "demo data: not ImageNet accuracy"
NEVER_RAN = "the run ended before this Case did; go on with --resume"


def load_frame(run: Path) -> pd.DataFrame:
    """The table of a run, planned Cases first and in order.

    Figures are derived from the raw samples (warm-up left out) and predictions of Cases that are ``ok``;
    every other Case keeps its reason and what was counted. The columns of ``COLUMNS``, in that order:

    - ``latency_ns_*`` of latency Cases only: quantiles of single calls, and the 95 % order-statistic interval
    of the
      median. A quantile with fewer samples than ``stats.min_samples_for_quantile`` is empty and ``note`` says
      so.
    - ``throughput_images_per_s`` of latency and throughput Cases: images over the sum of the samples' times.
    The
      samples follow one another, so that sum is the time spent.
    - ``n_images``: images predicted (accuracy), or worked on in timed samples (throughput). ``top1_percent``
    and
      ``top5_percent`` are of those; empty for random weights.
    - ``agreement_percent``: share of images with the same top-1 as in the reference Case, over images common
    to
      both; ``top5_ordered_agreement_percent`` with the same five in the same order. The reference is the
      first ok accuracy Case on pytorch, cpu, fp32, else the first ok one; its own cells are empty.
    - ``n_outliers``: samples with a modified z score over 3.5. They are counted, never removed.

    Raises:
        BenchError: the folder holds no run.
    """
    import pandas as pd

    folder = RunFolder.open(run)
    info, results = folder.read_run_info(), _rows(folder)
    predictions = _predictions(folder)
    reference = _reference(results, predictions)
    is_demo = bool((info.get("dataset") or {}).get("is_demo"))
    timings = _by_case(folder.samples())
    rows = []
    for result in results:
        row = _identity(result)
        notes: list[str] = []
        if result.status is Status.OK and result.case.scenario == "accuracy":
            predicted = predictions.get(result.case.case_id)
            row |= _accuracy(result.case, predicted, reference, notes)
            if is_demo or result.case.weights == "demo":
                notes.append(DEMO_NOTE)
        elif result.status is Status.OK:
            row |= _timing(result, timings.get(result.case.case_id), notes)
        row["note"] = "; ".join(notes)
        rows.append(
            {name: encodable(value) if isinstance(value, str) else value for name, value in row.items()}
        )
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    frame[list(TEXT_COLUMNS)] = frame[list(TEXT_COLUMNS)].fillna("")
    return frame.astype(COLUMNS)


def load_info(run: Path) -> dict[str, Any]:
    """What reports tell besides the table: ``run.json``, and under ``bad_images`` every unreadable file once.

    Raises:
        BenchError: the folder holds no run.
    """
    folder = RunFolder.open(run)
    bad = {
        image["image_id"]: image.get("reason", "")
        for result in folder.case_results()
        for image in result.bad_images
    }
    images = [{"image_id": image_id, "reason": reason} for image_id, reason in sorted(bad.items())]
    return {**folder.read_run_info(), "bad_images": images}


def _rows(folder: RunFolder) -> list[CaseResult]:
    """A result for each Case: planned ones in order, those that never ended as ``interrupted``, then any others."""
    ended = {result.case.case_id: result for result in folder.case_results()}
    planned = {case.case_id: case for case in folder.planned_cases()}
    missing = {
        case_id: CaseResult(case, Status.INTERRUPTED, NEVER_RAN)
        for case_id, case in planned.items()
        if case_id not in ended
    }
    found = {**ended, **missing}
    return [
        found[case_id] for case_id in [*planned, *(case_id for case_id in ended if case_id not in planned)]
    ]


def _identity(result: CaseResult) -> dict[str, Any]:
    case, metrics = result.case, result.metrics
    row = {name: value for name, value in case.to_dict().items() if name in COLUMNS}
    bad = metrics.get("n_bad_images")
    return {
        **row,
        "case_id": case.case_id,
        "status": result.status.value,
        "reason": " ".join(result.reason.split()),
        "stage": result.stage,
        "options": json.dumps(dict(case.options), sort_keys=True) if case.options else "",
        "n_bad_images": bad if bad is not None else (len(result.bad_images) or None),
        "peak_rss_bytes": metrics.get("peak_rss_bytes"),
        "n_warmup": metrics.get("n_warmup"),
        "stop_reason": metrics.get("stop_reason", ""),
    }


# --- timings ------------------------------------------------------------------------------------------------


def _by_case(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {str(case_id): part for case_id, part in frame.groupby("case_id", observed=True, sort=False)}


def _timing(result: CaseResult, samples: pd.DataFrame | None, notes: list[str]) -> dict[str, Any]:
    from bench import stats

    if samples is None:
        notes.append("its samples are missing from the run's folder")
        return {}
    of_stage = samples[samples["stage"] == result.stage] if result.stage else samples
    timed = of_stage[~of_stage["warmup"]]
    latency_ns, n_images = timed["latency_ns"].to_numpy(), int(timed["images"].sum())
    row: dict[str, Any] = {"n_samples": len(timed), "n_warmup": len(of_stage) - len(timed)}
    if not len(timed):
        notes.append("no sample after warm-up")
        return row
    row["n_outliers"] = stats.modified_z_outliers(latency_ns)
    total_ns = int(latency_ns.sum())
    if total_ns:
        row["throughput_images_per_s"] = n_images * 1e9 / total_ns
    if result.case.scenario == "latency":
        row |= _quantiles(latency_ns, notes)
    else:
        row["n_images"] = n_images
    return row


def _quantiles(latency_ns: NDArray[np.int64], notes: list[str]) -> dict[str, float]:
    import numpy as np

    from bench import stats

    row = {}
    for name, q in QUANTILES.items():
        needed = stats.min_samples_for_quantile(q)
        if len(latency_ns) < needed:
            notes.append(f"{name} needs {needed} samples, had {len(latency_ns)}")
        else:
            row[f"latency_ns_{name}"] = float(np.quantile(latency_ns, q))
    interval = stats.quantile_interval(latency_ns, 0.5)
    if interval is not None:
        row["latency_ns_p50_low"], row["latency_ns_p50_high"] = interval
    return row


# --- predictions --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Predicted:
    """One Case's predictions: place of the image among all images of the run, ``(n,)``; label, ``(n,)``; top-5."""

    image: NDArray[np.integer[Any]]
    label: NDArray[np.int16]
    top: NDArray[np.int16]


@dataclass(frozen=True)
class _Reference:
    """The reference Case's top-5 by image, ``(all images, 5)``, and which images it has."""

    case_id: str
    top: NDArray[np.int16]
    present: NDArray[np.bool_]


def _predictions(folder: RunFolder) -> dict[str, _Predicted]:
    frame = folder.predictions()
    images, cases = frame["image_id"].cat.codes.to_numpy(), frame["case_id"].cat.codes.to_numpy()
    labels = frame["label"].to_numpy()
    top = frame[[f"top{place}" for place in range(1, TOP + 1)]].to_numpy()
    found = {}
    for code, case_id in enumerate(frame["case_id"].cat.categories):
        rows = cases == code
        found[str(case_id)] = _Predicted(images[rows], labels[rows], top[rows])
    return found


def _reference(results: Sequence[CaseResult], predictions: Mapping[str, _Predicted]) -> _Reference | None:
    import numpy as np

    candidates = [
        result.case
        for result in results
        if result.case.scenario == "accuracy"
        and result.status is Status.OK
        and result.case.case_id in predictions
    ]
    if not candidates:
        return None
    usual = [
        case
        for case in candidates
        if (case.backend, case.device, case.precision) == ("pytorch", "cpu", "fp32")
    ]
    case_id = (usual or candidates)[0].case_id
    own = predictions[case_id]
    n = 1 + max((int(predicted.image.max(initial=-1)) for predicted in predictions.values()), default=-1)
    top, present = np.zeros((n, TOP), dtype=np.int16), np.zeros(n, dtype=bool)
    top[own.image], present[own.image] = own.top, True
    return _Reference(case_id, top, present)


def _accuracy(
    case: Case, predicted: _Predicted | None, reference: _Reference | None, notes: list[str]
) -> dict[str, Any]:
    if predicted is None or reference is None:
        notes.append("its predictions are missing from the run's folder")
        return {}
    row: dict[str, Any] = {"n_images": len(predicted.label), "reference_case_id": reference.case_id}
    if case.weights == "random":
        notes.append(RANDOM_NOTE)
    elif len(predicted.label):
        hits = predicted.top == predicted.label[:, None]
        row["top1_percent"] = 100.0 * float(hits[:, 0].mean())
        row["top5_percent"] = 100.0 * float(hits.any(axis=1).mean())
    common = reference.present[predicted.image]
    if case.case_id != reference.case_id and common.any():
        same = predicted.top[common] == reference.top[predicted.image[common]]
        row["agreement_percent"] = 100.0 * float(same[:, 0].mean())
        row["top5_ordered_agreement_percent"] = 100.0 * float(same.all(axis=1).mean())
    elif case.case_id != reference.case_id:
        notes.append("no image in common with the reference Case")
    return row
