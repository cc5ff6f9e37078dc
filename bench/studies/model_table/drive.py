"""Measures the models of a table, one after the other, each in a run of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Requested:
    """A model of the table: its canonical name, the text that it is run by, and its weights as of ``RunSpec``."""

    name: str
    model: str
    checkpoint: str | None = None


@dataclass(frozen=True)
class Measured:
    """What became of the models: a row each, in the order in which they were named, and whether the user stopped."""

    rows: tuple[FieldRow, ...]
    interrupted: bool = False


def requested_models(texts: Sequence[str]) -> tuple[Requested, ...]:
    """The models that a user names: ``scarlet_a``, ``scarlet_a=ScarletA.pth.tar``, ``timm/<name>``, ``onnx:<file>``.

    Raises:
        BenchError: a name is not known, a model is named twice, or there is none.
    """
    requested: list[Requested] = []
    for text in texts:
        # A path to a graph may hold a sign of equality; such a file brings its own weights.
        model, equals, checkpoint = (text, "", "") if text.lower().startswith("onnx:") else text.partition("=")
        if equals and not checkpoint:
            raise BenchError(f"'{text}' names no weights", f"Write {model}=FILE, or {model} alone.")
        one = Requested(zoo.resolve(model).name, model, checkpoint or None)
        if one.name in [other.name for other in requested]:
            raise BenchError(f"model '{one.name}' is named twice", "Name each model once.")
        requested.append(one)
    if not requested:
        raise BenchError("no model was named", "Write for example scarlet_a scarlet_b scarlet_c.")
    return tuple(requested)


def read_or_measure(
    models: Sequence[str], runs: Sequence[Path], spec: RunSpec, out: Path, console: Console
) -> Measured:
    """The rows of runs that were measured before; without any, of the models, which are measured into ``out``.

    Raises:
        BenchError: both were named, or one is at fault.
    """
    if not runs:
        return measure(requested_models(models or DEFAULT), spec, out, console)
    if models:
        raise BenchError("models and --runs were both given", "Name models to measure, or runs to read.")
    return Measured(tuple(row_of_run(path) for path in run_folders(runs)))


def measure(models: Sequence[Requested], spec: RunSpec, out: Path, console: Console) -> Measured:
    """A run of each model, in a folder of its own in ``out``. A model that fails is a row; the others go on.

    Args:
        spec: of every run; model and checkpoint are taken from ``models``.

    Raises:
        BenchError: an option or the data are at fault, which would spoil every run.
    """
    choose_images(spec.data, spec.n_images, console)
    rows: list[FieldRow] = []
    interrupted, say = False, printer(console)
    for number, one in enumerate(models, start=1):
        if interrupted:
            rows.append(failed_row(one.name, Status.INTERRUPTED, NOT_REACHED))
            continue
        say(f"model {number} of {len(models)}: {one.name}")
        path = out / f"{number:02d}-{file_name(one.name)[-40:]}"
        try:
            ended = session.run(spec.but(model=one.model, checkpoint=one.checkpoint), path, console)
            interrupted = ended.interrupted
            rows.append(row_of_run(ended.run))
        except BenchError as mistake:
            say(f"{one.name}: {mistake.what}")
            rows.append(failed_row(one.name, Status.FAILED, mistake.what))
        except KeyboardInterrupt:  # while the model was prepared
            interrupted = True
            rows.append(failed_row(one.name, Status.INTERRUPTED, "the user stopped it"))
    return Measured(tuple(rows), interrupted)
