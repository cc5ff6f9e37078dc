"""One run from settings to results: finds the images, prepares the model, plans the Cases, drives them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import host
from bench.backends import package_versions
from bench.backends.base import ModelFiles, Unavailable
from bench.host.disturbance import Monitor, open_gpu, summary
from bench.record.case import Status
from bench.record.machine import lookup_peaks
from bench.record.run_folder import RunFolder, new_run_path, set_latest, utc_now
from bench.run import pixel_gate
from bench.run.images import DEMO_IMAGES, choose_images, working
from bench.run.model_files import (
    PreparationFailed,
    Requirements,
    changed,
    prepare_files,
    prepare_request,
    requirements,
)
from bench.run.progress import make_listener
from bench.run.reference_digests import of_reference
from bench.run.runner import Runner
from bench.run.spec import RunSpec
from bench.studies import noise
from bench.worker.messages import Context
from pipelines.imagenet.find import Image, ImageSet, find_images
from scarlet.errors import BenchError

RESULTS = Path("results")


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        run: its folder.
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


def run(spec: RunSpec, out: Path | None, console: Console) -> Ended:
    """A new run.

    Raises:
        BenchError: the user's settings, data, checkpoint or output folder are at fault.
    """
    spec = spec.absolute()
    image_set, images = choose_images(spec.data, spec.n_images, console)
    spec = spec.but(data=str(image_set.root.resolve()), pipeline=spec.lists["pipeline"])
    folder = begin(spec, image_set, images, out or new_run_path(RESULTS, spec.network.name))
    try:
        return _carry_out(folder, spec, images, console, link_latest=out is None)
    except PreparationFailed:
        raise  # its log is in the folder
    except BenchError:
        if not folder.case_results():
            shutil.rmtree(folder.path)  # a mistake in the settings leaves no empty run behind
        raise


def begin(spec: RunSpec, image_set: ImageSet, images: Sequence[Image], path: Path) -> RunFolder:
    """A new run's folder, which knows the settings, the machine and the images.

    Raises:
        BenchError: the folder is in use, or cannot be written.
    """
    # Looked at before the run's own work begins, which would show as load.
    described_host = host.describe_host(watch_seconds=host.WATCH_SECONDS)
    fingerprint, packages = host.fingerprint(described_host), package_versions()
    folder = RunFolder.create(path.resolve())
    folder.write_run_info(
        {
            "created_at": utc_now(),
            "command": ["scarlet-bench", *sys.argv[1:]],
            "settings": spec.to_dict(),
            "host": {**described_host, "fingerprint": fingerprint},
            "packages": packages,
            "noise": noise_info(noise.lookup(fingerprint)),
            "peaks": lookup_peaks(fingerprint),
            "git": host.git_revision(Path(__file__).resolve().parent),
            "dataset": {
                "root": str(image_set.root.resolve()),
                "layout": image_set.layout,
                "fingerprint": image_set.fingerprint,
                "n_images": len(images),
                "n_images_in_set": len(image_set.images),
                "is_demo": image_set.is_demo,
            },
            "warnings": host.warnings(described_host, packages, spec.devices, max(spec.lists["threads"])),
        }
    )
    folder.write_images((image.image_id, image.label) for image in images)
    return folder


def resume(path: Path, console: Console) -> Ended:
    """Goes on with an interrupted run, with the settings it began with.

    Raises:
        BenchError: the folder holds no run, or its data or weights have changed since.
    """
    folder = RunFolder.open(path.resolve())
    info = folder.read_run_info()
    spec = RunSpec.from_dict(info["settings"])
    image_set = find_images(Path(info["dataset"]["root"]))
    if image_set.fingerprint != info["dataset"]["fingerprint"]:
        raise BenchError(
            f"the images under {image_set.root} have changed since this run began", "Start a new run."
        )
    images = [Image(name, image_set.root / name, label) for name, label in folder.read_images()]
    return _carry_out(folder, spec, images, console, link_latest=False)


def _carry_out(
    folder: RunFolder,
    spec: RunSpec,
    images: list[Image],
    console: Console,
    link_latest: bool,
) -> Ended:
    info = folder.read_run_info()
    root = str(info["dataset"]["root"])
    files: ModelFiles | None = None
    missing = ""
    required = requirements(spec.cases(), root, images, spec.calibration, console)
    try:
        files = _prepare(spec, root, images, folder, console, required)
    except Unavailable as reason:
        missing = str(reason)
    before = info.get("model_files")
    if before and files and changed(before, files):
        raise BenchError("the model's weights or graph have changed since this run began", "Start a new run.")
    weights, fixed_batch = (files.weights, files.fixed_batch) if files else (spec.weights, None)
    cases = spec.cases(weights, fixed_batch)
    for note in spec.notes():
        console.print(note, markup=False, highlight=False, soft_wrap=True)
    info |= {"model_files": files.to_dict() if files else {}, "plan": spec.plan(cases, weights, fixed_batch)}
    folder.write_run_info(info)
    pixels: dict[str, Any] = {}
    if files:
        pixels = pixel_gate.gate(folder, cases, images, root, files.preprocess, spec.seed, console)
        info |= {"preprocessing": pixels}
        if any(case.scenario == "accuracy" for case in cases):
            info |= {"reference": of_reference(images, files.preprocess)}
        folder.write_run_info(info)
    prepared = files or ModelFiles(spec.network.name, weights, "", "", "")  # nothing is run on that
    context = Context(run=str(folder.path), data=root, files=prepared, stop=spec.stop)
    with (
        make_listener(console, len(cases)) as listener,
        Monitor(lambda: runner.pids(), gpu=open_gpu(spec.devices)) as monitor,
    ):
        runner = Runner(
            folder,
            context,
            listener,
            timeout_seconds=spec.timeout_seconds,
            budget_seconds=spec.budget_seconds,
            seed=spec.seed,
            monitor=monitor,
            objections=pixel_gate.objections(cases, pixels),
        )
        interrupted = False
        try:
            if missing:
                runner.give_up(cases, missing)
            else:
                runner.execute(cases)
        except KeyboardInterrupt:
            interrupted = True
    info["warnings"] = [*info.get("warnings", ()), *summary(runner.rounds)]
    folder.merge_parts()
    results = {result.case.case_id: result.status for result in folder.case_results()}
    statuses = tuple(results.get(case.case_id, Status.INTERRUPTED) for case in cases)
    ended = Ended(folder.path, interrupted, statuses)
    finished_at = None if interrupted else utc_now()
    folder.write_run_info({**info, "finished_at": finished_at, "exit_code": ended.exit_code()})
    if link_latest:
        set_latest(RESULTS, folder.path)
    return ended


def _prepare(
    spec: RunSpec,
    root: str,
    images: Sequence[Image],
    folder: RunFolder,
    console: Console,
    required: Requirements | None = None,
) -> ModelFiles:
    """The model's files, as of ``prepare_files``; its log goes to the run's folder."""
    with working(console, "preparing the model: weights, ONNX graph, check of its logits"):
        return prepare_files(
            prepare_request(spec.source, spec.checkpoint, root, images),
            log=folder.log_path("prepare"),
            threads=host.allowed_cores(),
            timeout_seconds=spec.timeout_seconds,
            required=required,
        )


def noise_info(known: noise.Known) -> dict[str, Any]:
    """What a run keeps of the machine's A/A run: ``resolution``, a share, where one is known, and a ``note``."""
    if known.result is None:
        return {"note": known.note}
    resolution = known.result.resolution.interleaved
    return {"resolution": resolution, "measured_at": known.result.measured_at, "note": known.note}


def foretell(spec: RunSpec, console: Console) -> None:
    """Prints what a run would do and about how long it would take; measures nothing.

    Raises:
        BenchError: the settings or the data are at fault.
    """
    from bench.run import estimate

    n_images = spec.n_images or DEMO_IMAGES
    if spec.data is not None:
        n_images = len(choose_images(spec.data, spec.n_images, console)[1])
    cases = spec.cases()
    fingerprint = host.fingerprint(host.describe_host())
    measured = estimate.measured_before(RESULTS, spec.network.name, fingerprint)
    found = estimate.estimate(cases, n_images, spec.budget_seconds, measured)
    for line in (*spec.notes(), *estimate.text(found).splitlines()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def measure_noise(spec: RunSpec, out: Path | None, console: Console) -> Path:
    """The A/A run: the first Case of the settings against itself, in turns and one after the other.

    What it finds is printed, and stored under this host's fingerprint for later runs to use.

    Raises:
        BenchError: the settings are at fault, or the Case cannot be measured.
    """
    from bench.studies import noise_run

    image_set, images = choose_images(spec.data, spec.n_images, console)
    path = out or new_run_path(RESULTS, f"noise-{spec.network.name}")
    folder = begin(spec, image_set, images, path)
    info = folder.read_run_info()
    files = _prepare(spec, info["dataset"]["root"], images, folder, console)
    base = next(case for case in spec.cases(files.weights) if case.scenario == "latency")
    cases = noise.noise_cases(base)
    folder.write_run_info(
        {**info, "model_files": files.to_dict(), "plan": {"cases": [case.to_dict() for case in cases]}}
    )
    context = Context(run=str(folder.path), data=info["dataset"]["root"], files=files)
    with working(console, f"{base.label} against itself, for about {spec.budget_seconds:g} s"):
        result = noise_run.measure(
            folder,
            context,
            cases,
            info["host"],
            info["host"]["fingerprint"],
            budget_seconds=spec.budget_seconds,
            timeout_seconds=spec.timeout_seconds,
            seed=spec.seed,
        )
    folder.merge_parts()
    stored = noise.save(result)
    console.print(noise.text(result), markup=False, highlight=False, soft_wrap=True)
    console.print(f"stored: {stored}", markup=False, highlight=False, soft_wrap=True)
    return folder.path
