"""Measures the models of a table, one after the other, each in a run of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from bench.record.case import Status
from bench.record.files import file_name
from bench.report.terminal import printer
from bench.run import session
from bench.run.images import choose_images
from bench.run.spec import RunSpec
from bench.studies.model_table.rows import FieldRow, failed_row, row_of_run, run_folders
from scarlet import zoo
from scarlet.errors import BenchError

DEFAULT = ("scarlet_a", "scarlet_b", "scarlet_c")
NOT_REACHED = "the command was stopped before this model"


def requested_models(texts: Sequence[str]) -> dict[str, tuple[str, str | None]]:
    """The models that a user names: ``scarlet_a``, ``scarlet_a=ScarletA.pth.tar``, ``timm/<name>``, ``onnx:<file>``.

    Returns:
        By canonical name the text that it is run by, and its weights, as of ``RunSpec``.

    Raises:
        BenchError: a name is not known, a model is named twice, or there is none.
    """
    requested: dict[str, tuple[str, str | None]] = {}
    for text in texts:
        # A path to a graph may hold a sign of equality; such a file brings its own weights.
        model, equals, checkpoint = (text, "", "") if text.lower().startswith("onnx:") else text.partition("=")
        if equals and not checkpoint:
            raise BenchError(f"'{text}' names no weights", f"Write {model}=FILE, or {model} alone.")
        name = zoo.resolve(model).name
        if name in requested:
            raise BenchError(f"model '{name}' is named twice", "Name each model once.")
        requested[name] = model, checkpoint or None
    if not requested:
        raise BenchError("no model was named", "Write for example scarlet_a scarlet_b scarlet_c.")
    return requested


def read_or_measure(
    models: Sequence[str], runs: Sequence[Path], spec: RunSpec, out: Path, console: Console
) -> tuple[list[FieldRow], bool]:
    """The rows of runs that were measured before; without any, of the models, which are measured into ``out``.

    Raises:
        BenchError: both were named, or one is at fault.
    """
    if not runs:
        return measure(requested_models(models or DEFAULT), spec, out, console)
    if models:
        raise BenchError("models and --runs were both given", "Name models to measure, or runs to read.")
    return [row_of_run(path) for path in run_folders(runs)], False


def measure(
    models: Mapping[str, tuple[str, str | None]], spec: RunSpec, out: Path, console: Console
) -> tuple[list[FieldRow], bool]:
    """A run of each model, in a folder of its own in ``out``: the rows, and whether the user stopped. A model that
    fails is a row; the others go on.

    Raises:
        BenchError: an option or the data are at fault, which would spoil every run.
    """
    choose_images(spec.data, spec.n_images, console, spec.labelling)
    rows: list[FieldRow] = []
    interrupted, say = False, printer(console)
    for number, (name, (model, checkpoint)) in enumerate(models.items(), start=1):
        if interrupted:
            rows.append(failed_row(name, Status.INTERRUPTED, NOT_REACHED))
            continue
        say(f"model {number} of {len(models)}: {name}")
        path = out / f"{number:02d}-{file_name(name)[-40:]}"
        try:
            ended = session.run(spec.but(model=model, checkpoint=checkpoint), path, console)
            interrupted = ended.interrupted
            rows.append(row_of_run(ended.run))
        except BenchError as mistake:
            say(f"{name}: {mistake.what}")
            rows.append(failed_row(name, Status.FAILED, mistake.what))
        except KeyboardInterrupt:  # while the model was prepared
            interrupted = True
            rows.append(failed_row(name, Status.INTERRUPTED, "the user stopped it"))
    return rows, interrupted
