"""Brings a run's predictions into the order of a baseline's images, where it can prove which image is which."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.studies.check.diagnosis import of_labels
from bench.studies.check.snapshot import NOT_SCORED, Labels, Row, Snapshot, ids_digest
from pipelines.imagenet.find import Image, find_images, subset, wnids
from scarlet.errors import BenchError


def aligned(current: Snapshot, baseline: Snapshot) -> Snapshot:
    """The run's rows in the order of the baseline's images; images that it did not score are ``NOT_SCORED``.

    Where the numbers of images differ, a baseline's ids are known only as a digest. They are found again by choosing
    as many images in the same way (``pipelines.imagenet.find.subset``), and hold only if their digest is the
    baseline's.

    Raises:
        BenchError: which image is which cannot be proven.
    """
    if current.ids_sha256 == baseline.ids_sha256:
        return current
    ids = baseline_ids(current, baseline)
    if ids is None:
        what = (
            f"{current.name} scored {current.n_images:,} images and the baseline {baseline.n_images:,}, "
            "and which of them are the same cannot be proven"
        )
        do = f"Run with --images {baseline.n_images}, or make a baseline of {current.n_images:,} images."
        raise BenchError(what, do)
    place = {image_id: place for place, image_id in enumerate(current.ids)}
    source = np.array([place.get(image_id, -1) for image_id in ids])
    scored = source >= 0
    labels = np.where(scored, current.labels[source], baseline.labels).astype(np.int16)
    rows = tuple(_rearranged(row, source, labels) for row in current.rows)
    return replace(current, labels=labels, rows=rows, ids=tuple(ids), ids_sha256=baseline.ids_sha256)


def baseline_ids(current: Snapshot, baseline: Snapshot) -> list[str] | None:
    """The ids of the baseline's images in order, proven by their digest; None where they cannot be found."""
    if current.n_images > baseline.n_images:
        known = [
            Image(image_id, Path(), int(label)) for image_id, label in zip(current.ids, current.labels, strict=True)
        ]
    else:
        try:
            image_set = find_images(Path(str(current.dataset.get("root") or "")))
        except BenchError:
            return None  # the data has moved since
        known = list(image_set.images)
    ids = [image.image_id for image in subset(known, baseline.n_images)]
    return ids if ids_digest(ids) == baseline.ids_sha256 and set(current.ids) & set(ids) else None


def chosen_by_other_labels(current: Snapshot, baseline: Snapshot) -> str:
    """Whether only other labels made the choice of images fall on others than the baseline's; a sentence, or empty.

    ``subset`` chooses evenly over the labels. Where the classes that the folders are named by lead to the baseline's
    images, and the labels given are not those classes, the labels are at fault and not the data.
    """
    try:
        image_set = find_images(Path(str(current.dataset.get("root") or "")))
    except BenchError:
        return ""
    place = {wnid: label for label, wnid in enumerate(wnids())}
    named = [(image, place.get(image.path.parent.name)) for image in image_set.images]
    by_folder = [replace(image, label=label) for image, label in named if label is not None]
    if not by_folder or len(by_folder) < len(named):
        return ""
    if ids_digest([image.image_id for image in subset(by_folder, baseline.n_images)]) != baseline.ids_sha256:
        return ""
    right = {image.image_id: image.label for image in by_folder}
    known = [(right[id_], int(label)) for id_, label in zip(current.ids, current.labels, strict=True) if id_ in right]
    before, after = (np.array(labels, dtype=np.int16) for labels in zip(*known, strict=True)) if known else ((), ())
    differing = int(np.count_nonzero(np.not_equal(before, after)))
    if not differing:
        return ""
    how = of_labels(np.asarray(before), np.asarray(after))
    return (
        f"{differing:,} of {len(known):,} images have another label than the class of their folder, and so others were "
        f"chosen than in the baseline{f': {how}' if how else ''}"
    )


def _rearranged(row: Row, source: NDArray[np.intp], labels: Labels) -> Row:
    if row.top1 is None or row.margin is None:
        return row
    scored = source >= 0
    top1 = np.where(scored, row.top1[source], NOT_SCORED).astype(np.int16)
    margin = np.where(scored, row.margin[source], 0).astype(np.float32)
    # Digests and top-5 counts were of the run's own images.
    return replace(
        row,
        top1=top1,
        margin=margin,
        top1_right=int(np.count_nonzero(top1 == labels)),
        top5_right=0,
        predictions_sha256="",
        input_sha256="",
    )
