"""One run from settings to report: finds the images, prepares the model, plans the Cases, drives them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

import pipelines
from bench import host
from bench.backends import DEFAULT, REGISTRY
from bench.backends.base import Unavailable
from bench.case import DEVICES, PRECISIONS, SCENARIOS, Plan, Status, checked_counts, checked_names
from bench.progress import make_listener
from bench.results import RunFolder, new_run_path, set_latest, utc_now
from bench.runner import PreparationFailed, Runner, prepare_files
from bench.tasks import Context
from models import zoo
from models.errors import BenchError, unknown_name
from pipelines.imagenet import Image, ImageSet, find_images, subset

RESULTS = Path("results")
DEMO_DATA = Path("data") / "demo"
DEMO_IMAGES = 512

# How many images a run scores when nobody says: a user's first answer should come in minutes, not hours.
DEFAULT_IMAGES = 1000

# Enough to calibrate BatchNorm statistics and to compare two graphs' logits; a few seconds of decoding.
CALIBRATION_IMAGES = 128


@dataclass(frozen=True)
class Settings:
    """What `scarlet-bench run` was asked for, as text and numbers; kept in run.json so that --resume repeats it.

    Attributes: as the options of the same names. ``images`` is a count, ``all`` or empty for the default;
    ``threads`` empty means all cores this process may use; ``options`` holds ``backend.name=value`` texts.
    """

    model: str = "scarlet_c"
    checkpoint: str | None = None
    data: str | None = None
    pipeline: str = "dali"
    backends: str = ",".join(DEFAULT)
    devices: str = "cpu"
    precisions: str = "fp32"
    batches: str = "1,8"
    threads: str = ""
    instances: str = "1"
    scenarios: str = "accuracy,latency"
    images: str = ""
    budget_seconds: float = 60.0
    timeout_seconds: float = 1800.0
    seed: int = 0
    options: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class _Checked:
    """The settings with every name and number checked, before anything slow begins."""

    spec: zoo.ModelSpec
    pipeline: str
    backends: tuple[str, ...]
    devices: tuple[str, ...]
    precisions: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    instances: tuple[int, ...]
    scenarios: tuple[str, ...]
    n_images: int | None
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def check(settings: Settings) -> _Checked:
    """Checks what can be checked without touching data or frameworks.

    Raises:
        BenchError: a name is unknown, a number is wrong.
    """
    (pipeline,) = checked_names("pipeline", [settings.pipeline], pipelines.names())
    for kind, seconds in (("budget", settings.budget_seconds), ("timeout", settings.timeout_seconds)):
        if not seconds > 0:
            raise BenchError(
                f"--{kind} {seconds:g} is not a time", f"Give seconds above 0, for example --{kind} 60."
            )
    return _Checked(
        spec=zoo.resolve(settings.model),
        pipeline=pipeline,
        backends=checked_names("backend", settings.backends.split(","), REGISTRY),
        devices=checked_names("device", settings.devices.split(","), DEVICES),
        precisions=checked_names("precision", settings.precisions.split(","), PRECISIONS),
        batches=checked_counts("batches", settings.batches.split(",")),
        threads=checked_counts("threads", (settings.threads or str(host.allowed_cores())).split(",")),
        instances=checked_counts("instances", settings.instances.split(",")),
        scenarios=checked_names("scenario", settings.scenarios.split(","), SCENARIOS),
        n_images=_image_count(settings.images),
        options=_backend_options(settings.options),
    )


def _image_count(text: str) -> int | None:
    """The number of images asked for; 0 for all, None for the default."""
    wanted = text.strip().lower()
    if not wanted:
        return None
    if wanted == "all":
        return 0
    if not wanted.isdecimal() or int(wanted) < 1:
        raise BenchError(
            f"--images '{text}' is neither a number above 0 nor 'all'", "Write --images 500 or all."
        )
    return int(wanted)


def _backend_options(texts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        backend, dot, option = name.partition(".")
        if not (equals and dot and option):
            raise BenchError(
                f"--option '{text}' is not of the form backend.name=value",
                "Write --option pytorch.form=plain.",
            )
        if backend not in REGISTRY:
            raise unknown_name("backend", backend, REGISTRY)
        options.setdefault(backend, {})[option] = value
    return options


def run(settings: Settings, out: Path | None, console: Console) -> Ended:
    """A new run.

    Raises:
        BenchError: the user's settings, data, checkpoint or output folder are at fault.
    """
    checked = check(settings)
    image_set, images = choose_images(settings.data, checked.n_images, console)
    settings = replace(settings, data=str(image_set.root.resolve()), pipeline=checked.pipeline)
    if settings.checkpoint and Path(settings.checkpoint).exists():
        settings = replace(settings, checkpoint=str(Path(settings.checkpoint).resolve()))
    path = (out or new_run_path(RESULTS, checked.spec.name)).resolve()
    # Looked at before the run's own work begins, which would show as load.
    described_host, packages = host.describe_host(), host.package_versions()
    folder = RunFolder.create(path)
    folder.write_run_info(
        {
            "created_at": utc_now(),
            "command": ["scarlet-bench", *sys.argv[1:]],
            "settings": asdict(settings),
            "host": {**described_host, "fingerprint": host.fingerprint(described_host)},
            "packages": packages,
            "git": host.git_revision(Path(__file__).resolve().parent),
            "dataset": {
                "root": str(image_set.root.resolve()),
                "layout": image_set.layout,
                "fingerprint": image_set.fingerprint,
                "n_images": len(images),
                "n_images_in_set": len(image_set.images),
                "is_demo": image_set.is_demo,
            },
            "warnings": host.warnings(described_host, packages, checked.devices, max(checked.threads)),
        }
    )
    folder.write_images((image.image_id, image.label) for image in images)
    try:
        return _carry_out(folder, settings, checked, images, console, link_latest=out is None)
    except PreparationFailed:
        raise  # its log is in the folder
    except BenchError:
        if not folder.case_results():
            shutil.rmtree(folder.path)  # a mistake in the settings leaves no empty run behind
        raise


def resume(path: Path, console: Console) -> Ended:
    """Goes on with an interrupted run, with the settings it began with.

    Raises:
        BenchError: the folder holds no run, or its data or weights have changed since.
    """
    folder = RunFolder.open(path.resolve())
    info = folder.read_run_info()
    stored = dict(info["settings"])
    settings = Settings(**{**stored, "options": tuple(stored.get("options", ()))})
    image_set = find_images(Path(info["dataset"]["root"]))
    if image_set.fingerprint != info["dataset"]["fingerprint"]:
        raise BenchError(
            f"the images under {image_set.root} have changed since this run began", "Start a new run."
        )
    images = [Image(name, image_set.root / name, label) for name, label in folder.read_images()]
    return _carry_out(folder, settings, check(settings), images, console, link_latest=False)


def _carry_out(
    folder: RunFolder,
    settings: Settings,
    checked: _Checked,
    images: list[Image],
    console: Console,
    link_latest: bool,
) -> Ended:
    info = folder.read_run_info()
    root = str(info["dataset"]["root"])
    files: dict[str, Any] = {}
    missing = ""
    try:
        with working(console, "preparing the model: weights, ONNX graph, check of its logits"):
            files = prepare_files(
                prepare_request(settings.model, settings.checkpoint, root, images),
                log=folder.log_path("prepare"),
                threads=host.allowed_cores(),
                timeout_seconds=settings.timeout_seconds,
            )
    except Unavailable as reason:
        missing = str(reason)
    before = info.get("model_files")
    if (
        before
        and files
        and any(before[digest] != files[digest] for digest in ("weights_sha256", "onnx_sha256"))
    ):
        raise BenchError("the model's weights or graph have changed since this run began", "Start a new run.")
    plan = Plan(
        model=checked.spec.name,
        weights=files.get("weights", (settings.checkpoint and "user") or "random"),
        backends=checked.backends,
        devices=checked.devices,
        precisions=checked.precisions,
        pipeline=checked.pipeline,
        batches=checked.batches,
        threads=checked.threads,
        instances=checked.instances,
        scenarios=checked.scenarios,
        accuracy_batch=files.get("fixed_batch") or Plan.accuracy_batch,
        options=checked.options,
    )
    cases = plan.cases()
    info |= {"model_files": files, "plan": {**asdict(plan), "cases": [case.to_dict() for case in cases]}}
    folder.write_run_info(info)
    context = Context(run=str(folder.path), data=root, files=files)
    with make_listener(console, len(cases)) as listener:
        runner = Runner(
            folder,
            context,
            listener,
            timeout_seconds=settings.timeout_seconds,
            budget_seconds=settings.budget_seconds,
            seed=settings.seed,
        )
        interrupted = False
        try:
            if missing:
                runner.give_up(cases, missing)
            else:
                runner.execute(cases)
        except KeyboardInterrupt:
            interrupted = True
    folder.merge_parts()
    ended = {"finished_at": None if interrupted else utc_now(), "exit_code": 130 if interrupted else 0}
    folder.write_run_info({**info, **ended})
    if link_latest:
        set_latest(RESULTS, folder.path)
    results = {result.case.case_id: result.status for result in folder.case_results()}
    statuses = tuple(results.get(case.case_id, Status.INTERRUPTED) for case in cases)
    return Ended(folder.path, interrupted, statuses)


def working(console: Console, text: str) -> AbstractContextManager[object]:
    """Says that something takes a while: a spinner on a terminal, a line elsewhere."""
    if console.is_terminal:
        return console.status(text)
    console.print(text, highlight=False, soft_wrap=True)
    return nullcontext()


def prepare_request(model: str, checkpoint: str | None, data: str, images: Sequence[Image]) -> dict[str, Any]:
    """What a worker needs to prepare the model: ``bench.prepare.Request`` as plain JSON types."""
    return {
        "model": model,
        "checkpoint": checkpoint,
        "data": data,
        "images": [(image.image_id, image.label) for image in images[:CALIBRATION_IMAGES]],
        "threads": host.allowed_cores(),
    }


def choose_images(data: str | None, n_images: int | None, console: Console) -> tuple[ImageSet, list[Image]]:
    """The set and the images of it to score: the user's, or the demo set, made first where it is missing.

    Args:
        data: the user's folder, or None for the demo set.
        n_images: how many; 0 for all; None for the default.

    Raises:
        BenchError: the folder holds no labelled images.
    """
    if data is None:
        image_set = find_images(make_demo_set(DEMO_DATA, max(n_images or 0, DEMO_IMAGES), console))
        default = DEMO_IMAGES
    else:
        image_set = find_images(Path(os.path.expanduser(data)))
        default = DEFAULT_IMAGES
    wanted = default if n_images is None else n_images or len(image_set.images)
    chosen = list(subset(image_set.images, wanted))
    if len(chosen) < len(image_set.images):
        console.print(
            f"scoring {len(chosen):,} of {len(image_set.images):,} images, evenly over the classes "
            "(--images all for all of them)",
            highlight=False,
            soft_wrap=True,
        )
    return image_set, chosen


def make_demo_set(out: Path, n_images: int, console: Console) -> Path:
    """Makes the demo images, or finds them made; shows progress."""
    from rich.progress import Progress

    from pipelines.demo import make_demo

    if not console.is_terminal:
        console.print(f"making sure of {n_images} demo images in {out}", highlight=False, soft_wrap=True)
        make_demo(out, n_images)
        return out
    with Progress(console=console, transient=True) as bars:
        task = bars.add_task("demo images", total=n_images)
        make_demo(
            out, n_images, on_progress=lambda done, total: bars.update(task, completed=done, total=total)
        )
    return out


def export(
    model: str, checkpoint: str | None, data: str | None, out: Path | None, console: Console
) -> tuple[dict[str, Any], Path]:
    """Exports a model to ``out`` (default: its name with ``.onnx`` in the current folder).

    Returns:
        the model's files as plain JSON types, and where the graph was written.

    Raises:
        BenchError: the model, its checkpoint, the images or ``out`` is at fault.
    """
    spec = zoo.resolve(model)
    if spec.kind == "onnx":
        raise BenchError(
            f"{spec.name} is an ONNX graph already", "Run it: scarlet-bench run --model onnx:<file>."
        )
    target = (out or Path(f"{spec.name.replace('/', '_')}.onnx")).resolve()
    image_set, images = choose_images(data, CALIBRATION_IMAGES, console)
    with tempfile.TemporaryDirectory() as logs, working(console, f"exporting {spec.name}"):
        files = prepare_files(
            prepare_request(model, checkpoint, str(image_set.root.resolve()), images),
            log=Path(logs) / "prepare.log",
            threads=host.allowed_cores(),
            timeout_seconds=1800.0,
        )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files["onnx"], target)
    except OSError as error:
        raise BenchError(f"{target} cannot be written: {error.strerror}", "Give another --out.") from None
    return files, target
