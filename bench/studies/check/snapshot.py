"""What a check compares: the predictions of all accuracy rows in the order of the images, and what they rest on.

A snapshot comes from a run's folder (``of_run``) or from a baseline file (``bench.studies.check.baseline``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.analysis.accuracy import predictions
from bench.analysis.accuracy.predictions import Predicted
from bench.record.case import Case, Status
from bench.record.files import encodable
from bench.record.run_folder import CaseResult, RunFolder
from scarlet import zoo

Labels = NDArray[np.int16]

# In place of a class index: the file could not be decoded, or the image was not part of the run.
UNREADABLE, NOT_SCORED = -1, -2

BLAMED = ("decode", "resize", "crop", "normalise")
# The preprocessing gate's word for stages that are right one by one (``pipelines.parity.differences.WHOLE``).
WHOLE = "whole path"
# What bench.worker.tasks.AccuracyTask says when there is not one prediction for each image.
UNPAIRED = "images went in;"


@dataclass(frozen=True, eq=False)
class Row:
    """An accuracy row.

    Attributes:
        reason: why, where it is not ok.
        stage: where that lies, if it is known.
        top1: int16, ``(n,)`` in the order of the snapshot's images: class, ``UNREADABLE`` or ``NOT_SCORED``; None
            where it is not ok.
        margin: float32, ``(n,)``: lead of the first class in probability, 0 where unreadable; None where unknown.
        top1_right: images with the true class first.
        top5_right: images with the true class among the first five.
        predictions_sha256: digest of the five classes of every image, in order.
        input_sha256: digest of every pixel that went in; empty where it is not known.
        no_accuracy: why these predictions have no accuracy (random weights); empty where they have one.
    """

    case: Case
    status: Status = Status.OK
    reason: str = ""
    stage: str = ""
    top1: Labels | None = None
    margin: NDArray[np.float32] | None = None
    top1_right: int = 0
    top5_right: int = 0
    predictions_sha256: str = ""
    input_sha256: str = ""
    no_accuracy: str = ""

    @property
    def n_images(self) -> int:
        """Images predicted."""
        return 0 if self.top1 is None else int(np.count_nonzero(self.top1 >= 0))


@dataclass(frozen=True)
class Timed:
    """A timed row and its ratio to a reference row of the same run: time per image over the reference's.

    Attributes:
        reference: the Case it is compared with.
        low: lower end of the ratio's interval, or None where there were too few rounds.
        reason: why there is no ratio, where there is none.
    """

    case: Case
    reference: Case | None = None
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    status: Status = Status.OK
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """All rows of a run or of a baseline, and the digests of what they rest on.

    Attributes:
        name: where it comes from, for people.
        model: canonical name.
        dataset: ``fingerprint``, ``n_images``, ``n_images_in_set``, ``is_demo``; of a run also ``root``.
        ids_sha256: digest of the image ids in order.
        labels: int16, ``(n,)``.
        weights: ``label`` and ``sha256`` of the weights, and ``onnx_sha256``.
        rows: accuracy rows in order.
        timed: timed rows in order.
        packages: version by name.
        ids: image ids in order; empty in baselines.
        info: further facts: ``settings``, ``git``, ``host``, ``created_at``; of a run also ``blame``, the stage that
            the preprocessing gate blames, by pipeline.
        reference: what the reference's stages made, as of ``stage_digests.of_reference``; empty in older runs.
    """

    name: str
    model: str
    dataset: Mapping[str, Any]
    ids_sha256: str
    labels: Labels
    weights: Mapping[str, str]
    rows: tuple[Row, ...]
    timed: tuple[Timed, ...] = ()
    packages: Mapping[str, Any] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)
    reference: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_images(self) -> int:
        return len(self.labels)


def ids_digest(ids: Sequence[str]) -> str:
    """Hex SHA-256 of image ids in this order."""
    return hashlib.sha256("".join(f"{encodable(image_id)}\n" for image_id in ids).encode()).hexdigest()


def array_digest(values: NDArray[np.int16]) -> str:
    """Hex SHA-256 of the values as little-endian int16."""
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<i2").tobytes()).hexdigest()


def of_run(folder: RunFolder, with_timed: bool = False) -> Snapshot:
    """The snapshot of a run.

    A row that is ok and whose predictions are not one for each image becomes ``invalid``, with the stage ``order``.

    Raises:
        BenchError: the run has no list of its images.
    """
    info = folder.read_run_info()
    images = folder.read_images()
    ids, labels = [image_id for image_id, _ in images], np.array([label for _, label in images], dtype=np.int16)
    names = ("settings", "dataset", "model_files", "preprocessing")
    settings, dataset, files, made = (info.get(name) or {} for name in names)
    # As it was written: a worker is told of a graph by its path from the root, which is of one machine.
    model = zoo.resolve(settings["model"]).name if settings.get("model") else str(files.get("model") or "")
    blame = {name: _blamed((each or {}).get("report") or {}) for name, each in made.items()}
    results = [result for result in folder.results() if result.case.scenario == "accuracy"]
    scored = [result for result in results if result.status is Status.OK]
    predicted = predictions.load(folder, scored, bool(dataset.get("is_demo")))
    rows = tuple(
        _row(result, predicted.get(result.case.case_id), ids, labels)
        if result.status is Status.OK
        else _not_ok(result, blame.get(result.case.pipeline, ""))
        for result in results
    )
    return Snapshot(
        name=folder.path.name,
        model=model or (rows[0].case.model if rows else ""),
        dataset=dataset,
        ids_sha256=ids_digest(ids),
        labels=labels,
        weights={
            "label": str(files.get("weights", "")),
            "sha256": str(files.get("weights_sha256", "")),
            "onnx_sha256": str(files.get("onnx_sha256", "")),
        },
        rows=rows,
        timed=_timed(folder) if with_timed else (),
        packages=info.get("packages") or {},
        ids=tuple(ids),
        info={**{name: info.get(name) for name in ("settings", "git", "host", "created_at")}, "blame": blame},
        reference=info.get("reference") or {},
    )


def _not_ok(result: CaseResult, blame: str) -> Row:
    """The stage that is at fault in a row that is not ok is known where the run itself says so."""
    stage = blame if result.status is Status.INVALID else ""
    if result.status is Status.FAILED and UNPAIRED in result.reason:
        stage = "order"
    return Row(result.case, result.status, " ".join(result.reason.split()), stage)


def _row(result: CaseResult, predicted: Predicted | None, ids: Sequence[str], labels: Labels) -> Row:
    """A row whose predictions are brought into the order of the run's images."""
    import pandas as pd

    if predicted is None:
        return Row(result.case, Status.INVALID, "its predictions are missing from the run's folder")
    n = len(labels)
    places = pd.Index([encodable(image_id) for image_id in ids]).get_indexer(predicted.image_ids)[predicted.image]
    counts = np.bincount(places[places >= 0], minlength=n)
    foreign, twice = int(np.count_nonzero(places < 0)), int(np.count_nonzero(counts > 1))
    missing = int(np.count_nonzero(counts == 0)) - len(result.bad_images)
    fault, stage = "", "order"
    if foreign:
        fault, stage = f"{foreign} predictions are of images that are not in the run's list", "data"
    elif twice:
        fault = f"{twice} {'image is' if twice == 1 else 'images are'} counted more than once"
    elif missing > 0:
        fault = f"{missing} of {n} images have no prediction, and are not unreadable"
    elif (predicted.label != labels[places]).any():
        fault, stage = "the labels beside the predictions are not those of the run's images", "labels"
    if fault:
        return Row(result.case, Status.INVALID, fault, stage)
    top = np.full((n, predicted.top.shape[1]), UNREADABLE, dtype=np.int16)
    margin = np.zeros(n, dtype=np.float32)
    top[places], margin[places] = predicted.top, predicted.margin
    right = top == labels[:, None]
    return Row(
        result.case,
        top1=np.ascontiguousarray(top[:, 0]),
        margin=margin,
        top1_right=int(np.count_nonzero(right[:, 0])),
        top5_right=int(np.count_nonzero(right.any(axis=1))),
        predictions_sha256=array_digest(top),
        input_sha256=str(result.metrics.get("input_sha256") or ""),
        no_accuracy=predicted.no_accuracy,
    )


def _blamed(report: Mapping[str, Any]) -> str:
    """The stage that the preprocessing gate blames for a pipeline's pixels; empty for none."""
    blame = report.get("blame")
    if blame == WHOLE and any((report.get(which) or {}).get("problem") for which in ("images", "probes")):
        return "order"  # images are lost, repeated or taken for one another
    return str(blame) if blame in BLAMED else ""


def _timed(folder: RunFolder) -> tuple[Timed, ...]:
    """The timed rows that are compared with another, and those that are not ok."""
    import pandas as pd

    from bench.analysis.table import load_frame

    frame = load_frame(folder.path)
    cases = {case.case_id: case for case in folder.planned_cases()}
    cases |= {result.case.case_id: result.case for result in folder.case_results()}
    found = []
    for row in frame[frame["scenario"] != "accuracy"].to_dict("records"):
        case = cases[str(row["case_id"])]
        if row["status"] != Status.OK.value:
            found.append(Timed(case, status=Status(row["status"]), reason=str(row["reason"])))
        elif row["baseline_case_id"] != row["case_id"]:
            ratio, low, high = (
                None if pd.isna(row[name]) else float(row[name]) for name in ("ratio", "ratio_low", "ratio_high")
            )
            reference = cases.get(str(row["baseline_case_id"]))
            found.append(Timed(case, reference, ratio, low, high, reason=str(row["note"])))
    return tuple(found)
