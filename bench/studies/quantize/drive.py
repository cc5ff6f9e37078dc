"""`quantize --search` from settings to a recipe: images, model, search, latency, confirmation."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console

from bench import host
from bench.analysis.accuracy import predictions
from bench.analysis.accuracy.predictions import Predicted
from bench.analysis.time.quantiles import timing_columns
from bench.backends.base import ModelFiles
from bench.backends.graphs import Wanted, wanted_by
from bench.record.case import MEASURED, Case, Status
from bench.record.files import plain, write_text
from bench.record.run_folder import CaseResult, RunFolder
from bench.report.terminal import printer
from bench.run.images import CALIBRATION_IMAGES, choose_calibration, demo_split, without_copies
from bench.run.model_files import Requirements, prepare_typed_files
from bench.run.progress import PlainListener, make_listener
from bench.run.runner import Limits, Runner
from bench.run.schedule import by_scenario
from bench.run.session import Session
from bench.studies.quantize.groups import nodes_of
from bench.studies.quantize.measured import Measured
from bench.studies.quantize.outcome import Asked, Outcome, Row, Speed, best_of, decided, finalists_of
from bench.studies.quantize.search import Found, Search, default_of, settings_to_try
from bench.worker import channel, lower_precision
from bench.worker.messages import CalibrationImages
from export.precision.int8 import name_nodes
from export.precision.recipe import Recipe, write_recipe
from pipelines.imagenet.find import Image, ImageSet, find_images, subset
from scarlet.errors import BenchError

# Of the budget, so much is kept for the rounds of latency.
LATENCY_SHARE = 0.25
# So many recipes are confirmed before the search is given up.
CONFIRMED = 3
# A recipe that was begun may take so much longer than the search's time.
GRACE_SECONDS = 30.0
BATCH = 16
# Of the choice of search images: another than that of the images to score and of those to calibrate on.
SEED = 7
# Fewer search images tell nothing about a per cent.
FEWEST = 50

SEARCH, CONFIRM = "search", "confirm"


def search(asked: Asked, console: Console) -> Outcome:
    """Searches a recipe; BenchError where the options, the images or the model are at fault."""
    asked.spec.only_case()  # several values are told before anything slow begins
    settings_to_try(asked.backend)  # as is a wrong name
    with Session.open(asked.spec, None, console, "quantize", "first") as session:
        calibration = choose_calibration(
            session.root, session.images, session.spec.calibration, console, how=session.spec.labelling
        )
        images = search_images(session.image_set, session.images, calibration, asked.images, console)
        printer(console)(
            f"{len(images.images)} images to search on ({images.source}), {len(session.images)} to confirm on, "
            f"{len(calibration.images)} to calibrate on ({calibration.source}); log: {session.folder.path}"
        )
        files = session.require(Requirements())
        case = replace(session.spec.only_case(), model=files.model, weights=files.weights)
        if reason := predictions.no_accuracy(case, session.image_set.is_demo):
            raise BenchError(f"there is no accuracy to keep: {reason}", "Give the model's weights with --checkpoint.")
        return _Doctor(asked, session, files, case, calibration, images).run()


def search_images(
    image_set: ImageSet, scored: Sequence[Image], calibration: CalibrationImages, n: int, console: Console
) -> CalibrationImages:
    """Images that are neither scored, which is to confirm on, nor calibrated on; even over the classes.

    Of a demo set they come from its split for calibration, from behind those to calibrate on.

    Raises:
        BenchError: too few are left.
    """
    root = image_set.root.resolve()
    if image_set.is_demo:
        root, source = demo_split(CALIBRATION_IMAGES + n, console).resolve(), "the demo set's calibration split"
        used = {image.image_id for image in find_images(demo_split(CALIBRATION_IMAGES, console)).images}
    else:
        source = "images of the set that are neither scored nor calibrated on"
        used = {image.image_id for image in scored}
        used |= {image.image_id for image in calibration.images if calibration.root == root}
    images = find_images(root).images if image_set.is_demo else image_set.images
    candidates = [image for image in images if image.image_id not in used]
    chosen = subset(candidates, n, SEED) if candidates else ()
    left = without_copies(chosen, (*scored, *calibration.images))
    if len(left) < min(FEWEST, n):
        raise BenchError(
            f"{len(left)} images are left to search on, beside {len(scored)} to confirm on and "
            f"{len(calibration.images)} to calibrate on",
            "Give more images, or fewer --confirm; half of a set is left for `best` to judge recipes on.",
        )
    return CalibrationImages(root, left, source)


class _Doctor:
    """One search at work; its state outlives a Ctrl-C.

    A recipe's predictions are those of an accuracy Case: on the search images in a run's folder inside the session's,
    on those to confirm on in the session's own.
    """

    def __init__(
        self,
        asked: Asked,
        session: Session,
        files: ModelFiles,
        case: Case,
        calibration: CalibrationImages,
        images: CalibrationImages,
    ) -> None:
        self._asked, self._session, self._files = asked, session, files
        self._case = replace(case, batch=files.fixed_batch or case.batch)
        self._say = printer(session.console)
        listed = ((image.image_id, image.label) for image in images.images)
        inner = RunFolder.create(session.folder.path / SEARCH, {"dataset": {"root": str(images.root)}}, listed)
        self._folders = {SEARCH: inner, CONFIRM: session.folder}
        self._roots = {SEARCH: images.root, CONFIRM: session.root}
        self._calibration, self._recipes = calibration, session.folder.path / "recipes"
        self._recipes.mkdir()
        log, threads = session.folder.log_path("prepare"), host.allowed_cores()
        self._maker = channel.Renewed(lambda: channel.LocalWorker(log, threads, program=lower_precision.PROGRAM))
        self._began = time.time()
        self._found, self._rows, self._confirmed = Found(), list[Row](), list[Measured]()

    def run(self) -> Outcome:
        interrupted, margin = False, self._asked.margin_percent
        try:
            self._look()
            self._maker.kill()
            self._time()
            for one in best_of(self._rows, margin)[:CONFIRMED]:
                if confirmed := self._measure(one.label, one.recipe, CONFIRM):
                    self._confirmed.append(confirmed)
                    if confirmed.holds(margin):
                        break
        except KeyboardInterrupt:
            interrupted = True
        finally:
            self._maker.kill()
        session, found = self._session, self._found
        session.write_plan(self._files, [row.case for row in session.folder.case_results()])
        rows = tuple(sorted(self._rows, key=lambda row: row.measured.order, reverse=True))
        chosen, within, why = decided(found, self._confirmed, margin, interrupted)
        path = session.folder.path
        outcome = Outcome(path, self._asked, rows, chosen, tuple(self._confirmed), within, why, interrupted, found)
        kept = {**outcome.to_dict(), "tried": [one.to_dict() for one in found.tried]}
        write_text(path / "search.json", json.dumps(plain(kept), indent=1))
        return outcome

    def _look(self) -> None:
        import onnx

        model = onnx.load(self._files.onnx, load_external_data=False)
        name_nodes(model)
        seconds = self._session.spec.budget_seconds * (1.0 - LATENCY_SHARE)
        started = time.monotonic()

        def remaining_seconds() -> float:
            return seconds - (time.monotonic() - started)

        def evaluate(label: str, recipe: Recipe) -> Measured | None:
            return self._measure(label, recipe, SEARCH, max(0.0, remaining_seconds()) + GRACE_SECONDS)

        looking = Search(nodes_of(model), evaluate, self._asked.margin_percent, remaining_seconds, seconds, self._say)
        self._found = looking.found
        looking.run(settings_to_try(self._case.backend))

    def _typed(self, recipe: Recipe) -> tuple[Case, Wanted]:
        """The latency Case of a recipe, and the graph that it needs; writes the recipe's file."""
        path = self._recipes / f"{hashlib.sha256(recipe.key.encode()).hexdigest()[:12]}.yaml"
        write_recipe(path, recipe)
        case = replace(self._case, precision="int8", options=(*self._case.options, ("recipe", str(path.resolve()))))
        wanted = wanted_by(case)
        assert wanted is not None, "its backend takes INT8 graphs"
        return case, wanted

    def _measure(self, label: str, recipe: Recipe, where: str, limit_seconds: float | None = None) -> Measured | None:
        """Figures of a recipe on a set of images; None where no such graph can be made or run: it says why.

        Args:
            limit_seconds: how long either may take, where that is less than the time-out.

        Raises:
            BenchError: FP32 has no predictions.
        """
        limit = min(self._session.spec.timeout_seconds, limit_seconds or float("inf"))
        row, fp32 = self._predict(self._case, self._files, where, self._session.spec.timeout_seconds)
        if fp32 is None:
            raise BenchError(f"the search could not begin: {row.reason}", "See its log.")
        case, wanted = self._typed(recipe)
        request = {"files": self._files.to_dict(), "wanted": asdict(wanted), "threads": host.allowed_cores()}
        request |= {"calibration": self._calibration.to_dict(), "pipeline": case.pipeline}
        try:
            typed = self._maker.ask(request, limit)["typed"]
        except channel.WorkerFailed as failure:
            self._say(f"{label}: no such graph: {failure.reason}")
            return None
        row, own = self._predict(case, replace(self._files, typed={wanted.key: typed}), where, limit)
        if where == SEARCH:
            _forget(Path(typed["path"]), self._began)
        if own is None:
            self._say(f"{label}: no such graph: {row.reason}")
            return None
        return Measured.of(label, recipe, own, fp32, row.proof)

    def _predict(
        self, case: Case, files: ModelFiles, where: str, limit_seconds: float
    ) -> tuple[CaseResult, Predicted | None]:
        """The row of an accuracy Case and its predictions, measured unless they are known; None where it has none."""
        folder = self._folders[where]
        case = replace(case, scenario="accuracy", batch=files.fixed_batch or BATCH)
        known = {row.case.case_id: row for row in folder.case_results()}
        if case.case_id not in known:
            context = replace(self._session.context(files), run=str(folder.path), data=str(self._roots[where]))
            quiet = PlainListener(Console(quiet=True), 1)
            runner = Runner(folder, context, quiet, Limits(limit_seconds), watch=False)
            runner.execute([case], by_scenario([case]))
            known = runner.ended
        row = known[case.case_id]
        found = predictions.load(folder, [row], self._session.image_set.is_demo) if row.status in MEASURED else {}
        return row, found.get(case.case_id)

    def _time(self) -> None:
        """Times FP32 and the finalists in turns, on graphs made anew as `run` and `export` make them."""
        session, margin = self._session, self._asked.margin_percent
        finalists = finalists_of(self._found, default_of(self._case.backend), margin)
        if not finalists:
            return
        self._say(f"timing FP32 and {len(finalists)} recipes in turns")
        typed = [self._typed(one.recipe) for one in finalists]
        cases = [self._case, *(case for case, _ in typed)]
        required = Requirements(tuple(sorted(wanted for _, wanted in typed)), self._calibration, self._case.pipeline)
        limits = replace(session.limits, budget_seconds=session.spec.budget_seconds * LATENCY_SHARE)
        log = session.folder.log_path("prepare")
        graphs = prepare_typed_files(self._files, required, log, host.allowed_cores(), limits.timeout_seconds)
        files = replace(self._files, typed=graphs)
        session.write_plan(files, cases)
        with make_listener(session.console, len(cases)) as listener:
            Runner(session.folder, session.context(files), listener, limits).execute(cases, by_scenario(cases))
        session.folder.merge_parts()
        for one, speed in zip(finalists, speeds(session.folder, cases), strict=True):
            self._rows.append(Row(one, speed))


def _forget(path: Path, began: float) -> None:
    """Takes a graph out of the store that was made since: a search makes dozens."""
    if path.stat().st_mtime >= began:
        for file in path.parent.glob(f"{path.stem}*"):
            if file.suffix != ".lock":
                file.unlink()


def speeds(folder: RunFolder, cases: Sequence[Case]) -> list[Speed]:
    """Speeds of all but the first, to which they are compared, from what a run's folder holds.

    Rows that fell back count: a layer in float is part of what the recipe costs, and the speed says so.
    """
    ended = {result.case.case_id: result for result in folder.case_results()}
    kept = [replace(row, status=Status.OK) for row in ended.values() if row.status in MEASURED]
    columns = timing_columns(folder, kept, folder.read_run_info())

    def median_ms(case: Case) -> float | None:
        found = columns[case.case_id][0].get("latency_ns_p50")
        return found and found / 1e6

    def speed(case: Case) -> Speed:
        if case.case_id not in columns:
            return Speed(reason=ended[case.case_id].reason if case.case_id in ended else "not timed")
        row, notes = columns[case.case_id]
        if not row.get("verdict"):
            return Speed(reason=ended[case.case_id].reason or "; ".join(notes) or "not compared")
        ends = (row["ratio"], row["ratio_low"], row["ratio_high"], row["verdict"])
        return Speed(*ends, median_ms(case), median_ms(cases[0]), ended[case.case_id].reason)

    return [speed(case) for case in cases[1:]]
