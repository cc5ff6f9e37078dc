"""May this pipeline stand in for the reference? Asked of a worker, because a pipeline may crash.

``gate`` asks it of every pipeline of a run before accuracy is measured. A pipeline that may not is not stopped: its
accuracy Cases run, keep their predictions, and end as ``invalid``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.record.case import Case, Status
from bench.record.run_folder import RunFolder
from bench.report.terminal import printer
from bench.run.images import working
from bench.worker import channel
from bench.worker.pixel_parity import Request
from pipelines.imagenet.find import Image, subset
from pipelines.parity.digests import SAMPLE_IMAGES
from scarlet.errors import BenchError

REFERENCE = "reference"

# Together with the probes a few seconds' work. What so few images do not show, the probes are made to show.
GATE_IMAGES = 32
CONVENTION_IMAGES = 48
GATE_TIMEOUT_SECONDS = 120.0

# These are the row's own: it says the same.
OWN_WORDS = (Status.OK.value, Status.UNAVAILABLE.value, Status.UNSUPPORTED.value)


def ask(request: Request, log: Path, timeout_seconds: float = GATE_TIMEOUT_SECONDS) -> dict[str, Any]:
    """Has a worker check a pipeline.

    Returns:
        ``status``: ``ok``, ``invalid`` (outside its tolerance), or how the check ended without an answer;
        ``reason``: why, for every status but ``ok``; and with an answer ``report`` and ``flips`` of
        ``bench.worker.pixel_parity.answer``.

    Raises:
        BenchError: the request names what is not known.
    """
    message = {"do": "parity", "request": asdict(request)}
    try:
        answer = channel.ask_once(message, log, request.threads, timeout_seconds)
    except channel.WorkerFailed as failure:
        if failure.is_mistake:
            raise BenchError(failure.reason, failure.do) from None
        return {"status": failure.status.value, "reason": failure.reason}
    finding = answer["report"]["finding"]
    status = Status.INVALID if finding else Status.OK
    return {"status": status.value, "reason": finding, "report": answer["report"], "flips": answer["flips"]}


def sample(images: Sequence[Image], data: str, preprocess: Mapping[str, Any], seed: int) -> Request:
    """What is asked of each pipeline: some of a run's images, spread evenly over the classes."""
    pairs = [(image.image_id, image.label) for image in subset(images, GATE_IMAGES, seed)]
    return Request("", data, pairs, preprocess)


def reference_digests(folder: RunFolder, images: Sequence[Image], request: Request, console: Console) -> dict[str, Any]:
    """What the reference makes of a few of a run's images (see ``pipelines.parity.digests``); empty where none is told.

    Asked of a worker too: these are files of the user's, and no decoder is to take the run with it.

    Args:
        request: as returned by ``sample``; other images are asked for, the same for every seed.
    """
    pairs = [(image.image_id, image.label) for image in subset(images, SAMPLE_IMAGES)]
    message = {"do": "digests", "request": asdict(replace(request, images=pairs))}
    try:
        answer = channel.ask_once(message, folder.log_path("reference"), 1, GATE_TIMEOUT_SECONDS)
    except channel.WorkerFailed as failure:
        printer(console)(f"a change of the reference will not be told from others: {failure.line}")
        return {}
    digests: dict[str, Any] = answer["digests"]
    return digests


def conventions(folder: RunFolder, images: Sequence[Image], request: Request, console: Console) -> dict[str, Any]:
    """What other common scalings score on a few of a run's images (``try_conventions``); empty where it is not told.

    Args:
        request: as returned by ``sample``, with the model's files; other images are asked for.
    """
    pairs = [(image.image_id, image.label) for image in subset(images, CONVENTION_IMAGES)]
    message = {"do": "conventions", "request": asdict(replace(request, images=pairs))}
    with working(console, "trying other common preprocessing, since none is stated"):
        try:
            return channel.ask_once(message, folder.log_path("conventions"), request.threads, GATE_TIMEOUT_SECONDS)
        except channel.WorkerFailed as failure:
            printer(console)(f"other preprocessing was not tried: {failure.line}")
            return {}


def gate(folder: RunFolder, cases: Sequence[Case], request: Request, console: Console) -> dict[str, Any]:
    """Checks the pipelines by which Cases will read for their accuracy, on a sample of the run's images.

    What an earlier part of the run found stands. The logs go to the run's folder; what is not as it should be is
    said on the console.

    Returns:
        what ``ask`` gave, by pipeline, for ``run.json``.
    """
    found: dict[str, Any] = dict(folder.read_run_info().get("preprocessing") or {})
    for name, threads in _to_check(folder, cases, found).items():
        what = f"comparing the pipeline {name} with the reference, on {len(request.images)} images"
        with working(console, what):
            asked = replace(request, pipeline=name, threads=threads)
            found[name] = ask(asked, folder.log_path(f"parity-{name}"))
        status, reason = found[name]["status"], found[name]["reason"]
        if status == Status.INVALID.value:
            printer(console)(f"{reason}. Accuracy rows of {name} will be invalid.")
        elif status not in OWN_WORDS:
            printer(console)(f"the pipeline {name} could not be compared with the reference: {reason}")
    return found


def _to_check(folder: RunFolder, cases: Iterable[Case], found: Mapping[str, Any]) -> dict[str, int]:
    """The pipelines without a verdict, in order, with their threads: of accuracy Cases still to run."""
    ended = {result.case.case_id for result in folder.case_results() if result.status is not Status.INTERRUPTED}
    settled = (Status.OK.value, Status.INVALID.value)
    return {
        case.pipeline: case.threads
        for case in cases
        if case.scenario == "accuracy"
        and case.pipeline != REFERENCE
        and case.case_id not in ended
        and (found.get(case.pipeline) or {}).get("status") not in settled
    }


def objections(cases: Iterable[Case], checked: Mapping[str, Any]) -> dict[str, str]:
    """Why Cases cannot be valid whatever they give, by their ids: their pipeline makes other pixels.

    Args:
        checked: by pipeline, what ``gate`` gave.
    """
    return {
        case.case_id: found["reason"]
        for case in cases
        if case.scenario == "accuracy"
        and (found := checked.get(case.pipeline) or {}).get("status") == Status.INVALID.value
    }
