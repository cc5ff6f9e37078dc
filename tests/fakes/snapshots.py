"""Snapshots for tests of the gate: rows with few words."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from report_run import case

from bench.record.case import Case
from bench.studies.check.snapshot import Row, Snapshot, array_digest, ids_digest


def accuracy_case(backend: str = "pytorch", precision: str = "fp32", **more: Any) -> Case:
    """An accuracy Case."""
    return case(backend=backend, precision=precision, scenario="accuracy", batch=32, threads=2, **more)


def row(
    top1: Any, labels: Any, backend: str = "pytorch", precision: str = "fp32", *, pixels: str = "p", **more: Any
) -> Row:
    """A row that is ok."""
    classes = np.array(top1, dtype=np.int16)
    return Row(
        more.pop("case", None) or accuracy_case(backend, precision),
        top1=classes,
        margin=more.pop("margin", np.full(len(classes), 0.25, dtype=np.float32)),
        top1_right=int(np.count_nonzero(classes == np.array(labels))),
        predictions_sha256=array_digest(classes),
        input_sha256=pixels,
        **more,
    )


def snapshot(labels: Any, rows: Sequence[Row], **more: Any) -> Snapshot:
    """A snapshot of images 0000.JPEG and so on."""
    ids = more.pop("ids", tuple(f"valid/{place:04}.JPEG" for place in range(len(labels))))
    return Snapshot(
        **{
            "name": "some",
            "model": "scarlet_c",
            "dataset": {"fingerprint": "f", "n_images": len(labels), "is_demo": False},
            "ids_sha256": ids_digest(ids),
            "labels": np.array(labels, dtype=np.int16),
            "weights": {"label": "official", "sha256": "w" * 64, "onnx_sha256": "o" * 64},
            "rows": tuple(rows),
            "ids": ids,
            "packages": {"onnxruntime": "1.0", "torch": "2.0"},
            **more,
        }
    )
