"""`parity`: pipelines against the reference, by their pixels and by a model's predictions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console

from bench import host
from bench.backends.base import ModelFiles
from bench.report.document import Cell, Column, Document, Head, Table, count_cell, number_cell, table_of
from bench.report.text import whole
from bench.run import pixel_gate
from bench.run.images import working
from bench.run.model_files import Requirements
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.worker.pixel_parity import Request
from scarlet.errors import BenchError

Part = Mapping[str, Any]


def compare(spec: RunSpec, console: Console) -> dict[str, Any]:
    """Compares pipelines with the reference by their pixels and by a model's predictions.

    Args:
        spec: of it the pipelines, the images, and the model: its preprocessing is used, its predictions are counted.

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


def document(compared: Mapping[str, Any]) -> Document:
    """A table for each pipeline."""
    tables = [stage_table(name, answer) for name, answer in compared["pipelines"].items()]
    return Document("Pipelines against the reference", tables, compared)


def stage_table(pipeline: str, answer: Mapping[str, Any]) -> Table:
    """A pipeline's stages against the reference's: a row a stage, and one for the whole path."""
    report, flips = answer["report"], answer["flips"] or {}
    images, probes = report["images"], report["probes"]
    counted = flips.get("by_stage", {})
    # Of each part: on the images, and on the probes.
    columns: list[Column[tuple[Part, Part]]] = [
        Column(Head("Stage"), lambda parts: str(parts[0]["stage"])),
        Column(Head("Max levels", True), lambda parts: number_cell(parts[0]["max_level_diff"])),
        Column(Head("Mean levels", True), lambda parts: number_cell(parts[0]["mean_level_diff"])),
        Column(Head("Pixels %", True), lambda parts: _percent(parts[0]["share_of_pixels_differing"])),
        Column(Head("Flips", True), lambda parts: count_cell(counted.get(parts[0]["stage"]))),
        Column(Head("Verdict"), _verdict),
    ]
    rows = zip([*images["stages"], images["whole"]], [*probes["stages"], probes["whole"]], strict=True)
    return table_of(
        f"{pipeline} against reference, {whole(images['n_images'])} images",
        columns,
        list(rows),
        _notes(answer, images, probes, flips),
    )


def _percent(share: float | None) -> Cell:
    return number_cell(None if share is None else 100.0 * share)


def _verdict(parts: tuple[Part, Part]) -> str:
    on_images, on_probes = parts
    if on_images["within"] and not on_probes["within"]:
        return "outside, on probes"
    return "within" if on_images["within"] else "outside"


def _notes(answer: Part, images: Part, probes: Part, flips: Part) -> Iterator[str]:
    if answer["reason"]:
        yield answer["reason"]
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
