"""`parity`: pipelines against the reference, by their pixels and by a model's predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from bench import host
from bench.backends.base import ModelFiles
from bench.report.tables import Table
from bench.report.text import number, whole
from bench.run import pixel_gate
from bench.run.images import working
from bench.run.model_files import Requirements
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.worker.pixel_parity import Request
from scarlet.errors import BenchError

_HEADER = ("Stage", "Max levels", "Mean levels", "Pixels %", "Flips", "Verdict")


def compare(spec: RunSpec, console: Console) -> dict[str, Any]:
    """Compares pipelines with the reference by their pixels and by a model's predictions.

    Args:
        spec: of it the pipelines, the images, and the model: its preprocessing is used, its predictions are counted.
        console: where to say what is done.

    Returns:
        plain JSON types: ``data``, ``model``, ``weights``, and ``pipelines``: by name what ``ask`` gave.

    Raises:
        BenchError: the data or the checkpoint is at fault, or a pipeline cannot be checked.
    """
    with Session.scratch(spec, console) as session:
        files = session.require(Requirements())
        found = {name: _compared(session, name, files) for name in spec.lists["pipeline"]}
    return {
        "data": str(session.root),
        "is_demo": session.image_set.is_demo,
        "model": spec.network.name,
        "weights": files.weights,
        "pipelines": found,
    }


def _compared(session: Session, name: str, files: ModelFiles) -> dict[str, Any]:
    images = [(image.image_id, image.label) for image in session.images]
    request = Request(name, str(session.root), images, files.preprocess, host.allowed_cores(), files)
    what = f"comparing the pipeline {name} with the reference, on {len(images)} images"
    with working(session.console, what):
        log = session.folder.log_path(f"parity-{name}")
        answer = pixel_gate.ask(request, log, session.spec.timeout_seconds)
    if "report" not in answer:
        what = f"the pipeline {name} could not be compared with the reference: {answer['reason']}"
        raise BenchError(what, "Mend that, or name another --pipeline.")
    return answer


def stage_table(pipeline: str, found: Mapping[str, Any]) -> Table:
    """A pipeline's stages against the reference's: a row a stage, and one for the whole path.

    Args:
        pipeline: its name.
        found: what ``bench.run.pixel_gate.ask`` gave.
    """
    report, flips = found["report"], found["flips"] or {}
    images, probes = report["images"], report["probes"]
    counted = flips.get("by_stage", {})
    parts = zip([*images["stages"], images["whole"]], [*probes["stages"], probes["whole"]], strict=True)
    return Table(
        title=f"{pipeline} against reference, {whole(images['n_images'])} images",
        header=_HEADER,
        rows=tuple(_stage_row(part, probed, counted) for part, probed in parts),
        numeric=(False, True, True, True, True, False),
        notes=tuple(_stage_notes(found, images, probes, flips)),
    )


def _stage_row(
    part: Mapping[str, Any], probed: Mapping[str, Any], flips: Mapping[str, int | None]
) -> tuple[str, ...]:
    verdict = "within" if part["within"] else "outside"
    share = part["share_of_pixels_differing"]
    return (
        part["stage"],
        number(part["max_level_diff"]),
        number(part["mean_level_diff"]),
        "" if share is None else number(100.0 * share),
        whole(flips.get(part["stage"])),
        "outside, on probes" if part["within"] and not probed["within"] else verdict,
    )


def _stage_notes(
    found: Mapping[str, Any], images: Mapping[str, Any], probes: Mapping[str, Any], flips: Mapping[str, Any]
) -> Iterator[str]:
    if found["reason"]:
        yield found["reason"]
    yield "each stage is given what the reference's stage before it made; levels are grey levels, 0 to 255"
    if flips:
        yield (
            f"flips: changed top-1 predictions of {whole(flips['n_images'])} images, with this one stage swapped "
            f"({flips['backend']})"
        )
    yield f"probes: {whole(probes['n_images'])} images made to show what these may not: odd sizes, EXIF orientation"
    for n, words in (
        (images["n_fallbacks"], "left to the reference, and not compared stage by stage"),
        (images["n_bad"], "unreadable"),
    ):
        if n:
            yield f"{whole(n)} of the images: {words}"
