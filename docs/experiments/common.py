"""What the benchmarks share: a prepared model, and runs of a few Cases in a folder of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from bench import host
from bench.backends.base import ModelFiles
from bench.record.case import Case
from bench.record.run_folder import CaseResult, RunFolder
from bench.run.images import choose_images
from bench.run.model_files import prepare_files, prepare_request
from bench.run.progress import PlainListener
from bench.run.runner import Limits, Runner
from bench.run.schedule import by_scenario
from bench.worker.messages import Context


class Quiet(PlainListener):
    """Says only what went wrong."""

    def __init__(self) -> None:
        super().__init__(Console(stderr=True, width=160), 0)

    def case_started(self, case: Case) -> None:
        """Nothing."""

    def case_ended(self, result: CaseResult) -> None:
        if result.reason:
            super().case_ended(result)


@dataclass(frozen=True)
class Prepared:
    """A model ready to be measured on the demo images."""

    root: Path
    data: str
    files: ModelFiles
    images: Sequence[tuple[str, int]]
    is_demo: bool

    def case(self, backend: str, **more: Any) -> Case:
        """A Case of this model on all cores."""
        fields = {"threads": host.allowed_cores(), **more}
        return Case(self.files.model, self.files.weights, backend, **fields)

    def folder(self, name: str, cases: Sequence[Case]) -> RunFolder:
        """A new run's folder that plans these Cases."""
        run = RunFolder.create(self.root / name)
        run.write_run_info(
            {
                "plan": {"cases": [case.to_dict() for case in cases]},
                "dataset": {"is_demo": self.is_demo, "n_images": len(self.images)},
                "model_files": self.files.to_dict(),
            }
        )
        run.write_images(self.images)
        return run

    def context(self, run: RunFolder) -> Context:
        return Context(run=str(run.path), data=self.data, files=self.files)

    def measure(self, name: str, cases: Sequence[Case], budget_seconds: float, seed: int = 0) -> RunFolder:
        """Runs the Cases, and gives the folder with their results."""
        run = self.folder(name, cases)
        limits = Limits(budget_seconds=budget_seconds, seed=seed)
        Runner(run, self.context(run), Quiet(), limits, watch=False).execute(cases, by_scenario(cases))
        run.merge_parts()
        return run


@contextmanager
def prepared(model: str = "scarlet_c") -> Iterator[Prepared]:
    """The model with its default weights, exported and checked; files of runs go when this ends."""
    with TemporaryDirectory() as folder:
        image_set, images = choose_images(None, None, Console(stderr=True, width=160))
        data = str(image_set.root.resolve())
        files = prepare_files(
            prepare_request(model, None, data, images),
            log=Path(folder) / "prepare.log",
            threads=host.allowed_cores(),
            timeout_seconds=900,
        )
        pairs = [(image.image_id, image.label) for image in images]
        yield Prepared(Path(folder), data, files, pairs, image_set.is_demo)
