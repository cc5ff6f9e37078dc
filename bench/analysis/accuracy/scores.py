"""The columns of an accuracy Case: top-1, top-5, and how far it agrees with the reference Case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.analysis.accuracy import predictions
from bench.analysis.accuracy.predictions import FOREIGN_NOTE, RANDOM_NOTE, Predicted
from bench.record.case import Case, Status
from bench.record.raw_tables import TOP
from bench.record.run_folder import CaseResult, RunFolder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FOREIGN_NOTE", "MEASURED", "RANDOM_NOTE", "score_columns"]

# What ran elsewhere than asked was measured all the same: its row says where it ran, and keeps its figures.
MEASURED = (Status.OK, Status.FALLBACK)


def score_columns(
    folder: RunFolder, results: Sequence[CaseResult], is_demo: bool
) -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Columns and notes of every accuracy Case that is ok or fell back, by its id. See ``frame.load_frame``."""
    predicted = predictions.load(folder, results, is_demo)
    reference = _reference(results, predicted)
    made = {}
    for result in results:
        case = result.case
        if result.status in MEASURED and case.scenario == "accuracy":
            notes: list[str] = []
            row = _accuracy(case, predicted.get(case.case_id), reference, notes)
            made[case.case_id] = row, notes
    return made


@dataclass(frozen=True)
class _Reference:
    """The reference Case's top-5 by image, ``(all images, 5)``, and which images it has."""

    case_id: str
    top: NDArray[np.int16]
    present: NDArray[np.bool_]


def _reference(results: Sequence[CaseResult], predicted: Mapping[str, Predicted]) -> _Reference | None:
    import numpy as np

    case = predictions.reference_case(results, predicted)
    if case is None:
        return None
    own = predicted[case.case_id]
    n = len(own.image_ids)
    top, present = np.zeros((n, TOP), dtype=np.int16), np.zeros(n, dtype=bool)
    top[own.image], present[own.image] = own.top, True
    return _Reference(case.case_id, top, present)


def _accuracy(
    case: Case, predicted: Predicted | None, reference: _Reference | None, notes: list[str]
) -> dict[str, Any]:
    if predicted is None:
        notes.append("its predictions are missing from the run's folder")
        return {}
    row: dict[str, Any] = {"n_images": len(predicted.label)}
    if predicted.no_accuracy:
        notes.append(predicted.no_accuracy)
    elif len(predicted.label):
        hits = predicted.top == predicted.label[:, None]
        row["top1_percent"] = 100.0 * float(hits[:, 0].mean())
        row["top5_percent"] = 100.0 * float(hits.any(axis=1).mean())
    if reference is None:  # every Case of the run fell back
        return row
    row["reference_case_id"] = reference.case_id
    common = reference.present[predicted.image]
    if case.case_id != reference.case_id and common.any():
        same = predicted.top[common] == reference.top[predicted.image[common]]
        row["agreement_percent"] = 100.0 * float(same[:, 0].mean())
        row["top5_ordered_agreement_percent"] = 100.0 * float(same.all(axis=1).mean())
    elif case.case_id != reference.case_id:
        notes.append("no image in common with the reference Case")
    return row
