"""The predictions of a run's Cases as arrays: whose they are, whether they may be scored, and their scores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.record.case import REFERENCE_BACKEND, Case, Status
from bench.record.raw_tables import TOP
from bench.record.run_folder import NEVER_RAN, CaseResult, RunFolder
from scarlet.errors import BenchError

RANDOM_NOTE = "random weights: accuracy is not meaningful"
FOREIGN_NOTE = "demo weights mean nothing on these images; give --checkpoint"


def no_accuracy(case: Case, is_demo: bool) -> str:
    """Why predictions of this Case have no accuracy, however they agree with others; empty where they have one.

    Args:
        is_demo: the images are the demo set's.
    """
    if case.weights == "random":
        return RANDOM_NOTE
    return FOREIGN_NOTE if case.weights == "demo" and not is_demo else ""


def reference_case(results: Sequence[CaseResult], predicted: Collection[str]) -> Case | None:
    """The Case that the others of a run are compared with: the first ok accuracy Case of the reference backend on the
    CPU in FP32, else the first ok one; None where none has predictions.

    Args:
        results: in the order of the run.
        predicted: ids of the Cases that have predictions.
    """
    candidates = [
        result.case
        for result in results
        if result.case.scenario == "accuracy" and result.status is Status.OK and result.case.case_id in predicted
    ]
    usual = [
        case for case in candidates if (case.backend, case.device, case.precision) == (REFERENCE_BACKEND, "cpu", "fp32")
    ]
    return next(iter(usual or candidates), None)


@dataclass(frozen=True, eq=False)
class Predicted:
    """One Case's predictions of n images.

    Attributes:
        no_accuracy: why they have no accuracy; empty where they have one.
        image_ids: ids of all images of the run; the same object for all Cases of a run.
        image: ``(n,)``, place of each image in ``image_ids``.
        label: int16, ``(n,)``, the true class.
        top: int16, ``(n, 5)``, classes by falling logit, missing ones -1.
        margin: float32, ``(n,)``, softmax probability of the first class minus that of the second.
    """

    run: str
    case: Case
    no_accuracy: str
    image_ids: pd.Index[str]
    image: NDArray[np.integer[Any]]
    label: NDArray[np.int16]
    top: NDArray[np.int16]
    margin: NDArray[np.float32]


def load(folder: RunFolder, results: Sequence[CaseResult], is_demo: bool) -> dict[str, Predicted]:
    """The predictions of these Cases by their ids; Cases that have none are left out."""
    frame = folder.predictions()
    images, owners = frame["image_id"].cat, frame["case_id"].cat
    columns = {
        "image": images.codes.to_numpy(),
        "label": frame["label"].to_numpy(),
        "top": frame[[f"top{index}" for index in range(1, TOP + 1)]].to_numpy(),
        "margin": frame["margin"].to_numpy(),
    }
    cases = {result.case.case_id: result.case for result in results}
    name, codes = folder.path.resolve().name, owners.codes.to_numpy()
    found = {}
    for code, case_id in enumerate(owners.categories):
        if case := cases.get(str(case_id)):
            rows = np.flatnonzero(codes == code)
            own = {column: values[rows] for column, values in columns.items()}
            found[case.case_id] = Predicted(name, case, no_accuracy(case, is_demo), images.categories, **own)
    return found


@dataclass(frozen=True, eq=False)
class ScoredRun:
    """A run, and what its accuracy Cases predicted.

    Attributes:
        predicted: the predictions of accuracy Cases that are ok, by Case id, in that order.
        reference: what its Cases are compared with; None where no Case has predictions.
    """

    path: Path
    info: Mapping[str, Any]
    results: tuple[CaseResult, ...]
    predicted: Mapping[str, Predicted]
    reference: Predicted | None

    @classmethod
    def open(cls, path: Path) -> ScoredRun:
        """Reads a run; BenchError where the folder holds no run."""
        folder = RunFolder.open(path)
        info = folder.read_run_info()
        results = tuple(result for result in folder.results() if result.reason != NEVER_RAN)
        scored = [result for result in results if result.case.scenario == "accuracy" and result.status is Status.OK]
        loaded = load(folder, scored, bool((info.get("dataset") or {}).get("is_demo")))
        predicted = {
            result.case.case_id: loaded[result.case.case_id] for result in scored if result.case.case_id in loaded
        }
        chosen = reference_case(results, predicted)
        return cls(folder.path.resolve(), info, results, predicted, predicted[chosen.case_id] if chosen else None)

    @property
    def name(self) -> str:
        """Of the run's folder."""
        return self.path.name

    def find(self, text: str) -> Predicted:
        """The accuracy Case with this id, or the only one whose id begins so.

        Raises:
            BenchError: there is no such Case, there are several, or it has no predictions.
        """
        matching = [result for result in self.results if text and result.case.case_id.startswith(text)]
        exact = [result for result in matching if result.case.case_id == text]
        # A timed Case is never meant where an accuracy Case would do.
        scored = [result for result in matching if result.case.scenario == "accuracy"]
        chosen = exact or scored or matching
        if not chosen:
            raise BenchError(f"run {self.name} has no Case '{text}'", self._choices())
        if len(chosen) > 1:
            ids = ", ".join(result.case.case_id for result in chosen)
            raise BenchError(
                f"'{text}' is the beginning of {len(chosen)} Cases of run {self.name}", f"Choose from: {ids}."
            )
        return self.of(chosen[0].case)

    def of(self, case: Case) -> Predicted:
        """The predictions of a Case; BenchError where it has none here; the line says why."""
        if predicted := self.predicted.get(case.case_id):
            return predicted
        who = f"Case {case.case_id} ({case.label})"
        raise BenchError(f"{who} {self.why_not(case)} (run {self.name})", self._choices())

    def why_not(self, case: Case) -> str:
        """Why the run has no predictions of this Case: what follows "it" in a sentence."""
        result = next((result for result in self.results if result.case == case), None)
        if case.scenario != "accuracy":
            return "is timed: latencies are compared only inside one run, where Cases take turns"
        if result is None:
            return "is not there"
        if result.status is not Status.OK:
            return f"is {result.status.value}: {' '.join(result.reason.split())}"
        return "has lost its predictions"

    def _choices(self) -> str:
        if not self.predicted:
            return "No Case of it has predictions: measure again with --scenarios accuracy."
        known = ", ".join(f"{case_id} ({predicted.case.label})" for case_id, predicted in self.predicted.items())
        return f"Choose from: {known}."
