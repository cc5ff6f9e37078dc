"""How much of the machine a timed Case uses: arithmetic in a second, and its share of the measured peak."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.record.case import Case


def efficiency_columns(case: Case, columns: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, float]:
    """``gflop_per_s`` and ``peak_percent``, where they can be known; see ``frame.load_frame``.

    Args:
        info: the content of ``run.json``: ``model_files`` and ``peaks`` are used.
    """
    multiply_adds = (info.get("model_files") or {}).get("multiply_adds")
    images_per_s = _compute_rate(case, columns)
    if not multiply_adds or not images_per_s:
        return {}
    reached = gflop_per_s(multiply_adds, images_per_s)
    threads = case.threads * case.instances
    share = peak_percent(reached, case.precision, threads, info.get("peaks") or ()) if case.device == "cpu" else None
    return {"gflop_per_s": reached, **({} if share is None else {"peak_percent": share})}


def _compute_rate(case: Case, columns: Mapping[str, Any]) -> float | None:
    """Images in a second while the network alone computes."""
    if case.scenario == "throughput":
        return columns.get("compute_images_per_s")
    median_ns = columns.get("latency_ns_p50")
    return case.batch * case.instances * 1e9 / median_ns if median_ns else None


def gflop_per_s(multiply_adds: int, images_per_s: float) -> float:
    """What a network computes, in 10**9 operations a second; a multiply-add counts as two."""
    return 2.0 * multiply_adds * images_per_s / 1e9


def peak_percent(
    reached_gflop_per_s: float, precision: str, threads: int, peaks: Sequence[Mapping[str, Any]]
) -> float | None:
    """The share of the measured peak in that precision on as many threads; None where it was not measured.

    Args:
        threads: that compute at the same time, over all instances.
        peaks: ``Peak.to_dict()`` of each number of threads that was measured.
    """
    for peak in peaks:
        if peak["threads"] == threads and peak["gflop_per_s"].get(precision):
            return 100.0 * reached_gflop_per_s / float(peak["gflop_per_s"][precision])
    return None
