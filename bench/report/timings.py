"""The columns of a timed Case: quantiles, throughput, and its ratio to the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bench.case import Status
from bench.results import CaseResult, RunFolder

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from bench import verdict

# The stages that a throughput Case times besides the whole pass, in the order in which an image meets them.
PARTS = ("decode", "preprocess", "compute")

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def timing_columns(
    folder: RunFolder, results: Sequence[CaseResult], info: Mapping[str, Any]
) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Columns and notes of every timed Case that is ok, by its id. See ``frame.load_frame``."""
    from bench import verdict

    samples = folder.samples()
    parts = {str(case_id): part for case_id, part in samples.groupby("case_id", observed=True, sort=False)}
    compared = verdict.compare(results, samples, folder.rounds(), verdict.materiality(info))
    made = {}
    for result in results:
        case_id = result.case.case_id
        if result.status is Status.OK and result.case.scenario != "accuracy":
            notes: list[str] = []
            row = _timing(result, parts.get(case_id), notes) | _comparison(compared[case_id], notes)
            made[case_id] = row, notes
    return made


def _comparison(compared: verdict.Comparison, notes: list[str]) -> dict[str, Any]:
    if compared.refusal:
        notes.append(compared.refusal)
    return {
        "baseline_case_id": compared.baseline_case_id,
        "ratio": compared.ratio,
        "ratio_low": compared.low,
        "ratio_high": compared.high,
        "verdict": compared.verdict.value if compared.verdict else "",
        "n_rounds": compared.n_rounds,
        "n_disturbed_rounds": compared.n_disturbed_rounds,
    }


def _timing(result: CaseResult, samples: pd.DataFrame | None, notes: list[str]) -> dict[str, Any]:
    from bench import bootstrap, stats

    if samples is None:
        notes.append("its samples are missing from the run's folder")
        return {}
    of_stage = samples[samples["stage"] == result.stage] if result.stage else samples
    timed = of_stage[~of_stage["warmup"]]
    latency_ns, images = timed["latency_ns"].to_numpy(), timed["images"].to_numpy()
    row: dict[str, Any] = {"n_samples": len(timed), "n_warmup": len(of_stage) - len(timed)}
    if not len(timed):
        notes.append("no sample after warm-up")
        return row
    row["n_outliers"] = stats.modified_z_outliers(latency_ns)
    total_ns, n_images = int(latency_ns.sum()), int(images.sum())
    if total_ns:
        row["throughput_images_per_s"] = n_images * 1e9 / total_ns
    if result.case.scenario == "latency":
        return row | _quantiles(latency_ns, notes)
    row["n_images"] = n_images
    if min(latency_ns.min(), images.min()) > 0:
        interval = bootstrap.throughput_interval(images, latency_ns / 1e9)
        if interval is not None:
            row["throughput_images_per_s_low"], row["throughput_images_per_s_high"] = interval
        elif len(timed) < bootstrap.MIN_PASSES:
            notes.append(
                f"the interval of a throughput needs {bootstrap.MIN_PASSES} passes, had {len(timed)}"
            )
    return row | _parts(samples, row.get("throughput_images_per_s"))


def _parts(samples: pd.DataFrame, reached: float | None) -> dict[str, Any]:
    """What the parts of a pass reach alone, and how the pass compares with their sum."""
    timed = samples[~samples["warmup"]]
    ns_per_image = {}
    for stage in PARTS:
        part = timed[timed["stage"] == stage]
        if len(part):
            ns_per_image[stage] = float((part["latency_ns"] / part["images"]).median())
    # A fake clock stands still while images are decoded: a part that takes no time has no rate.
    row: dict[str, Any] = {f"{stage}_images_per_s": 1e9 / ns for stage, ns in ns_per_image.items() if ns > 0}
    total_ns = sum(ns_per_image.values())
    if len(ns_per_image) == len(PARTS) and total_ns > 0:
        row["sum_of_parts_images_per_s"] = 1e9 / total_ns
        row["bound_by"] = max(ns_per_image, key=lambda stage: ns_per_image[stage])
        if reached is not None:
            row["sum_of_parts_percent"] = 100.0 * reached * total_ns / 1e9
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
