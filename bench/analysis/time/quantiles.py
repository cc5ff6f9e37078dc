"""The columns of a timed Case: quantiles, throughput, its ratio to the baseline, its share of the machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.analysis.stats import intervals, lives
from bench.analysis.time import verdict
from bench.record.case import IN_MEMORY, MEASURED, MLPERF_IMAGES, MLPERF_SECONDS, Case
from bench.record.run_folder import CaseResult, RunFolder

# The stages that a latency Case on a GPU times besides the one that it is compared on; and LoadGen's server Cases.
BESIDES, IN_SERVER = ("h2d", "d2h", "enqueue", "end_to_end"), ("queue", "service")

# The stages that a throughput Case times besides the whole pass, in the order in which an image meets them.
PARTS = ("decode", "preprocess", "compute")

QUANTILES = {"p90": 0.9, "p99": 0.99}


def timing_columns(
    folder: RunFolder, results: Sequence[CaseResult], info: Mapping[str, Any]
) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Columns and notes of every timed Case that is ok or fell back, by its id. See ``frame.load_frame``."""
    samples = folder.samples()
    parts = {str(case_id): part for case_id, part in samples.groupby("case_id", observed=True, sort=False)}
    compared = verdict.compare(results, samples, folder.rounds(), verdict.materiality(info))
    made = {}
    for result in results:
        case_id = result.case.case_id
        if result.status in MEASURED and result.case.scenario != "accuracy":
            notes: list[str] = []
            row = _timing(result, parts.get(case_id), notes, info)
            if case_id in compared:
                row |= _comparison(compared[case_id], notes)
            made[case_id] = row, notes
    return made


def _comparison(compared: verdict.Comparison, notes: list[str]) -> dict[str, Any]:
    if compared.refusal:
        notes.append(compared.refusal)
    row: dict[str, Any] = {"n_lives": compared.n_lives}
    if compared.spread is not None:
        row["spread_percent"] = 100.0 * compared.spread
        said = f"the ratio differs by {row['spread_percent']:.2g} % between {compared.n_lives} lives"
        if compared.start_effect is not None:
            row["start_effect_percent"] = 100.0 * compared.start_effect
            said += f", and by {row['start_effect_percent']:+.2g} % for what is started first"
        notes.append(said)
    return row | {
        "baseline_case_id": compared.baseline_case_id,
        "ratio": compared.ratio,
        "ratio_low": compared.low,
        "ratio_high": compared.high,
        "verdict": compared.verdict.value if compared.verdict else "",
        "n_rounds": compared.n_rounds,
        "n_disturbed_rounds": compared.n_disturbed_rounds,
    }


def _timing(
    result: CaseResult, samples: pd.DataFrame | None, notes: list[str], info: Mapping[str, Any]
) -> dict[str, Any]:
    if samples is None:
        notes.append("its samples are missing from the run's folder")
        return {}
    of_stage = samples[samples["stage"] == result.stage] if result.stage else samples
    timed = of_stage[~of_stage["warmup"]]
    row: dict[str, Any] = {"n_samples": len(timed), "n_warmup": len(of_stage) - len(timed)}
    if not len(timed):
        notes.append("no sample after warm-up")
        return row
    row["n_outliers"] = intervals.modified_z_outliers(timed["latency_ns"])
    total_ns, n_images = int(timed["latency_ns"].sum()), int(timed["images"].sum())
    if total_ns:
        row["throughput_images_per_s"] = n_images * 1e9 / total_ns
    empty: dict[str, str] = {}
    if load := result.metrics.get("load"):
        row |= _load(load, notes)
    if result.case.scenario in IN_MEMORY and result.case.scenario != "offline":
        row |= _quantiles(timed, result, empty) | _besides(result, samples)
    else:
        row |= {"n_images": n_images, **_throughput(timed, result, empty)}
        row |= _parts(result, samples, row.get("throughput_images_per_s"), info)
    return row | ({"left_empty": json.dumps(empty)} if empty else {})


def _load(load: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """What LoadGen said of a Case's tests, and where they are shorter than MLPerf's rules ask."""
    tests, seconds = load["tests"], float(load["seconds"])
    valid = sum(test["valid"] for test in tests)
    said = f"LoadGen finds {valid} of {len(tests)} tests valid, of {seconds:.3g} s at least, on {load['images']} images"
    if seconds < MLPERF_SECONDS or load["images"] < MLPERF_IMAGES:
        said += f" (MLPerf's rules ask for {MLPERF_SECONDS:.0f} s and {MLPERF_IMAGES:,} images: no figure to submit)"
    notes.append(said)
    row: dict[str, Any] = {"loadgen": "VALID"}
    if load.get("rate"):
        row |= {"throughput_images_per_s": load["rate"], "latency_limit_ns": load["limit_ns"]}
        upper = f"{load['rate_invalid']:.4g} are not" if load.get("rate_invalid") else "no higher rate was tried"
        notes.append(f"{load['rate']:.4g} queries/s are valid, {upper}")
    return row


def _throughput(timed: pd.DataFrame, result: CaseResult, empty: dict[str, str]) -> dict[str, Any]:
    """Images per second over lives, or of blocks of passes within one, with the interval."""
    name, passes = "throughput_images_per_s", timed.sort_values("round")
    if passes[["latency_ns", "images"]].min().min() <= 0:
        return {}
    by_life = passes.groupby(verdict.lives_of(result, passes["round"]))[["images", "latency_ns"]].sum()
    if len(by_life) > 1:
        rates = np.log(1e9 * by_life["images"] / by_life["latency_ns"])
        over = lives.over_lives(rates, least_error=lives.clock_error(passes["latency_ns"]))
        return {name: over.ratio, f"{name}_low": over.low, f"{name}_high": over.high}
    interval = lives.throughput_interval(passes["images"], passes["latency_ns"])
    if interval is None:
        empty[f"{name}_low"] = f"needs {lives.MIN_PASSES} passes, had {len(passes)}"
        return {}
    return {f"{name}_low": 1e9 * interval.low, f"{name}_high": 1e9 * interval.high}


def _besides(result: CaseResult, samples: pd.DataFrame) -> dict[str, float]:
    """Medians of the stages that were timed beside the row's own."""
    timed = samples[~samples["warmup"]]
    found = {}
    for stage in (*BESIDES, *IN_SERVER):
        part = timed.loc[timed["stage"] == stage, "latency_ns"]
        if len(part) and stage != result.stage:
            found[f"{stage}_ns_p50"] = float(part.median())
    return found


def _parts(result: CaseResult, samples: pd.DataFrame, reached: float | None, info: Mapping[str, Any]) -> dict[str, Any]:
    """What the parts of a pass reach alone, and how the pass compares with what they allow together."""
    timed = samples[~samples["warmup"]]
    ns_per_image = {}
    for stage in PARTS:
        part = timed[timed["stage"] == stage]
        if len(part):
            ns_per_image[stage] = float((part["latency_ns"] / part["images"]).median())
    # A fake clock stands still while images are decoded: a part that takes no time has no rate.
    row: dict[str, Any] = {f"{stage}_images_per_s": 1e9 / ns for stage, ns in ns_per_image.items() if ns > 0}
    # Where a GPU decodes, preprocessing is a part of it.
    if not {"decode", "compute"} <= ns_per_image.keys() or not any(ns_per_image.values()):
        return row
    limit_ns, bound_by = limit_of_parts(ns_per_image, threads_of_parts(result), _cores(result, info))
    row["sum_of_parts_images_per_s"], row["bound_by"] = 1e9 / limit_ns, bound_by
    if reached is not None:
        row["sum_of_parts_percent"] = 100.0 * reached * limit_ns / 1e9
    return row


def threads_of_parts(result: CaseResult) -> dict[str, int]:
    """Processor threads that each part of the Case keeps busy; none for what a GPU does.

    A GPU that decodes is helped by the CPU. How much of it that takes is not known here: the sides count as hardware of
    their own, and the limit is then the slower of them, which no pass can beat.
    """
    case = result.case
    readers = int(result.metrics.get("decode_threads") or case.threads)
    readers = 0 if result.metrics.get("decodes_on_gpu") else readers
    return {
        "decode": readers,
        "preprocess": readers,
        "compute": case.threads * case.instances if case.device == "cpu" else 0,
    }


def _cores(result: CaseResult, info: Mapping[str, Any]) -> int:
    """Logical cores that the Case could use; where nobody wrote it down, as many as its busiest part has threads."""
    known = result.metrics.get("cores") or (info.get("host") or {}).get("logical_cores_allowed")
    return int(known or max(1, *threads_of_parts(result).values()))


def limit_of_parts(ns_per_image: Mapping[str, float], threads: Mapping[str, int], cores: int) -> tuple[float, str]:
    """The least time that a pass can take whose parts run side by side, and the part that sets it.

    Parts that need the same cores take turns on them: together they cannot be faster than all their processor time
    spread over all cores. With as many threads as cores on either side that is 1 / (1/decode + 1/preprocess +
    1/compute) images a second. And no pass is faster than its slower side: reading (decode, then preprocess, on
    the same threads) or compute. Where the two sides have cores, or devices, of their own, that alone counts: the limit
    is then the smaller of the two rates.

    Args:
        ns_per_image: of each of ``PARTS``, timed alone with its threads; without ``preprocess`` where ``decode`` has
            it.

    Returns:
        nanoseconds an image; and of the parts that set them the one that takes most.
    """
    busy = {stage: ns * min(threads[stage], cores) / cores for stage, ns in ns_per_image.items()}
    reading = {stage: ns for stage, ns in ns_per_image.items() if stage != "compute"}
    sides = (busy, reading, {"compute": ns_per_image["compute"]})
    slowest = max(sides, key=lambda side: sum(side.values()))
    return sum(slowest.values()), max(slowest, key=lambda stage: slowest[stage])


def _quantiles(timed: pd.DataFrame, result: CaseResult, empty: dict[str, str]) -> dict[str, Any]:
    """The median with its interval, and the far quantiles that there are enough samples for."""
    latency_ns, numbers = timed["latency_ns"].to_numpy(), timed["round"].to_numpy()
    # A fake clock stands still.
    still = latency_ns.min() <= 0
    samples = len(latency_ns) if still else intervals.effective_samples(latency_ns, numbers)
    row: dict[str, Any] = {}
    for name, q in QUANTILES.items():
        needed = intervals.min_samples_for_quantile(q)
        if samples < needed:
            empty[f"latency_ns_{name}"] = (
                f"needs {needed} effective samples, had {math.floor(samples)} of {len(latency_ns)}"
            )
        else:
            row[f"latency_ns_{name}"] = float(np.quantile(latency_ns, q))
    medians = timed.groupby("round")["latency_ns"].median()
    of_life = verdict.lives_of(result, medians.index)
    ends = ("latency_ns_p50", "latency_ns_p50_low", "latency_ns_p50_high")
    return row | dict(zip(ends, median_over_lives(medians.to_numpy(), of_life), strict=True))


def median_over_lives(medians: NDArray[np.float64], of_life: Sequence[int]) -> tuple[float, float | None, float | None]:
    """The median time of a call, with its 95 % interval; the ends are None with one life of too few rounds.

    Over lives it is the geometric mean of their medians of round medians, with Student's interval; within one life the
    median of round medians, with the sign test's.

    Args:
        medians: of each round, in any unit.
        of_life: the number of the life of each round.
    """
    index = np.asarray(of_life)
    by_life = [float(np.median(medians[index == life])) for life in np.unique(index)]
    if len(by_life) > 1 and min(by_life) > 0:
        over = lives.over_lives(np.log(by_life), least_error=lives.clock_error(medians))
        return over.ratio, over.low, over.high
    interval = intervals.sign_test_interval(medians) or (None, None)
    return float(np.median(medians)), *interval


def efficiency_columns(case: Case, columns: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, float]:
    """How much of the machine a timed Case uses while the network alone computes, where that can be known.

    Args:
        columns: of the Case, as far as they are known.
        info: the content of ``run.json``: ``model_files`` and ``peaks`` are used.

    Returns:
        ``gflop_per_s``, 10**9 operations a second (a multiply-add counts as two), and ``peak_percent``, its share of
        what was measured on as many threads of the CPU, over all instances, in that precision.
    """
    multiply_adds = (info.get("model_files") or {}).get("multiply_adds")
    median_ns, images_per_s = columns.get("latency_ns_p50"), columns.get("compute_images_per_s")
    if case.scenario == "server":  # its times are not of single images
        return {}
    if case.scenario != "throughput":
        images_per_s = case.batch * case.instances * 1e9 / median_ns if median_ns else None
    if not multiply_adds or not images_per_s:
        return {}
    found = {"gflop_per_s": 2.0 * multiply_adds * images_per_s / 1e9}
    for peak in (info.get("peaks") or ()) if case.device == "cpu" else ():
        reached = peak["gflop_per_s"].get(case.precision)
        if peak["threads"] == case.threads * case.instances and reached:
            found["peak_percent"] = 100.0 * found["gflop_per_s"] / float(reached)
    return found
