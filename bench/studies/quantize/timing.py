"""The latency of a few recipes and of FP32, in turns, by the same rounds as every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import host
from bench.analysis.time import verdict
from bench.backends.base import ModelFiles
from bench.backends.graphs import wanted_by
from bench.record.case import MEASURED, Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run.model_files import Requirements, prepare_typed_files
from bench.run.progress import make_listener
from bench.run.runner import Runner
from bench.run.schedule import by_scenario
from bench.run.session import Session
from bench.studies.quantize.measured import BOUND, Measured
from bench.worker.messages import CalibrationImages


@dataclass(frozen=True)
class Speed:
    """Time of a recipe's graph over that of FP32 on the same backend.

    Attributes:
        ratio: median over rounds; None where it was not measured.
        low, high: ends of its interval; all of a run's intervals hold together.
        verdict: ``faster``, ``slower``, ``same`` or ``unresolved``; empty where it was not measured.
        reason: why there is no ratio, or what ran elsewhere than asked.
    """

    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    median_ms: float | None = None
    fp32_median_ms: float | None = None
    reason: str = ""


def time_recipes(
    session: Session,
    files: ModelFiles,
    base: Case,
    calibration: CalibrationImages,
    recipes: Sequence[Path],
    budget_seconds: float,
) -> list[Speed]:
    """Times FP32 and each recipe's graph in turns.

    The graphs are made anew from the files, as `run` and `export` make them, and kept where they look.

    Args:
        files: of the model, without graphs of lower precision.

    Returns:
        a speed for each recipe, in order.
    """
    folder, limits = session.folder, replace(session.limits, budget_seconds=budget_seconds)
    cases = [
        replace(base, precision="int8", options=(*base.options, ("recipe", str(path.resolve())))) for path in recipes
    ]
    wanted = {graph for case in cases if (graph := wanted_by(case))}
    required = Requirements(tuple(sorted(wanted)), calibration, base.pipeline)
    log, cores = folder.log_path("prepare"), host.allowed_cores()
    files = replace(files, typed=prepare_typed_files(files, required, log, cores, limits.timeout_seconds))
    session.write_plan(files, [base, *cases])
    with make_listener(session.console, len(cases) + 1) as listener:
        Runner(folder, session.context(files), listener, limits).execute([base, *cases], by_scenario([base, *cases]))
    folder.merge_parts()
    return speeds(folder, base, cases, verdict.materiality(folder.read_run_info()))


def speeds(folder: RunFolder, base: Case, cases: Sequence[Case], material: float) -> list[Speed]:
    """Speeds from what a run's folder holds.

    Rows that fell back count: a layer in float is part of what the recipe costs, and the speed says so.
    """
    ended = {result.case.case_id: result for result in folder.case_results()}
    kept = [replace(result, status=Status.OK) for result in ended.values() if result.status in MEASURED]
    samples = folder.samples()
    compared = verdict.compare(kept, samples, folder.rounds(), material)
    times = verdict.round_times(kept, samples)
    return [_speed(ended.get(case.case_id), base, compared, times) for case in cases]


def _speed(
    result: CaseResult | None,
    base: Case,
    compared: Mapping[str, verdict.Comparison],
    times: Mapping[str, Mapping[int, float]],
) -> Speed:
    if result is None:
        return Speed(reason="not timed")
    found = compared.get(result.case.case_id)
    if found is None or found.verdict is None:
        return Speed(reason=result.reason or (found.refusal if found else "") or "not compared")
    return Speed(
        found.ratio,
        found.low,
        found.high,
        found.verdict.value,
        _median_ms(times[result.case.case_id], base.batch),
        _median_ms(times[base.case_id], base.batch),
        result.reason,
    )


def _median_ms(times: Mapping[int, float], batch: int) -> float:
    import numpy as np

    return float(np.median(list(times.values()))) * batch / 1e6


def best_of(candidates: Sequence[tuple[Measured, Speed]], margin_percent: float) -> list[Measured]:
    """Recipes within the margin, the best first.

    The fastest leads. Those whose interval overlaps with the fastest one's count as equally fast: among them the one
    whose bound is within the margin leads, then the closest to FP32. Recipes without a ratio come last.
    """
    within = [(one, speed) for one, speed in candidates if one.holds(margin_percent)]

    def closeness(one: Measured) -> tuple[float, ...]:
        return (float(one.holds(margin_percent) == BOUND), *one.order)

    timed = [(one, speed) for one, speed in within if speed.ratio is not None]
    ordered: list[Measured] = []
    while timed:
        fastest = min((speed for _, speed in timed), key=lambda speed: speed.ratio or 0.0)
        reach = fastest.high if fastest.high is not None else fastest.ratio or 0.0
        equal = [one for one, speed in timed if (speed.low if speed.low is not None else speed.ratio or 0.0) <= reach]
        ordered += sorted(equal, key=closeness, reverse=True)
        timed = [(one, speed) for one, speed in timed if one not in equal]
    others = [one for one, speed in within if speed.ratio is None]
    return ordered + sorted(others, key=closeness, reverse=True)
