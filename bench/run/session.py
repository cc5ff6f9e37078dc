"""One run: from a RunSpec to images, a folder, the model's files, Cases and rows.

``Session`` is how every command begins that measures something: it resolves paths, chooses images, makes the run's
folder and prepares the model. ``run`` and ``resume`` go on from there to the rows of a run.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import host
from bench.analysis.accuracy import reading
from bench.analysis.accuracy.predictions import ScoredRun
from bench.backends import facts, package_versions
from bench.backends.base import ModelFiles, Unavailable
from bench.host.disturbance import RoundState, summary
from bench.record.case import Case, Status
from bench.record.files import disk_errors
from bench.record.lock import Lock
from bench.record.machine import machine_facts
from bench.record.run_folder import RunFolder, new_run_path, set_latest, utc_now
from bench.report.document import Document
from bench.run import estimate, model_input, pixel_gate
from bench.run.cluster import Spread
from bench.run.images import DEMO_IMAGES, choose_images, working
from bench.run.model_files import PreparationFailed, Requirements, changed, prepare_files, prepare_request, requirements
from bench.run.progress import make_listener
from bench.run.runner import Limits, Runner, give_up
from bench.run.schedule import by_scenario, load_seconds
from bench.run.spec import RunSpec, path_from_root
from bench.worker.messages import Context
from pipelines.imagenet.find import Image, ImageSet, find_images
from scarlet.errors import BenchError, MachineError

RESULTS = Path("results")


@dataclass(frozen=True)
class Session(AbstractContextManager["Session"]):
    """What a command that measures begins with; to be used in a ``with``.

    A scratch folder goes at the end, and so does that of a run that ends by a mistake before it has a row. Either
    stays where its log alone tells what broke.

    Attributes:
        spec: with every path from the root.
        source: the model as workers are to be given it: the path of a graph from the root.
        folder: of the run; it knows the spec, the machine and the images.
        images: those that are scored.
        is_scratch: the folder is a temporary one.
        lock: keeps other runs out of the folder.
        is_new: the folder was made for it.
        model_input: of ``bench.run.model_input.settle``.
        cluster: a Dask client, on whose workers Cases run; on this machine where None.
    """

    spec: RunSpec
    source: str
    folder: RunFolder
    image_set: ImageSet
    images: tuple[Image, ...]
    console: Console
    is_scratch: bool = False
    lock: Lock | None = None
    is_new: bool = False
    model_input: Mapping[str, Any] = field(default_factory=dict)
    cluster: Any = None

    @classmethod
    def open(cls, spec: RunSpec, out: Path | None, console: Console, kind: str = "", half: str = "") -> Session:
        """Chooses the images and makes the folder of a new run.

        Args:
            spec: what to measure; paths are relative to the user's current folder.
            out: the folder; a new one in ``results/runs`` where None.
            kind: of run, for the name of a new folder: ``best``.
            half: of the images: see ``choose_images``.

        Raises:
            BenchError: the data or the folder are at fault.
        """
        source, target = spec.source, path_from_root(str(out or ""))
        spec, fed = model_input.settle(spec.absolute(), source)
        image_set, images = choose_images(spec.data, spec.n_images, console, spec.labelling, half)
        spec = spec.but(data=str(image_set.root.resolve()), pipeline=spec.lists["pipeline"])
        model = re.split(r"[:/\\]", spec.network.name)[-1]
        name = f"{kind}-{model}" if kind else model
        path = Path(target) if target else new_run_path(RESULTS, name)
        folder, lock = _begin(spec, image_set, images, path.resolve(), fed)
        return cls(spec, source, folder, image_set, tuple(images), console, lock=lock, is_new=True, model_input=fed)

    @classmethod
    def scratch(cls, spec: RunSpec, console: Console) -> Session:
        """As ``open``, for a command that leaves no run: its folder takes the logs."""
        source = spec.source
        spec, fed = model_input.settle(spec.absolute(), source)
        image_set, images = choose_images(spec.data, spec.n_images, console, spec.labelling)
        folder = RunFolder.create(Path(tempfile.mkdtemp(prefix="scarlet-bench-")))
        return cls(spec, source, folder, image_set, tuple(images), console, is_scratch=True, model_input=fed)

    @classmethod
    def resume(cls, path: Path, console: Console) -> Session:
        """Goes on with a run, with the spec and the images that it began with.

        Raises:
            BenchError: the folder holds no run, it is at work, or its data have changed since.
        """
        folder = RunFolder.open(path.resolve())
        lock = Lock(folder.path)
        try:
            folder.forget_left_overs()
            folder.add_run_info()  # nothing: it tells now whether run.json is as it was, and can be written
            info, images = folder.read_run_info(), folder.read_images()
            settings, dataset = info.get("settings"), info.get("dataset") or {}
            if not settings or not dataset.get("root"):
                what = f"{folder.path} does not say what was to be measured: it was stopped before it began"
                raise BenchError(what, "Start a new run.")
            spec = RunSpec.from_dict(settings)
            image_set = find_images(Path(dataset["root"]), spec.labelling)
            if image_set.fingerprint != dataset.get("fingerprint"):
                raise BenchError(
                    f"the images under {image_set.root} have changed since this run began", "Start a new run."
                )
        except BaseException:
            lock.release()
            raise
        scored = tuple(Image(name, image_set.root / name, label) for name, label in images)
        # The user may be in another folder now, from which a path of the spec leads nowhere.
        named = (info.get("model_files") or {}).get("model")
        source = named if named and spec.network.path else spec.source
        fed = info.get("model_input") or {}
        return cls(spec, source, folder, image_set, scored, console, lock=lock, model_input=fed)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        mistake = isinstance(error, BenchError) and not isinstance(error, MachineError)
        useless = self.is_scratch or (self.is_new and mistake and not self.folder.has_results())
        if useless and not isinstance(error, PreparationFailed):
            shutil.rmtree(self.folder.path, ignore_errors=True)
        if self.lock is not None:
            self.lock.release()

    @property
    def root(self) -> Path:
        """The folder that image ids are relative to."""
        return self.image_set.root.resolve()

    @property
    def request(self) -> dict[str, Any]:
        """What a worker needs to prepare the model: see ``prepare_request``."""
        return prepare_request(self.source, self.spec.checkpoint, str(self.root), self.images, self.spec.preprocess)

    def prepare(self, required: Requirements | None = None) -> ModelFiles:
        """Has workers build the model's files, and the graphs of lower precision that Cases need.

        Args:
            required: what is needed besides the FP32 files; what the spec's Cases need where None.

        Raises:
            BenchError: the model, its checkpoint or the calibration images are at fault.
            PreparationFailed: building took too long, crashed or met a bug.
            Unavailable: a package that the model needs is missing.
        """
        required = required or requirements(self.spec.cases(), str(self.root), self.images, self.spec, self.console)
        with working(self.console, "preparing the model: weights, ONNX graph, check of its logits"):
            return prepare_files(
                self.request,
                log=self.folder.log_path("prepare"),
                threads=host.allowed_cores(),
                timeout_seconds=self.spec.timeout_seconds,
                required=required,
            )

    def require(self, required: Requirements | None = None) -> ModelFiles:
        """As ``prepare``, for a command that is of no use without the model: a missing package is a mistake."""
        try:
            return self.prepare(required)
        except Unavailable as missing:
            raise BenchError(
                f"{self.spec.network.name} cannot be prepared here: {missing}",
                "Install what is missing, or name another --model.",
            ) from None

    @property
    def limits(self) -> Limits:
        """How long things may take, and the seed of their order."""
        spec = self.spec
        return Limits(spec.timeout_seconds, spec.budget_seconds, spec.seed, spec.lives, spec.rotate_cores)

    def context(self, files: ModelFiles, **more: Any) -> Context:
        """What the workers of this run need besides their Cases."""
        among = self.image_set.present if self.spec.restrict_classes else ()
        return Context(run=str(self.folder.path), data=str(self.root), files=files, among=among, **more)

    def write(self, **facts: Any) -> None:
        """Adds facts to the run's description."""
        self.folder.add_run_info(**facts)

    def write_plan(self, files: ModelFiles, cases: Sequence[Case]) -> None:
        """Adds the Cases and the files that they run on."""
        self.write(model_files=files.to_dict(), plan={"cases": [case.to_dict() for case in cases]})


def _begin(
    spec: RunSpec, image_set: ImageSet, images: Sequence[Image], path: Path, fed: Mapping[str, Any]
) -> tuple[RunFolder, Lock]:
    """A new run's folder, which knows the spec, the machine and the images; and the lock that keeps others out."""
    machine = machine_facts(package_versions(), spec.devices, max(spec.lists["threads"]))
    RunFolder.refuse_taken(path)
    with disk_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    lock = Lock(path)
    info = {
        "created_at": utc_now(),
        "command": ["scarlet-bench", *sys.argv[1:]],
        "settings": spec.to_dict(),
        "model_input": fed,
        **machine,
        "git": host.git_revision(Path(__file__).resolve().parent),
        "dataset": {
            "root": str(image_set.root.resolve()),
            "layout": image_set.layout,
            "fingerprint": image_set.fingerprint,
            "n_images": len(images),
            "n_images_in_set": len(image_set.images),
            "n_classes": len(image_set.classes),
            "n_classes_present": len(image_set.present),
            "reading": image_set.reading(),
            "is_demo": image_set.is_demo,
        },
    }
    try:
        return RunFolder.create(path, info, ((image.image_id, image.label) for image in images)), lock
    except BaseException:
        lock.release()
        raise


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        interrupted: the user stopped it; what had finished is kept and reported.
        statuses: of every planned Case.
    """

    run: Path
    interrupted: bool
    statuses: tuple[Status, ...]

    def exit_code(self, strict: bool = False) -> int:
        """130 when interrupted; 1 when a Case failed or crashed, or none is ok, or (``strict``) one is not; else 0."""
        if self.interrupted:
            return 130
        ok = [status is Status.OK for status in self.statuses]
        broken = {Status.FAILED, Status.CRASHED}.intersection(self.statuses)
        return int(bool(broken) or not any(ok) or (strict and not all(ok)))


def run(spec: RunSpec, out: Path | None, console: Console, cluster: Any = None) -> Ended:
    """A new run; BenchError where the user's options, data, checkpoint or output folder are at fault.

    Args:
        cluster: as of ``Session``.
    """
    with Session.open(spec, out, console) as session:
        session.write(on_cluster=bool(cluster))
        return _carry_out(replace(session, cluster=cluster), is_latest=out is None)


def resume(path: Path, console: Console, retry: bool = False, cluster: Any = None) -> Ended:
    """Goes on with an interrupted run, with the spec it began with.

    Args:
        retry: measure those Cases again too that failed, crashed, took too long or had not what they need.

    Raises:
        BenchError: the folder holds no run, it is at work, or its data or weights have changed since; or it began
            on a cluster and is to go on without, or the other way round.
    """
    with Session.resume(path, console) as session:
        began = session.folder.read_run_info().get("on_cluster", False)
        if began != bool(cluster):
            where, do = ("on a cluster", "Add --cluster.") if began else ("on one machine", "Leave --cluster out.")
            raise BenchError(f"this run began {where}: its rows would be of different machines", do)
        session.folder.reopen(retry)
        return _carry_out(replace(session, cluster=cluster))


def _carry_out(session: Session, is_latest: bool = False) -> Ended:
    folder, spec, console = session.folder, session.spec, session.console
    files: ModelFiles | None = None
    missing, real = "", reading.read_real(spec.real) if spec.real else {}
    try:
        files = session.prepare()
    except Unavailable as reason:
        missing = str(reason)
    before = folder.read_run_info().get("model_files")
    if before and files and changed(before, files):
        raise BenchError("the model's weights or graph have changed since this run began", "Start a new run.")
    weights, fixed_batch = (files.weights, files.fixed_batch) if files else (spec.weights, None)
    cases = spec.cases(weights, fixed_batch)
    for note in (*spec.notes(), *(files.notes if files else ())):
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    plan = spec.plan(cases, weights, fixed_batch)
    session.write(model_files=files.to_dict() if files else {}, plan=plan)
    if is_latest:  # now, so that it can go on as the newest run whatever ends it
        set_latest(RESULTS, folder.path)
    pixels: dict[str, Any] = {}
    if files:
        images = session.images
        request = pixel_gate.sample(images, str(session.root), files.preprocess, spec.seed)
        pixels = pixel_gate.gate(folder, cases, request, console)
        scores = any(case.scenario == "accuracy" for case in cases)
        digests = pixel_gate.reference_digests(folder, images, request, console) if scores else {}
        if scores and session.model_input.get("source") == "" and files.weights == "user":
            request = replace(request, files=files, threads=host.allowed_cores())
            tried = pixel_gate.conventions(folder, images, request, console)
            session = replace(session, model_input={**session.model_input, "tried": tried})
            session.write(model_input=session.model_input)
        session.write(preprocessing=pixels, **({"reference": digests} if digests else {}))
    return _rows(session, cases, files, pixels, missing, real)


def _rows(
    session: Session,
    cases: Sequence[Case],
    files: ModelFiles | None,
    pixels: dict[str, Any],
    missing: str,
    real: Mapping[int, frozenset[int]],
) -> Ended:
    """Runs the Cases; where the model is missing, says so in every row."""
    folder, interrupted, disturbed, resolves = session.folder, False, list[RoundState](), dict[str, Any]()
    with make_listener(session.console, len(cases)) as listener:
        if files:
            context = session.context(files, load_seconds=load_seconds(session.limits.budget_seconds, cases))
            runner = Runner(folder, context, listener, session.limits, watch=not session.cluster)
            order = by_scenario(cases)
            if session.cluster:
                order = Spread(session.cluster, context, session.spec, session.image_set.fingerprint)
            try:
                runner.execute(cases, order, pixel_gate.objections(cases, pixels))
            except KeyboardInterrupt:
                interrupted = True
            disturbed, resolves = runner.rounds, runner.resolves
        else:
            give_up(folder, cases, missing, listener)
    folder.merge_parts()
    results = {result.case.case_id: result.status for result in folder.case_results()}
    statuses = tuple(results.get(case.case_id, Status.INTERRUPTED) for case in cases)
    ended = Ended(folder.path, interrupted, statuses)
    info, scored = folder.read_run_info(), ScoredRun.open(folder.path)
    noticed = [*reading.warnings_of(scored), *model_input.warnings_of(session.model_input, cases)]
    for one in noticed:
        session.console.print(f"{one['text']}. {one['advice']}", markup=False, highlight=False, soft_wrap=True)
    before = (one for one in info.get("warnings", ()) if "case_ids" not in one)
    session.write(
        warnings=[*before, *summary(disturbed), *noticed],
        **({"real": reading.score_real(scored, real)} if real else {}),
        resolves={**info.get("resolves", {}), **resolves},
        finished_at=None if interrupted else utc_now(),
        exit_code=ended.exit_code(),
    )
    return ended


def foretell(spec: RunSpec, console: Console) -> Document:
    """What a run would do and about how long it would take; measures nothing.

    Raises:
        BenchError: the options or the data are at fault.
    """
    n_images = spec.n_images or DEMO_IMAGES
    if spec.data is not None:
        n_images = len(choose_images(spec.data, spec.n_images, console, spec.labelling)[1])
    spec, _ = model_input.settle(spec, spec.source)
    remarks = (*_nothing_runs(spec), *spec.notes())
    return estimate.document(spec.cases(), n_images, spec.budget_seconds, spec.lives, remarks)


def _nothing_runs(spec: RunSpec) -> list[str]:
    """A warning where no Case can run, by what is installed and which devices are there."""
    away: dict[str, None] = {}
    for case in spec.cases():
        if not importlib.util.find_spec(facts(case.backend).module):
            away[f"{case.backend} is not installed"] = None
        elif case.device == "cuda" and not any(Path("/dev").glob("nvidia[0-9]*")):
            away["there is no NVIDIA GPU"] = None
        else:
            return []
    return [f"no row can run here: {', '.join(away)}; scarlet-bench doctor tells more"]
