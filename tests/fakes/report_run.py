"""Makes small runs for the tests of reports."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder

INFO: dict[str, Any] = {
    "created_at": "2026-01-02T03:04:05+00:00",
    "command": ["/opt/venv/bin/scarlet-bench", "run", "--model", "scarlet_c"],
    "host": {"cpu_model": "Test CPU", "logical_cores": 4, "logical_cores_allowed": 2, "nvidia": {"gpus": []}},
    "packages": {"torch": "2.9.0", "onnxruntime": None},
    "git": {"commit": "0123456789abcdef", "dirty": True},
    "dataset": {"root": "/data", "layout": "folders", "n_images": 4, "fingerprint": "feed" * 8, "is_demo": False},
}


def case(**changes: Any) -> Case:
    """A Case with few words."""
    return Case(**{"model": "scarlet_c", "weights": "official", "backend": "pytorch", **changes})


def make_run(path: Path, planned: Iterable[Case], info: Mapping[str, Any] | None = None) -> RunFolder:
    """A run's folder with a plan and nothing measured yet."""
    folder = RunFolder.create(path)
    plan = {"cases": [planned_case.to_dict() for planned_case in planned]}
    folder.write_run_info({**INFO, "plan": plan, **(info or {})})
    return folder


def end(folder: RunFolder, ended: Case, status: Status = Status.OK, **more: Any) -> None:
    """Appends the Case's line."""
    folder.append_case(CaseResult(ended, status, **more))


def add_samples(
    folder: RunFolder,
    timed: Case,
    latency_ns: Sequence[int],
    n_warmup: int = 0,
    stage: str = "compute",
    per_round: int = 1,
) -> None:
    """A part of samples; the first ``n_warmup`` are warm-up, the others come ``per_round`` to a round."""
    n = len(latency_ns)
    folder.write_samples_part(
        timed.case_id,
        round=(np.arange(n) - n_warmup) // per_round,
        stage=stage,
        images=np.full(n, timed.batch),
        warmup=np.arange(n) < n_warmup,
        latency_ns=np.array(latency_ns, dtype=np.int64),
    )


def add_predictions(folder: RunFolder, scored: Case, rows: Mapping[str, tuple[int, Sequence[int]]]) -> None:
    """A part of predictions: image id -> (label, top classes)."""
    folder.write_predictions_part(
        scored.case_id,
        image_id=list(rows),
        label=np.array([label for label, _ in rows.values()]),
        top=np.array([top for _, top in rows.values()]),
        margin=np.full(len(rows), 0.5, dtype=np.float32),
    )
