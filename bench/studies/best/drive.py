"""Finds what to deploy: races runtimes and precisions, judges the accuracy of the fastest, and races ways of running
those that keep it (``bench.studies.best.search``)."""

from __future__ import annotations

import importlib
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
from bench.analysis.time.quantiles import timing_columns
from bench.backends import facts
from bench.backends.base import ModelFiles
from bench.backends.graphs import graph_for
from bench.record.case import MEASURED, REFERENCE_BACKEND, Case, Status
from bench.record.files import file_name, write_text
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

FILE, PLAN, DEPLOY = "best.json", "best.yaml", "deploy"
RECIPES = Path("results/recipes")
MEMORY_FULL = "memory had no room for it beside the others"
# Of the wall time of all, what comparing forms in one way of running may take; of these so many, and none that is so
# much slower than the first, go on to be run in all ways: a way that suits a form better brings less than that.
FIRST_SHARE, FORMS_KEPT, FORM_WITHIN = 0.2, 3, 1.25
# Of the wall time, what calls take where latency has a limit: of the finalists, and again where none of them keeps it.
LATENCY_SHARE = 0.25
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

    @property
    def command(self) -> str:
        """What measures the best again."""
        return f"scarlet-bench run --plan {self.run / PLAN}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        best = self.best
        return {
            "run": str(self.run),
            "best": best.to_dict() if best else None,
            "command": self.command if best else None,
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
        spec: of accuracy and throughput; its batches are tried, threads and instances are searched. Where it has a
            limit of latency, single images are tried too.
        loss_percent: that top-1 may lose, of FP32's.
        out: folder of the run; a new one in ``results/runs`` where None.

    Raises:
        BenchError: the options, data, checkpoint or output folder are at fault, or something is missing here.
    """
    if "fp32" not in spec.precisions:
        raise BenchError("nothing to hold the accuracy against: FP32 is not among the precisions", "Add fp32.")
    spec, limit_ms = with_recipes(spec), spec.latency_limit_ms
    # A recipe was confirmed on images that a run scores.
    half = "second" if any(any(given.get("recipe", ())) for given in spec.options.values()) else ""
    with Session.open(spec, out, console, "best", half) as session:
        files = session.require()
        cases, forms = session.spec.cases(files.weights, files.fixed_batch), forms_of(session.spec, files)
        batches = sorted({1, *spec.batches}) if limit_ms else spec.batches
        batches = [files.fixed_batch] if files.fixed_batch else batches
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
            limit = Limit(runner, limit_ms) if limit_ms else None
            halving = Halving(
                runner, lambda case: search.candidates(case, host.allowed_cores(), batches), judging, limit
            )
            runner.execute(first, halving, objections)
        judged = tuple(judging.judged) if judging else ()
        session.folder.merge_parts()
        session.write_plan(files, [row.case for row in session.folder.case_results()])
        found = _found(runner, halving, judged, loss_percent, files)
        if judging and judging.too_few:
            found = replace(found, notes=(judging.too_few, *found.notes))
        if found.best:
            spec = session.spec.but(data=None) if session.image_set.is_demo else session.spec
            write_text(found.run / PLAN, search.plan_text(_beside(found.best.case), spec))
        session.write(finished_at=utc_now(), exit_code=0)
    write_text(found.run / FILE, json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n")
    return found


def forms_of(spec: RunSpec, files: ModelFiles) -> list[Case]:
    """The accuracy Case of every runtime and precision, with each recipe."""
    scored = [case for case in spec.cases(files.weights, files.fixed_batch) if case.scenario == "accuracy"]
    # A recipe is of INT8: what has another precision would be tried twice.
    return [case for case in scored if case.precision == "int8" or not case.option("recipe")]


def with_recipes(spec: RunSpec) -> RunSpec:
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


class Limit:
    """Which ways of running keep the time of a call within a limit.

    Before the race by a short look, which only leaves out what is hopeless; after it by fresh processes in turns, until
    one of those that were fastest keeps it: by the 99th percentile, or, of too few calls for one, by the upper end of
    the median's interval.

    Args:
        limit_ms: of a call from memory, all copies at work at once.

    Attributes:
        known: milliseconds (None where there is no figure) and what they are, by the Case of ``search.latency_case``.
        measured: those of them that have a row.
    """

    def __init__(self, runner: Runner, limit_ms: float) -> None:
        self._runner, self._limit_ms = runner, limit_ms
        self.known: dict[Case, tuple[float | None, str]] = {}
        self.measured: list[Case] = []
        self._over = False

    def keeps(self, case: Case) -> bool:
        """Nothing that is known of a way is above the limit."""
        ms, _ = self.known.get(search.latency_case(case), (0.0, ""))
        return ms is not None and ms <= self._limit_ms

    def look(self, cases: Sequence[Case]) -> None:
        """Has each way make some calls; nothing of them is kept."""
        waiting = list(dict.fromkeys(map(search.latency_case, cases)))
        while waiting:
            n = self._runner.admit(waiting, least=1)
            for case in waiting[:n]:
                progress = self._runner.turn(case, 0, SLICE_NS)
                self.known[case] = (progress.median_ns / 1e6, "median, a short look") if progress else (None, "")
                if case.case_id in self._runner.live:
                    self._runner.live.pop(case.case_id).worker.kill()
            waiting = waiting[n:]

    def settle(self, ranked: Sequence[Case], seconds: float) -> None:
        """Measures ways, the fastest first, until one keeps the limit."""
        ways, self._over = list(dict.fromkeys(map(search.latency_case, ranked))), True
        for group in (ways[: search.FINALISTS], ways[search.FINALISTS :]):
            if not group or any(map(self.keeps, self.measured)):
                return
            schedule.Lives(len(group), seconds)(self._runner, group)
            run, self.measured = self._runner.run, [*self.measured, *group]
            rows = [self._runner.ended[case.case_id] for case in group]
            columns = timing_columns(run, rows, run.read_run_info())
            for row in rows:
                own = columns.get(row.case.case_id, ({}, []))[0]
                p99, p50 = (own.get(f"latency_ns_{name}") for name in ("p99", "p50_high"))
                self.known[row.case] = (ns / 1e6 if (ns := p99 or p50) else None), "p99" if p99 else "median, at most"

    def refusals(self, cases: Sequence[Case]) -> dict[str, str]:
        """Why some of the ways cannot be the best, by their ids."""
        refused, settled = {}, not self._over or any(map(self.keeps, self.measured))
        for case in cases:
            ms, what = self.known.get(search.latency_case(case), (0.0, ""))
            if not what and not settled:
                refused[case.case_id] = "it is not known how long a call takes"
            elif ms is None:
                row = self._runner.ended.get(search.latency_case(case).case_id)
                refused[case.case_id] = f"no latency: {row.reason if row and row.reason else 'too few calls'}"
            elif ms > self._limit_ms:
                refused[case.case_id] = "a call takes longer than the limit"
        return refused

    @property
    def sentence(self) -> str:
        """What to say where nothing keeps the limit."""
        found = [(ms, what, case) for case, (ms, what) in self.known.items() if ms is not None]
        least = min(found, key=lambda each: each[0], default=None)
        said = f"none of the ways that keep the accuracy keeps a call within {self._limit_ms:g} ms"
        return f"{said}; the best takes {least[0]:.3g} ms ({least[1]}): {least[2].label}" if least else said


class Halving:
    """The order of ``bench.studies.best.search``: all forms in one way of running, then the best of those that keep the
    accuracy in all ways.

    Those that memory has room for live at once, and leave by halves.

    Args:
        runner: what runs them.
        ways: of running the form of a Case.
        judging: of accuracy; None where there is one form.
        limit: of latency; None where there is none.

    Attributes:
        times: as returned by ``search``, by Case.
        barred: why forms cannot be the best, by the ids of the Cases that raced for them.
    """

    def __init__(
        self,
        runner: Runner,
        ways: Callable[[Case], Sequence[Case]],
        judging: Judging | None = None,
        limit: Limit | None = None,
    ) -> None:
        self._runner, self._ways, self._judging, self.limit = runner, ways, judging, limit
        self.times: dict[Case, dict[int, float]] = {}
        self.barred: dict[str, str] = {}

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
            more, latency_seconds = list(dict.fromkeys(more)), 0.0
            if self.limit:
                latency_seconds = LATENCY_SHARE * budget
                self.limit.look([*members, *more])
                self.times |= {case: {} for case in more}
                for case in members:
                    if not self.limit.keeps(case):
                        self.leave(case)
                members, more = (list(filter(self.limit.keeps, each)) for each in (members, more))
            members += self._admitted(more)
            members = self._race(members, max(1.0, budget - latency_seconds - (runner.clock() - began)))
        for case in members:
            self.leave(case)
        if self.limit:
            able = [standing.case for standing in self.standings() if not standing.why_not]
            self.limit.settle([case for case in able if search.latency_case(case) in self.limit.known], latency_seconds)

    def standings(self) -> list[Standing]:
        """All that raced or was to, the best first."""
        raced, ended = list(self.times), self._runner.ended.items()
        failed = {case_id: row.reason for case_id, row in ended if row.status not in MEASURED}
        failed |= self.barred | (self.limit.refusals(raced) if self.limit else {})
        return search.standings(raced, {case.case_id: own for case, own in self.times.items()}, failed)

    def _kept(self, ranked: Sequence[Case]) -> list[Case]:
        """Of forms, the fastest first, those that go on; the others leave."""
        kept: list[Case] = []
        # One alone has not raced.
        medians = {case: statistics.median(self.times[case].values() or [0.0]) for case in ranked}
        for case in ranked:
            near = not kept or medians[case] <= FORM_WITHIN * medians[kept[0]]
            goes_on = len(kept) < FORMS_KEPT and near
            if goes_on and self._judging and not self._judging.keeps(case):
                self.barred[case.case_id], goes_on = "not shown to keep the accuracy", False
            if goes_on:
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
        """Has the Case write its samples, and records its row, if there are any."""
        live = self._runner.live.get(case.case_id)
        if live and live.first_round is None:
            self._runner.live.pop(case.case_id).worker.kill()
        elif live:
            live.stop_reason = "budget"
            self._runner.finish(case)

    def say(self, case: Case, fraction: float, detail: str) -> None:
        """See ``search.Field``."""
        self._runner.listener.progress(case, fraction, detail)


def _found(runner: Runner, halving: Halving, judged: Sequence[Judged], loss: float, files: ModelFiles) -> Found:
    """The standings with the figures of the run's table, and the file of the best, to deploy."""
    rows = [runner.ended[case.case_id] for case in halving.times if case.case_id in runner.ended]
    columns, limit = timing_columns(runner.run, rows, runner.run.read_run_info()), halving.limit
    standings = []
    for standing in halving.standings():
        own = columns.get(standing.case.case_id, ({}, []))[0]
        rate, low, high = (own.get(f"throughput_images_per_s{end}") for end in ("", "_low", "_high"))
        ms, what = limit.known.get(search.latency_case(standing.case), (None, "")) if limit else (None, "")
        standings.append(
            replace(standing, images_per_s=rate, low=low, high=high, latency_ms=ms, latency_is=what if ms else "")
        )
    left_out = sum(MEMORY_FULL in standing.why_not for standing in standings)
    notes = [f"memory had no room for {left_out} of {len(standings)} candidates; give fewer --batches"]
    notes = notes if left_out else []
    if judged and files.weights == "random":
        notes.append("random weights: what precisions cost in accuracy cannot be known of them")
    notes.append(search.unsettled(standings))
    proofs = {case_id: row.proof for case_id, row in runner.ended.items() if row.proof}
    found = Found(runner.run.path, tuple(standings), tuple(judged), loss, {}, proofs, tuple(filter(None, notes)))
    if found.best is None:
        return replace(found, notes=(*found.notes, *([limit.sentence] if limit else ())))
    case = found.best.case
    return replace(found, deploy=_deployed(runner.run, case, files, proofs.get(case.case_id, {})))


def _deployed(run: RunFolder, case: Case, files: ModelFiles, proof: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves the file to deploy in the run's folder, in the runtime's own form, with what its session was made by."""
    stated, graph = facts(case.backend), graph_for(case, files.typed)
    is_module = stated.graph == "module" and files.state
    source = Path(str(proof.get("plan") or (graph.path if graph else files.state if is_module else files.onnx)))
    folder = run.path / DEPLOY
    folder.mkdir(exist_ok=True)
    target = folder / (file_name(files.model).removesuffix(".onnx") + source.suffix)
    if source.suffix == ".onnx" and stated.deploys:
        module, _, function = stated.deploys.partition(":")
        target = getattr(importlib.import_module(module), function)(source, target)
    else:
        for path in (source, source.with_suffix(".bin")) if source.suffix == ".xml" else (source,):
            shutil.copyfile(path, target.with_suffix(path.suffix))
    if recipe := case.option("recipe"):
        shutil.copyfile(recipe, run.path / _beside(case).option("recipe"))
    told = proof.get("session") or {name: value for name, value in proof.items() if isinstance(value, str | int | bool)}
    deployed = {"file": str(target), "sha256": file_sha256(target), "case": case.to_dict(), "session": told}
    deployed |= {"runtime": f"{stated.display_name} {proof.get('version', '')}", "sessions": case.instances}
    deployed |= {"input": [case.batch, 3, files.input_size, files.input_size], "preprocess": dict(files.preprocess)}
    write_text(target.with_suffix(".json"), json.dumps({**deployed, "file": target.name}, indent=1) + "\n")
    return deployed


def _beside(case: Case) -> Case:
    """The Case with the recipe that lies in the run's folder, as a plan beside it names it."""
    return case.having("recipe", f"{DEPLOY}/recipe.yaml") if case.option("recipe") else case
