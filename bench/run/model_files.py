"""Has workers build a model's files, so that the process that drives a run never imports a framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import host
from bench.backends.base import ModelFiles, Unavailable
from bench.backends.graphs import Wanted, needed
from bench.record.case import Case, Status
from bench.run.images import choose_calibration
from bench.run.spec import RunSpec
from bench.worker import channel
from bench.worker.messages import CalibrationImages
from pipelines.imagenet.find import Image
from scarlet.errors import BenchError

# Enough to calibrate BatchNorm statistics and to compare two graphs' logits; a few seconds of decoding.
CHECK_IMAGES = 128
# To compare a converted graph's logits with those of the graph it was made of.
CONVERTED_CHECK_IMAGES = 32


class PreparationFailed(BenchError):
    """Preparing broke in a way that only its log explains."""


@dataclass(frozen=True)
class Requirements:
    """What a run needs besides the FP32 files.

    Attributes:
        wanted: graphs of lower precision, or in a backend's own format.
        check: images on which those in a format of their own are compared with the FP32 graph; None where there are
            none of them.
        calibration: images for those in INT8; None where there are none of them.
        pipeline: what makes their pixels: that of the Cases.
        own_precision: of a model that is in a lower one already: its graph is the one that such Cases run on.
    """

    wanted: tuple[Wanted, ...] = ()
    calibration: CalibrationImages | None = None
    pipeline: str = "reference"
    check: CalibrationImages | None = None
    own_precision: str = ""


def requirements(
    cases: Iterable[Case], data: str, scored: Sequence[Image], spec: RunSpec, console: Console
) -> Requirements:
    """Finds out what the Cases need, and chooses the calibration images.

    Args:
        cases: of one model. Where those in INT8 have several pipelines, the first one's makes the pixels, so that
            one graph serves all.
        data: folder of the images that are scored.
        spec: tells the user's folder of calibration images, how images are labelled, and whether the model is in a
            lower precision already, so that nothing is to be calibrated.

    Raises:
        BenchError: INT8 is requested, and all images there are, are scored.
    """
    cases = tuple(cases)
    wanted = needed(cases)
    check = None
    if any(graph.converter for graph in wanted):
        check = CalibrationImages(Path(data), tuple(scored[:CONVERTED_CHECK_IMAGES]), "scored images")
    if spec.own_precision or not any(graph.precision == "int8" for graph in wanted):
        return Requirements(wanted, check=check, own_precision=spec.own_precision)
    chosen = choose_calibration(Path(data), scored, spec.calibration, console, how=spec.labelling)
    pipeline = next(case.pipeline for case in cases if case.precision == "int8")
    return Requirements(wanted, chosen, pipeline, check)


def prepare_request(
    model: str, checkpoint: str | None, data: str, images: Sequence[Image], preprocess: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a worker needs to prepare the model: ``bench.worker.prepare.Request`` as plain JSON types."""
    return {
        "model": model,
        "checkpoint": checkpoint,
        "data": data,
        "images": [(image.image_id, image.label) for image in images[:CHECK_IMAGES]],
        "threads": host.allowed_cores(),
        **({"preprocess": preprocess} if preprocess else {}),  # another revision may know of none
    }


def prepare_files(
    request: dict[str, Any], log: Path, threads: int, timeout_seconds: float, required: Requirements | None = None
) -> ModelFiles:
    """Has a worker build the model's files, then another the graphs of lower precision.

    Args:
        request: of ``prepare_request``.
        timeout_seconds: for the FP32 files, and again for each further graph.
        required: see ``requirements``.

    Raises:
        BenchError: the model or its checkpoint is at fault.
        PreparationFailed: building took too long, crashed or met a bug.
        Unavailable: a package that the model needs is missing.
    """
    try:
        answer = channel.ask_once({"do": "prepare", "request": request}, log, threads, timeout_seconds)
    except channel.WorkerFailed as failure:
        raise why_unprepared(failure, log) from None
    files = ModelFiles.from_dict(answer["files"])
    if not required or not required.wanted:
        return files
    as_it_is = [graph for graph in required.wanted if required.own_precision and not graph.converter]
    own = {graph.key: _as_it_is(files, graph, required.own_precision) for graph in as_it_is}
    others = replace(required, wanted=tuple(graph for graph in required.wanted if graph.key not in own))
    made = prepare_typed_files(files, others, log, threads, timeout_seconds) if others.wanted else {}
    return replace(files, typed=own | made)


def _as_it_is(files: ModelFiles, wanted: Wanted, precision: str) -> dict[str, Any]:
    """The user's graph of a lower precision as the one that a Case of such needs."""
    if wanted.precision != precision or wanted.recipe:
        reason = f"the graph computes in {precision} already"
        return {"status": Status.FAILED.value, "reason": reason, "do": "Give the FP32 graph."}
    facts = {"recipe": {"precision": precision, "dialect": wanted.dialect}, "source": "made by the user"}
    return {"path": files.onnx, "sha256": files.onnx_sha256, "facts": facts}


def why_unprepared(failure: channel.WorkerFailed, log: Path, who: str = "") -> Exception:
    """What to raise where a worker did not prepare the model: see ``prepare_files``.

    Args:
        who: whose worker it was, where there are several.
    """
    if failure.status is Status.UNAVAILABLE and not who:
        return Unavailable(failure.reason)
    what = f"{who or 'the worker'} cannot prepare the model: {failure.reason}"
    if failure.is_mistake:
        return BenchError(what if who else failure.reason, failure.do, failure.stage)
    return PreparationFailed(what, f"{failure.do} The whole log is {log}.".strip())


def prepare_typed_files(
    files: ModelFiles,
    required: Requirements,
    log: Path,
    threads: int,
    timeout_seconds: float,
    make_worker: Callable[[], channel.WorkerHandle] | None = None,
) -> dict[str, dict[str, Any]]:
    """Has a worker build the graphs of lower precision; whatever befalls one of them is that graph's result alone.

    Args:
        timeout_seconds: for each graph.
        make_worker: how to start a worker; a new one takes over where one died.

    Returns:
        ``ModelFiles.typed``; see ``bench.backends.graphs``.
    """
    from bench.worker.lower_precision import PROGRAM

    start = make_worker or (lambda: channel.LocalWorker(log, threads, program=PROGRAM))
    common = {
        "files": files.to_dict(),
        "calibration": required.calibration and required.calibration.to_dict(),
        "check": required.check and required.check.to_dict(),
        "pipeline": required.pipeline,
        "threads": threads,
    }
    typed: dict[str, dict[str, Any]] = {}
    with channel.Renewed(start) as worker:
        for wanted in required.wanted:
            try:
                answer = worker.ask({**common, "wanted": asdict(wanted)}, timeout_seconds)
                typed[wanted.key] = answer["typed"]
            except channel.WorkerFailed as failure:
                status = Status.FAILED if failure.gone else failure.status
                do = failure.do or (f"The whole log is {log}." if failure.gone else "")
                typed[wanted.key] = {"status": status.value, "reason": failure.reason, **({"do": do} if do else {})}
    return typed


def changed(before: Mapping[str, Any], files: ModelFiles) -> bool:
    """Whether weights or a graph differ between two preparations: a run goes on only with the files it began with."""
    now = files.to_dict()
    if any(before[digest] != now[digest] for digest in ("weights_sha256", "onnx_sha256")):
        return True
    was, is_ = before.get("typed") or {}, files.typed
    return any(was[key].get("sha256") != is_[key].get("sha256") for key in was.keys() & is_.keys())
