"""The latency of a few recipes and of FP32, in turns, by the same rounds as every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.analysis.time import verdict
from bench.backends.base import ModelFiles
from bench.backends.graphs import wanted_by
from bench.record.case import MEASURED, Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run.model_files import Requirements, prepare_typed_files
from bench.run.runner import Limits, Listener, Runner
from bench.studies.quantize.measured import BOUND, Measured
from bench.worker.messages import CalibrationImages, Context


@dataclass(frozen=True)
class Speed:
    """Time of a recipe's graph over that of FP32 on the same backend.

    Attributes:
        ratio: median over rounds; None where it was not measured.
        low: lower end of its interval; all of a run's intervals hold together.
        high: upper end.
        verdict: ``faster``, ``slower``, ``same`` or ``unresolved``; empty where it was not measured.
        median_ms: of a call.
        fp32_median_ms: of FP32.
        reason: why there is no ratio, or what ran elsewhere than asked.
    """

    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    median_ms: float | None = None
    fp32_median_ms: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Setup:
    """What is the same for all recipes that are timed.

    Attributes:
        folder: of the run, which knows its images.
        files: of the model, without graphs of lower precision.
        base: the FP32 Case.
        calibration: images for the ranges.
        data: the folder that image ids are relative to.
        threads: of the process that makes the graphs.
        budget_seconds: for all rounds.
        timeout_seconds: for each Case, and for making each graph.
        material: the least difference that counts, as a share.
    """

    folder: RunFolder
    files: ModelFiles
    base: Case
    calibration: CalibrationImages
    data: str
    threads: int
    budget_seconds: float
    timeout_seconds: float
    material: float = verdict.LEAST_MATERIALITY


def time_recipes(
    setup: Setup, recipes: Sequence[Path], listener: Listener, watch: bool = True
) -> list[Speed]:
    """Times FP32 and each recipe's graph in turns.

    The graphs are made anew from the files, as `run` and `export` make them, and kept where they look.

    Args:
        setup: what is the same for all.
        recipes: recipe files.
        listener: hears of progress.
        watch: look for what disturbs each round.

    Returns:
        a speed for each recipe, in order.
    """
    cases = [with_recipe(setup.base, path) for path in recipes]
    wanted = tuple(graph for case in cases if (graph := wanted_by(case)))
    required = Requirements(tuple(sorted(set(wanted))), setup.calibration, setup.base.pipeline)
    typed = prepare_typed_files(
        setup.files, required, setup.folder.log_path("prepare"), setup.threads, setup.timeout_seconds
    )
    files, planned = replace(setup.files, typed=typed), [setup.base, *cases]
    info = setup.folder.read_run_info()
    plan = {"cases": [case.to_dict() for case in planned]}
    setup.folder.write_run_info({**info, "model_files": files.to_dict(), "plan": plan})
    context = Context(run=str(setup.folder.path), data=setup.data, files=files)
    limits = Limits(setup.timeout_seconds, setup.budget_seconds)
    Runner(setup.folder, context, listener, limits, watch=watch).execute(planned)
    setup.folder.merge_parts()
    return speeds(setup.folder, setup.base, cases, setup.material)


def with_recipe(base: Case, recipe: Path) -> Case:
    """The INT8 Case of a recipe file that is like the FP32 Case otherwise."""
    return replace(base, precision="int8", options=(*base.options, ("recipe", str(recipe.resolve()))))


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
        equal = [
            one
            for one, speed in timed
            if (speed.low if speed.low is not None else speed.ratio or 0.0) <= reach
        ]
        ordered += sorted(equal, key=closeness, reverse=True)
        timed = [(one, speed) for one, speed in timed if one not in equal]
    others = [one for one, speed in within if speed.ratio is None]
    return ordered + sorted(others, key=closeness, reverse=True)
