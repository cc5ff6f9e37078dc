"""`quantize --search` from settings to a recipe: images, model, search, latency, confirmation."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace

from rich.console import Console

from bench.analysis.accuracy import predictions
from bench.backends.base import ModelFiles
from bench.record.files import plain, write_text
from bench.report.terminal import printer
from bench.run.images import working
from bench.run.model_files import Requirements
from bench.run.session import Session
from bench.studies.quantize import timing
from bench.studies.quantize.candidates import default_of, settings_to_try
from bench.studies.quantize.images import Sets, choose_sets
from bench.studies.quantize.measured import Evaluator, Measured
from bench.studies.quantize.outcome import Asked, Outcome, Row, decided, finalists_of, to_dict
from bench.studies.quantize.search import Found, Search
from bench.studies.quantize.worker import PROGRAM
from bench.worker import channel
from export.precision.recipe import Recipe, write_recipe
from scarlet.errors import BenchError

# Of the budget, so much is kept for the rounds of latency.
LATENCY_SHARE = 0.25
# So many recipes are confirmed before the search is given up.
CONFIRMED = 3
# A recipe that was begun may take so much longer than the search's time.
GRACE_SECONDS = 30.0
BATCH = 16


def search(asked: Asked, console: Console) -> Outcome:
    """Searches a recipe; BenchError where the options, the images or the model are at fault."""
    say = printer(console)
    asked.spec.only_case()  # several values are told before anything slow begins
    settings_to_try(asked.backend)  # as is a wrong name
    with Session.open(asked.spec, None, console, "quantize") as session:
        sets = choose_sets(session.image_set, session.images, session.spec, asked.images, console)
        say(
            f"{len(sets.search.images)} images to search on ({sets.search.source}), {len(sets.confirm.images)} to "
            f"confirm on, {len(sets.calibration.images)} to calibrate on ({sets.calibration.source}); log: "
            f"{session.folder.path}"
        )
        return _Doctor(asked, session, sets, say).run()


class _Doctor:
    """One search at work; its state outlives a Ctrl-C."""

    def __init__(self, asked: Asked, session: Session, sets: Sets, say: Callable[[str], None]) -> None:
        self._asked, self._session, self._sets, self._say = asked, session, sets, say
        self._folder, self._console = session.folder, session.console
        self._case = session.spec.only_case()
        self._found = Found()
        self._rows: list[Row] = []
        self._confirmed: list[Measured] = []

    def run(self) -> Outcome:
        files = self._prepare()
        pixels = self._folder.path / "pixels"
        pixels.mkdir()
        sets = {"search": self._sets.search, "confirm": self._sets.confirm}
        request = {
            "files": files.to_dict(),
            "backend": self._case.backend,
            "threads": self._case.threads,
            "batch": BATCH,
            "pipeline": self._case.pipeline,
            "calibration": self._sets.calibration.to_dict(),
            "sets": {
                name: {"images": chosen.to_dict(), "pixels": str(pixels / f"{name}.npy")}
                for name, chosen in sets.items()
            },
        }
        log = self._folder.log_path("quantize")
        evaluator = Evaluator(
            request,
            lambda: channel.LocalWorker(log, self._case.threads, program=PROGRAM),
            self._session.spec.timeout_seconds,
            self._say,
        )
        interrupted = False
        try:
            self._look(evaluator)
            self._time(files)
            self._confirm(evaluator)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            evaluator.close()
            for file in pixels.iterdir():
                file.unlink()
            pixels.rmdir()
        return self._outcome(interrupted, evaluator.opened.get("images", {}))

    def _prepare(self) -> ModelFiles:
        """The FP32 files; BenchError where the model is at fault, or its weights have no accuracy to keep."""
        files = self._session.require(Requirements())
        case = replace(self._case, weights=files.weights)
        if reason := predictions.no_accuracy(case, self._session.image_set.is_demo):
            raise BenchError(f"there is no accuracy to keep: {reason}", "Give the model's weights with --checkpoint.")
        return files

    def _look(self, evaluator: Evaluator) -> None:
        with working(self._console, "decoding the images"):
            nodes = evaluator.open()
        seconds = self._session.spec.budget_seconds * (1.0 - LATENCY_SHARE)
        started = time.monotonic()

        def remaining_seconds() -> float:
            return seconds - (time.monotonic() - started)

        def evaluate(label: str, recipe: Recipe) -> Measured | None:
            return evaluator.measure(label, recipe, limit_seconds=max(0.0, remaining_seconds()) + GRACE_SECONDS)

        looking = Search(nodes, evaluate, self._asked.margin_percent, remaining_seconds, seconds, self._say)
        self._found = looking.found
        looking.run(settings_to_try(self._case.backend))

    def _time(self, files: ModelFiles) -> None:
        finalists = finalists_of(self._found, default_of(self._case.backend), self._asked.margin_percent)
        if not finalists:
            return
        recipes = self._folder.path / "recipes"
        recipes.mkdir()
        paths = [recipes / f"{place}.yaml" for place in range(len(finalists))]
        for path, one in zip(paths, finalists, strict=True):
            write_recipe(path, one.recipe, {"settings": one.label})
        base = replace(
            self._case, model=files.model, weights=files.weights, batch=files.fixed_batch or self._case.batch
        )
        self._say(f"timing FP32 and {len(finalists)} recipes in turns")
        budget_seconds = self._session.spec.budget_seconds * LATENCY_SHARE
        speeds = timing.time_recipes(self._session, files, base, self._sets.calibration, paths, budget_seconds)
        margin = self._asked.margin_percent
        self._rows = [Row(one, speed, one.holds(margin)) for one, speed in zip(finalists, speeds, strict=True)]

    def _confirm(self, evaluator: Evaluator) -> None:
        margin = self._asked.margin_percent
        ordered = timing.best_of([(row.measured, row.speed) for row in self._rows], margin)
        for one in ordered[:CONFIRMED]:
            found = evaluator.measure(one.label, one.recipe, "confirm")
            if found is None:
                continue
            self._confirmed.append(found)
            if found.holds(margin):
                return

    def _outcome(self, interrupted: bool, images: dict[str, int]) -> Outcome:
        margin, found = self._asked.margin_percent, self._found
        chosen, within, why = decided(found, self._confirmed, margin, interrupted)
        speed = next(
            (row.speed for row in self._rows if chosen and row.measured.recipe == chosen.recipe),
            timing.Speed(reason="not timed"),
        )
        outcome = Outcome(
            run=self._folder.path,
            asked=self._asked,
            rows=tuple(sorted(self._rows, key=lambda row: row.measured.order, reverse=True)),
            chosen=chosen,
            confirmed=tuple(self._confirmed),
            within=within,
            why=why,
            speed=speed,
            interrupted=interrupted,
            notes=tuple(found.notes),
            alone={name: (one.changed, one.margin_shift) for name, one in found.alone.items()},
            images=images,
        )
        kept = json.dumps(plain(to_dict(outcome, found)), indent=1)
        write_text(self._folder.path / "search.json", kept)
        return outcome
