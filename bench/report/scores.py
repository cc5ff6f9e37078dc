"""The columns of an accuracy Case: top-1, top-5, and how far it agrees with the reference Case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.case import Case, Status
from bench.results import CaseResult, RunFolder
from bench.tables import TOP

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RANDOM_NOTE = "random weights: accuracy is not meaningful"
FOREIGN_NOTE = "demo weights mean nothing on these images; give --checkpoint"


def score_columns(
    folder: RunFolder, results: Sequence[CaseResult], is_demo: bool
) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Columns and notes of every accuracy Case that is ok, by its id. See ``frame.load_frame``."""
    predictions = _predictions(folder)
    reference = _reference(results, predictions)
    made = {}
    for result in results:
        case = result.case
        if result.status is Status.OK and case.scenario == "accuracy":
            notes: list[str] = []
            row = _accuracy(case, predictions.get(case.case_id), reference, is_demo, notes)
            made[case.case_id] = row, notes
    return made


@dataclass(frozen=True)
class _Predicted:
    """One Case's predictions: place of the image among all images of the run, ``(n,)``; label, ``(n,)``; top-5."""

    image: NDArray[np.integer[Any]]
    label: NDArray[np.int16]
    top: NDArray[np.int16]


@dataclass(frozen=True)
class _Reference:
    """The reference Case's top-5 by image, ``(all images, 5)``, and which images it has."""

    case_id: str
    top: NDArray[np.int16]
    present: NDArray[np.bool_]


def _predictions(folder: RunFolder) -> dict[str, _Predicted]:
    frame = folder.predictions()
    images, cases = frame["image_id"].cat.codes.to_numpy(), frame["case_id"].cat.codes.to_numpy()
    labels = frame["label"].to_numpy()
    top = frame[[f"top{place}" for place in range(1, TOP + 1)]].to_numpy()
    found = {}
    for code, case_id in enumerate(frame["case_id"].cat.categories):
        rows = cases == code
        found[str(case_id)] = _Predicted(images[rows], labels[rows], top[rows])
    return found


def _reference(results: Sequence[CaseResult], predictions: Mapping[str, _Predicted]) -> _Reference | None:
    import numpy as np

    candidates = [
        result.case
        for result in results
        if result.case.scenario == "accuracy"
        and result.status is Status.OK
        and result.case.case_id in predictions
    ]
    if not candidates:
        return None
    usual = [
        case
        for case in candidates
        if (case.backend, case.device, case.precision) == ("pytorch", "cpu", "fp32")
    ]
    case_id = (usual or candidates)[0].case_id
    own = predictions[case_id]
    n = 1 + max((int(predicted.image.max(initial=-1)) for predicted in predictions.values()), default=-1)
    top, present = np.zeros((n, TOP), dtype=np.int16), np.zeros(n, dtype=bool)
    top[own.image], present[own.image] = own.top, True
    return _Reference(case_id, top, present)


def _accuracy(
    case: Case,
    predicted: _Predicted | None,
    reference: _Reference | None,
    is_demo: bool,
    notes: list[str],
) -> dict[str, Any]:
    if predicted is None or reference is None:
        notes.append("its predictions are missing from the run's folder")
        return {}
    row: dict[str, Any] = {"n_images": len(predicted.label), "reference_case_id": reference.case_id}
    if case.weights == "random":
        notes.append(RANDOM_NOTE)
    elif case.weights == "demo" and not is_demo:
        notes.append(FOREIGN_NOTE)
    elif len(predicted.label):
        hits = predicted.top == predicted.label[:, None]
        row["top1_percent"] = 100.0 * float(hits[:, 0].mean())
        row["top5_percent"] = 100.0 * float(hits.any(axis=1).mean())
    common = reference.present[predicted.image]
    if case.case_id != reference.case_id and common.any():
        same = predicted.top[common] == reference.top[predicted.image[common]]
        row["agreement_percent"] = 100.0 * float(same[:, 0].mean())
        row["top5_ordered_agreement_percent"] = 100.0 * float(same.all(axis=1).mean())
    elif case.case_id != reference.case_id:
        notes.append("no image in common with the reference Case")
    return row
