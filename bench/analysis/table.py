"""One tidy table of a run, a Case a row, derived from its raw files and nothing else.

numpy, pandas and scipy are imported where they are needed, so that the formats can be listed cheaply.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.accuracy.scores import score_columns
from bench.analysis.time.efficiency import efficiency_columns
from bench.analysis.time.quantiles import timing_columns
from bench.record.case import Status
from bench.record.files import encodable
from bench.record.run_folder import CaseResult, RunFolder

if TYPE_CHECKING:
    import pandas as pd

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
    "baseline_case_id": "string",
    "ratio": "Float64",
    "ratio_low": "Float64",
    "ratio_high": "Float64",
    "verdict": "string",
    "n_rounds": "Int64",
    "n_disturbed_rounds": "Int64",
    "throughput_images_per_s_low": "Float64",
    "throughput_images_per_s_high": "Float64",
    "decode_images_per_s": "Float64",
    "preprocess_images_per_s": "Float64",
    "compute_images_per_s": "Float64",
    "sum_of_parts_images_per_s": "Float64",
    "sum_of_parts_percent": "Float64",
    "bound_by": "string",
    "gflop_per_s": "Float64",
    "peak_percent": "Float64",
    "model_file_bytes": "Int64",
    "energy_joules_per_image": "Float64",
    "h2d_ns_p50": "Float64",
    "d2h_ns_p50": "Float64",
    "end_to_end_ns_p50": "Float64",
}
TEXT_COLUMNS = tuple(name for name, type_ in COLUMNS.items() if type_ == "string")

DEMO_NOTE = "demo data: not ImageNet accuracy"
NEVER_RAN = "the run ended before this Case did; go on with --resume"


def load_frame(run: Path) -> pd.DataFrame:
    """The table of a run, planned Cases first and in order.

    Figures are derived from the raw samples (warm-up left out) and predictions of Cases that are ``ok`` or
    ``fallback``, which was measured too, though elsewhere than asked: it is compared with no baseline and is never
    one, nor the reference. Every other Case keeps its reason and what was counted. The columns of ``COLUMNS``, in
    that order:

    - ``latency_ns_*`` of latency Cases only: quantiles of single calls, and the 95 % order-statistic interval of
      the median. A quantile with fewer samples than ``stats.min_samples_for_quantile`` is empty and ``note`` says
      so.
    - ``throughput_images_per_s`` of latency and throughput Cases: images over the sum of the samples' times. The
      samples follow one another, so that sum is the time spent. (Latency Cases on a GPU: of the stage
      ``compute``, without the copies.) ``_low`` and ``_high`` of throughput Cases: its
      95 % bootstrap interval over passes, ``bootstrap.throughput_interval``.
    - ``n_images``: images predicted (accuracy), or worked on in timed samples (throughput). ``top1_percent`` and
      ``top5_percent`` are of those; empty for random weights, and for demo weights on other images than the demo
      set's.
    - ``agreement_percent``: share of images with the same top-1 as in the reference Case, over images common to
      both; ``top5_ordered_agreement_percent`` with the same five in the same order. The reference is the first ok
      accuracy Case on pytorch, cpu, fp32, else the first ok one; its own cells are empty.
    - ``n_outliers``: samples with a modified z score over 3.5. They are counted, never removed.
    - ``baseline_case_id``, ``ratio``, ``ratio_low``, ``ratio_high``, ``verdict``, ``n_rounds``,
      ``n_disturbed_rounds`` of timed Cases: time per image over the baseline's, see ``verdict.Comparison``.
    - ``decode_images_per_s``, ``preprocess_images_per_s``, ``compute_images_per_s`` of throughput Cases: what each part
      of a pass reaches alone on the same threads (median over rounds). ``sum_of_parts_images_per_s``: what a pass
      could reach at most: where its parts share the cores, their times one after the other; where they have hardware of
      their own (a GPU that decodes or computes, threads that do not add up to more than the cores), the slower side.
      ``preprocess_images_per_s`` is empty where a GPU decodes: its decoding holds it.
      ``sum_of_parts_percent``: the pass relative to that; ``bound_by``: the part that takes longest.
    - ``gflop_per_s`` of timed Cases: two operations for each multiply-add of the network, in 10**9 a second, from the
      median latency or, in throughput Cases, from the part ``compute``. ``peak_percent``: the share of what matrix
      multiplication in that precision reached on as many threads, where ``scarlet-bench doctor --peak`` measured it.
    - ``model_file_bytes``: of the file that the backend loaded. ``energy_joules_per_image`` of latency Cases, where
      RAPL can be read: everything on the processor's packages, idle power included.
    - ``h2d_ns_p50``, ``d2h_ns_p50``, ``end_to_end_ns_p50`` of latency Cases on a GPU, whose ``latency_ns_*`` are of the
      GPU's work alone (stage ``compute``): medians of the copies to it and back, and of the whole call as its caller
      sees it.
    - ``note``: what else must be known of the row; ``DEMO_NOTE`` on every row of a run with demo data or weights.

    Raises:
        BenchError: the folder holds no run.
    """
    import pandas as pd

    folder = RunFolder.open(run)
    info, results = folder.read_run_info(), _rows(folder)
    is_demo = bool((info.get("dataset") or {}).get("is_demo"))
    marks = [DEMO_NOTE] if is_demo or any(result.case.weights == "demo" for result in results) else []
    derived = score_columns(folder, results, is_demo) | timing_columns(folder, results, info)
    rows = []
    for result in results:
        columns, notes = derived.get(result.case.case_id, ({}, []))
        columns = {**columns, **efficiency_columns(result.case, columns, info)}
        row = {**_identity(result), **columns, "note": "; ".join([*notes, *marks])}
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
        "model_file_bytes": metrics.get("model_file_bytes"),
        "energy_joules_per_image": metrics.get("energy_joules_per_image"),
    }
