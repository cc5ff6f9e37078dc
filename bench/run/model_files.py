"""Has workers build a model's files, so that the process that drives a run never imports a framework."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import host
from bench.backends.base import Unavailable
from bench.backends.graphs import Wanted, needed
from bench.record.case import Case, Status
from bench.run.calibration_images import CalibrationImages, choose_calibration
from bench.worker import channel
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
    """

    wanted: tuple[Wanted, ...] = ()
    calibration: CalibrationImages | None = None
    pipeline: str = "reference"
    check: CalibrationImages | None = None


def requirements(
    cases: Iterable[Case], data: str, scored: Sequence[Image], folder: str | None, console: Console
) -> Requirements:
    """Finds out what the Cases need, and chooses the calibration images.

    Args:
        cases: of one model. Where those in INT8 have several pipelines, the first one's makes the pixels, so that
            one graph serves all.
        data: folder of the images that are scored.
        scored: those images.
        folder: the user's folder of calibration images, or None.
        console: for notes.

    Raises:
        BenchError: INT8 is asked for, and all images there are, are scored.
    """
    cases = tuple(cases)
    wanted = needed(cases)
    check = None
    if any(graph.converter for graph in wanted):
        check = CalibrationImages(Path(data), tuple(scored[:CONVERTED_CHECK_IMAGES]), "scored images")
    if not any(graph.precision == "int8" for graph in wanted):
        return Requirements(wanted, check=check)
    chosen = choose_calibration(Path(data), scored, folder, console)
    pipeline = next(case.pipeline for case in cases if case.precision == "int8")
    return Requirements(wanted, chosen, pipeline, check)


def prepare_request(model: str, checkpoint: str | None, data: str, images: Sequence[Image]) -> dict[str, Any]:
    """What a worker needs to prepare the model: ``bench.worker.prepare.Request`` as plain JSON types."""
    return {
        "model": model,
        "checkpoint": checkpoint,
        "data": data,
        "images": [(image.image_id, image.label) for image in images[:CHECK_IMAGES]],
        "threads": host.allowed_cores(),
    }


def prepare_files(
    request: dict[str, Any],
    log: Path,
    threads: int,
    timeout_seconds: float,
    required: Requirements | None = None,
) -> dict[str, Any]:
    """Has a worker build the model's files, then another the graphs of lower precision.

    Args:
        request: of ``prepare_request``.
        log: file that takes what the workers print.
        threads: of the workers.
        timeout_seconds: for the FP32 files, and again for each further graph.
        required: see ``requirements``.

    Returns:
        ``ModelFiles`` as plain JSON types.

    Raises:
        BenchError: the model or its checkpoint is at fault.
        PreparationFailed: building took too long, crashed or met a bug.
        Unavailable: a package that the model needs is missing.
    """
    worker = channel.LocalWorker(log, threads)
    whole_log = f"The whole log is {log}."
    try:
        answer = worker.call({"do": "prepare", "request": request}, timeout_seconds)
    except channel.WorkerTimeout:
        what = f"preparing the model took longer than {timeout_seconds:g} s"
        raise PreparationFailed(what, f"Give a larger --timeout. {whole_log}") from None
    except channel.WorkerDied as death:
        what = f"preparing the model failed: the worker was {death.cause}; its last words: {death.last_words}"
        raise PreparationFailed(what, whole_log) from None
    except KeyboardInterrupt:
        worker.kill()
        raise
    worker.stop()
    if answer["ok"]:
        files: dict[str, Any] = answer["files"]
        if required and required.wanted:
            files["typed"] = prepare_typed_files(files, required, log, threads, timeout_seconds)
        return files
    if answer["status"] == Status.UNAVAILABLE.value:
        raise Unavailable(answer["reason"])
    if "do" in answer:
        raise BenchError(answer["reason"], answer["do"], answer.get("stage", ""))
    raise PreparationFailed(f"preparing the model failed: {answer['reason']}", whole_log)


def prepare_typed_files(
    files: Mapping[str, Any],
    required: Requirements,
    log: Path,
    threads: int,
    timeout_seconds: float,
    make_worker: Callable[[], channel.LocalWorker] | None = None,
) -> dict[str, dict[str, Any]]:
    """Has a worker build the graphs of lower precision; whatever befalls one of them is that graph's result alone.

    Args:
        files: ``ModelFiles`` as plain JSON types.
        required: what to build.
        log: file that takes what the worker prints.
        threads: of the worker.
        timeout_seconds: for each graph.
        make_worker: how to start a worker; a new one takes over where one died.

    Returns:
        ``ModelFiles.typed``; see ``bench.backends.graphs``.
    """
    from bench.worker.lower_precision import PROGRAM

    start = make_worker or (lambda: channel.LocalWorker(log, threads, program=PROGRAM))
    common = {
        "files": dict(files),
        "calibration": required.calibration and required.calibration.to_dict(),
        "check": required.check and required.check.to_dict(),
        "pipeline": required.pipeline,
        "threads": threads,
    }
    typed: dict[str, dict[str, Any]] = {}
    worker: channel.LocalWorker | None = None
    try:
        for wanted in required.wanted:
            worker = worker or start()
            try:
                answer = worker.call({**common, "wanted": asdict(wanted)}, timeout_seconds)
            except channel.WorkerTimeout:
                worker = None
                answer = {
                    "status": Status.FAILED.value,
                    "reason": f"making it took longer than {timeout_seconds:g} s",
                    "do": "Give a larger --timeout.",
                }
            except channel.WorkerDied as death:
                worker = None
                answer = {
                    "status": Status.FAILED.value,
                    "reason": f"the worker was {death.cause}; its last words: {death.last_words}",
                    "do": f"The whole log is {log}.",
                }
            typed[wanted.key] = answer.get("typed") or {
                name: answer[name] for name in ("status", "reason", "do") if name in answer
            }
    except KeyboardInterrupt:
        if worker is not None:
            worker.kill()
        raise
    if worker is not None:
        worker.stop()
    return typed


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether weights or a graph differ between two preparations: a run goes on only with the files it began with."""
    if any(before[digest] != now[digest] for digest in ("weights_sha256", "onnx_sha256")):
        return True
    was, is_ = before.get("typed") or {}, now.get("typed") or {}
    return any(was[key].get("sha256") != is_[key].get("sha256") for key in was.keys() & is_.keys())
