"""Two models in turns, with the code of this process: what has a change of weights, graph or network brought about?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.backends.base import ModelFiles
from bench.record.case import Case
from bench.run import pixel_gate
from bench.run.model_input import settle
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.against.drive import Ended, carry_out, check
from bench.studies.against.verdict import REVISION, THIS
from bench.worker.channel import LocalWorker, Message

OLD = "old"


def spec_of(spec: RunSpec, model: str) -> RunSpec:
    """The spec with a model: an ONNX file, a file of weights for the spec's own model, or a model's name."""
    path = Path(model).expanduser()
    if path.suffix == ".onnx" and not model.startswith(("onnx:", "torch:")):
        return spec.but(model=f"onnx:{model}", checkpoint=None)
    return spec.but(checkpoint=model) if path.is_file() else spec.but(model=model)


class ModelWorker(LocalWorker):
    """A worker that is sent one model's files, whatever the run's are."""

    def __init__(self, log: Path, threads: int, files: ModelFiles) -> None:
        super().__init__(log, threads)
        self._files = files.to_dict()

    def call(self, request: Message, timeout_seconds: float) -> Message:
        """As ``LocalWorker.call``."""
        return super().call(with_files(request, self._files), timeout_seconds)


def with_files(request: Message, files: Mapping[str, Any]) -> Message:
    """A request whose context, where it has one, names these files of a model."""
    context = request.get("context")
    return {**request, "context": {**context, "files": dict(files)}} if context else request


def run(models: tuple[str, str], spec: RunSpec, console: Console, tolerance: float | None = None) -> Ended:
    """Measures two models in turns; leaves a run's folder behind, with the copies of each Case that ``REVISION`` tells
    apart.

    Args:
        models: the old one and the new one: see ``spec_of``.
        spec: what to measure of both.
        tolerance: how much slower the new one may be, as a share; the machine's materiality where None.

    Raises:
        BenchError: a model, the options or the data are at fault.
    """
    check(spec, tolerance)
    old, new = (spec_of(spec, model) for model in models)
    with Session.open(new, None, console, "against") as session:
        shared = {"data": session.spec.data, "pipeline": session.spec.pipeline}
        fed, _ = settle(old.absolute(), old.source)
        other = replace(session, spec=fed.but(**shared), source=old.source)
        files = {THIS: session.require(), OLD: other.require()}

        def make_worker(case: Case) -> LocalWorker:
            threads = case.threads * case.instances
            return ModelWorker(session.folder.log_path(case.case_id), threads, files[case.option(REVISION)])

        request = pixel_gate.sample(session.images, str(session.root), files[THIS].preprocess, spec.seed)
        pixels = pixel_gate.gate(session.folder, session.spec.cases(), request, console)
        session.write(preprocessing=pixels)
        described = {name: each.to_dict() for name, each in files.items()}
        notes = (f"{THIS}: {models[1]}", f"{OLD}: {models[0]}")
        return carry_out(session, files[THIS], models[::-1], described, make_worker, notes, tolerance)
