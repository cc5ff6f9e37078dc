"""Finds what to deploy: races runtimes and precisions, judges the accuracy of the fastest, and races ways of running
those that keep it (``bench.studies.best.search``)."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from bench import host
from bench.analysis.accuracy.predictions import Predicted, ScoredRun
from bench.analysis.stats.paired import lower, wins_and_losses
from bench.backends import facts
from bench.backends.base import ModelFiles
from bench.backends.graphs import graph_for
from bench.record.case import REFERENCE_BACKEND, Case, Status
from bench.record.files import write_text
from bench.record.run_folder import RunFolder, utc_now
from bench.run import pixel_gate, schedule
from bench.run.progress import make_listener
from bench.run.runner import SLICE_NS, Runner
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.best import search
from bench.studies.best.search import Standing
from scarlet.errors import BenchError
from scarlet.files import file_sha256

FILE, PLAN = "best.json", "best.yaml"
RECIPES = Path("results/recipes")
MEMORY_FULL = "memory had no room for it beside the others"
# Of the wall time of all, what comparing forms in one way of running may take; of these so many, and none that is so
# much slower than the first, go on to be run in all ways: a way that suits a form better brings less than that.
FIRST_SHARE, FORMS_KEPT, FORM_WITHIN = 0.2, 3, 1.25
# The error of calling a form within the bound that is not, over all forms together.
ALPHA = 0.05


@dataclass(frozen=True)
class Judged:
    """What its predictions say of a form: a runtime in a precision, with its recipe, behind a pipeline.

    Attributes:
        case: its accuracy Case.
        top1_percent: None where it was not measured.
        difference_points: top-1 less FP32's, in percentage points; 0 for the reference itself.
        low_points: lower bound of that: all forms' together hold with 95 %.
        within: the bound is within the loss that was allowed.
        why_not: why it has no figures; else empty.
    """

    case: Case
    top1_percent: float | None = None
    difference_points: float = 0.0
    low_points: float = 0.0
    within: bool = False
    why_not: str = ""


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        run: its folder, with ``best.json`` and ``best.yaml``.
        standings: of all that raced, the best first.
        judged: the forms whose accuracy was measured, FP32 first; empty where there was one form and nothing to judge.
        loss_percent: that was allowed, of FP32's top-1.
        deploy: the file to deploy, the digest, and what the session runs with, of the best.
        proofs: of the rows that were measured, by the Case's id.
        notes: what else must be known.
    """

    run: Path
    standings: tuple[Standing, ...]
    judged: tuple[Judged, ...] = ()
    loss_percent: float = 1.0
    deploy: Mapping[str, Any] = field(default_factory=dict)
    proofs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Standing | None:
        """The first, if it could be measured."""
        return self.standings[0] if self.standings and not self.standings[0].why_not else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        best = self.best
        return {
            "run": str(self.run),
            "best": best.to_dict() if best else None,
            "command": search.command(best.case) if best else None,
            "deploy": dict(self.deploy),
            "loss_percent": self.loss_percent,
            "forms": [{**asdict(judged), "case": judged.case.to_dict()} for judged in self.judged],
            "candidates": [
                {**each.to_dict(), "cpu_features": search.cpu_features(self.proofs.get(each.case.case_id, {}))}
                for each in self.standings
            ],
            "notes": list(self.notes),
        }


def form_key(case: Case) -> tuple[Any, ...]:
    """What a prediction depends on: equal for an accuracy Case and all ways of running it."""
    options = tuple(option for option in case.options if option[0] not in search.OF_WAYS)
    return (case.backend, case.device, case.precision, case.pipeline, options)


def run(spec: RunSpec, loss_percent: float, out: Path | None, console: Console) -> Found:
    """Searches for the fastest way from files to top-5 that keeps the accuracy.

    Args:
        spec: of accuracy and throughput; its batches are tried, threads and instances are searched.
        loss_percent: that top-1 may lose, of FP32's.
        out: folder of the run; a new one in ``results/runs`` where None.

    Raises:
        BenchError: the options, data, checkpoint or output folder are at fault, or something is missing here.
    """
    if "fp32" not in spec.precisions:
        raise BenchError("nothing to hold the accuracy against: FP32 is not among the precisions", "Add fp32.")
    spec = _with_recipes(spec)
    with Session.open(spec, out, console, "best") as session:
        files = session.require()
        cases = session.spec.cases(files.weights, files.fixed_batch)
        scored = [case for case in cases if case.scenario == "accuracy"]
        # A recipe is of INT8: what has another precision would be tried twice.
        forms = [case for case in scored if case.precision == "int8" or not case.option("recipe")]
        batches = [files.fixed_batch] if files.fixed_batch else session.spec.batches
        first = [search.candidates(form, host.allowed_cores(), batches)[0] for form in forms]
        session.write_plan(files, first)
        request = pixel_gate.sample(session.images, str(session.root), files.preprocess, spec.seed)
        pixels = pixel_gate.gate(session.folder, cases, request, console)
        objections = pixel_gate.objections([*forms, *first], pixels)
        session.write(preprocessing=pixels)
        context = session.context(files, time_parts=False)
        ways = search.candidates(forms[0], host.allowed_cores(), batches)
        most = len(first) + (len(forms) if len(forms) > 1 else 0) + min(FORMS_KEPT, len(forms)) * (len(ways) - 1)
        with make_listener(console, most) as listener:
            runner = Runner(session.folder, context, listener, session.limits)
            judging = Judging(runner, forms, loss_percent) if len(forms) > 1 else None
            halving = Halving(runner, lambda case: search.candidates(case, host.allowed_cores(), batches), judging)
            runner.execute(first, halving, objections)
        judged = tuple(judging.judged) if judging else ()
        session.folder.merge_parts()
        session.write_plan(files, [*(form.case for form in judged), *halving.times])
        found = _found(runner, halving, judged, loss_percent, files)
        if judging and judging.too_few:
            found = replace(found, notes=(judging.too_few, *found.notes))
        if found.best:
            write_text(found.run / PLAN, search.plan_text(found.best.case, session.spec))
        session.write(finished_at=utc_now(), exit_code=0)
    write_text(found.run / FILE, json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n")
    return found


def _with_recipes(spec: RunSpec) -> RunSpec:
    """The spec with the recipes that earlier searches left for this model, beside the defaults."""
    options = {backend: dict(given) for backend, given in spec.options.items()}
    for backend in spec.lists["backends"]:
        recipe = RECIPES / f"{spec.network.name}-{spec.weights}-{backend}.yaml"
        if "int8" in spec.precisions and recipe.is_file():
            options.setdefault(backend, {}).setdefault("recipe", ("", str(recipe)))
    return spec.but(options=options)


class Judging:
    """Judges forms one by one against FP32: PyTorch's, or the first in FP32 that has predictions.

    Nothing was chosen on the images, and the bounds hold together for all forms, whether they are judged or not
    (Bonferroni): so that choosing the fastest of those within is no choice of the lucky.

    Args:
        runner: what runs the forms' accuracy Cases.
        loss_percent: that top-1 may lose, of FP32's.

    Attributes:
        judged: what is known so far, the reference first.
        too_few: a sentence where there are not enough images to keep any; else empty.
    """

    def __init__(self, runner: Runner, forms: Sequence[Case], loss_percent: float) -> None:
        self._runner, self._loss, self._alpha = runner, loss_percent / 100.0, ALPHA / max(1, len(forms) - 1)
        self._forms = {form_key(form): form for form in forms}
        in_fp32 = [form for form in forms if form.precision == "fp32"]
        self._references = sorted(in_fp32, key=lambda form: form.backend != REFERENCE_BACKEND)
        self._reference: Predicted | None = None
        self.judged: list[Judged] = []
        self.too_few = ""

    def keeps(self, case: Case) -> bool:
        """Whether the form of a Case keeps the accuracy; measures what is not known yet."""
        while self._reference is None and self._references:
            form = self._references.pop(0)
            self._reference = self._measured(form)
            if self._reference:
                hits = self._reference.top[:, 0] == self._reference.label
                self.judged.insert(0, Judged(form, 100.0 * float(hits.mean()), within=True))
        form = self._forms[form_key(case)]
        if form not in [judged.case for judged in self.judged]:
            self.judged.append(self._judge(form))
        return next(judged.within for judged in self.judged if judged.case == form)

    def _measured(self, form: Case) -> Predicted | None:
        schedule.alone(self._runner, form)
        return ScoredRun.open(self._runner.run.path).predicted.get(form.case_id)

    def _judge(self, form: Case) -> Judged:
        base = self._reference
        own = self._measured(form) if base else None
        if base is None or own is None:
            row = self._runner.ended.get(form.case_id)
            why_not = f"{row.status.value}: {row.reason}" if row else "there is no FP32 to hold it against"
            return Judged(form, why_not=why_not)
        _, mine, others = np.intersect1d(own.image, base.image, return_indices=True)
        hits, base_hits = (each.top[at, 0] == each.label[at] for each, at in ((own, mine), (base, others)))
        wins, losses = wins_and_losses(base_hits, hits)
        low, difference = lower(wins, losses, len(hits), self._alpha), (wins - losses) / len(hits)
        allowed = self._loss * float(base_hits.mean())
        if lower(0, 0, len(hits), self._alpha) < -allowed:
            few = f"{len(hits):,} images are too few"
            self.too_few = f"{few} to show that a form keeps the accuracy; give more --images"
        within = low >= -allowed
        return Judged(form, 100.0 * float(hits.mean()), 100.0 * difference, 100.0 * low, within)


class Halving:
    """The order of ``bench.studies.best.search``: all forms in one way of running, then the best of those that keep the
    accuracy in all ways.

    Those that memory has room for live at once, and leave by halves.

    Args:
        runner: what runs them.
        ways: of running the form of a Case.
        judging: of accuracy; None where there is one form.

    Attributes:
        times: as returned by ``search``, by Case.
    """

    def __init__(self, runner: Runner, ways: Callable[[Case], Sequence[Case]], judging: Judging | None = None) -> None:
        self._runner, self._ways, self._judging = runner, ways, judging
        self.times: dict[Case, dict[int, float]] = {}

    def __call__(self, runner: Runner, cases: Sequence[Case]) -> None:
        """See ``bench.run.runner.Order``."""
        began, budget = runner.clock(), runner.limits.budget_seconds
        with runner.watched("throughput") as self.end_of_round:
            members = self._admitted(cases)
            if len(members) > 1:
                members = self._race(members, FIRST_SHARE * budget)
            raced, members = runner.clock(), self._kept(members)
            began += runner.clock() - raced  # judging is not of the race
            more = [way for case in members for way in self._ways(case) if way not in self.times]
            members += self._admitted(list(dict.fromkeys(more)))
            members = self._race(members, max(1.0, budget - (runner.clock() - began)))
        for case in members:
            self.leave(case)

    def _kept(self, ranked: Sequence[Case]) -> list[Case]:
        """Of forms, the fastest first, those that go on; the others leave."""
        kept: list[Case] = []
        medians = {case: statistics.median(self.times[case].values()) for case in ranked}
        for case in ranked:
            near = not kept or medians[case] <= FORM_WITHIN * medians[kept[0]]
            if len(kept) < FORMS_KEPT and near and (self._judging is None or self._judging.keeps(case)):
                kept.append(case)
            else:
                self.leave(case)
        return kept

    def _admitted(self, cases: Sequence[Case]) -> list[Case]:
        self.times |= {case: {} for case in cases}
        for crowded_out in cases[self._runner.admit(cases) :]:
            self._runner.end(crowded_out, Status.UNAVAILABLE, MEMORY_FULL)
        return [case for case in cases if case.case_id in self._runner.live]

    def _race(self, members: list[Case], budget_seconds: float) -> list[Case]:
        """Those that are left, the fastest first."""
        first_round = max((round_ for own in self.times.values() for round_ in own), default=-1) + 1
        seed = self._runner.limits.seed + first_round
        times = search.search(members, self, lambda alive: schedule.rounds(alive, seed), budget_seconds, first_round)
        for case in members:
            self.times[case] |= times[case.case_id]
        return search.ranking([case for case in members if case.case_id in self._runner.live], times)

    def one_pass(self, case: Case, round_: int) -> tuple[float, float] | None:
        """See ``search.Field``."""
        progress = self._runner.turn(case, round_, SLICE_NS)
        return (progress.median_ns, progress.busy_ns / 1e9) if progress else None

    def leave(self, case: Case) -> None:
        """Has the Case write its samples, and records its row."""
        if case.case_id in self._runner.live:
            self._runner.live[case.case_id].stop_reason = "budget"
            self._runner.finish(case)

    def say(self, case: Case, fraction: float, detail: str) -> None:
        """See ``search.Field``."""
        self._runner.listener.progress(case, fraction, detail)


def _found(runner: Runner, halving: Halving, judged: Sequence[Judged], loss: float, files: ModelFiles) -> Found:
    """The standings, and the file of the best, to deploy."""
    raced = list(halving.times)
    measured = (Status.OK, Status.FALLBACK)
    failed = {case_id: row.reason for case_id, row in runner.ended.items() if row.status not in measured}
    times = {case.case_id: own for case, own in halving.times.items()}
    standings = tuple(search.standings(raced, times, failed))
    left_out = sum(MEMORY_FULL in standing.why_not for standing in standings)
    notes = [f"memory had no room for {left_out} of {len(raced)} candidates; give fewer --batches"] if left_out else []
    if judged and files.weights == "random":
        notes.append("random weights: what precisions cost in accuracy cannot be known of them")
    notes.append(search.unsettled(standings))
    proofs = {case_id: row.proof for case_id, row in runner.ended.items() if row.proof}
    found = Found(runner.run.path, standings, tuple(judged), loss, {}, proofs, tuple(filter(None, notes)))
    if found.best is None:
        return found
    case = found.best.case
    return replace(found, deploy=_deployed(runner.run, case, files, proofs.get(case.case_id, {})))


def _deployed(run: RunFolder, case: Case, files: ModelFiles, proof: Mapping[str, Any]) -> dict[str, Any]:
    """Copies the file that the best runs on into the run's folder; with the settings that its runtime told of."""
    graph = graph_for(case, files.typed)
    is_module = facts(case.backend).graph == "module" and files.state
    source = Path(graph.path if graph else files.state if is_module else files.onnx)  # type: ignore[arg-type]
    folder = run.path / "deploy"
    folder.mkdir(exist_ok=True)
    for path in (source, source.with_suffix(".bin")) if source.suffix == ".xml" else (source,):
        shutil.copy2(path, folder / f"{files.model.replace('/', '-')}{path.suffix}")
    target = folder / f"{files.model.replace('/', '-')}{source.suffix}"
    settings = {name: value for name, value in proof.items() if isinstance(value, str | int | bool) and value != ""}
    return {"file": str(target), "sha256": file_sha256(target), "case": case.to_dict(), "session": settings}
