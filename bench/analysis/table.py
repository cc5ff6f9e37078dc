"""One tidy table of a run, a Case a row, derived from its raw files and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.accuracy.pairing import score_columns
from bench.analysis.accuracy.predictions import ScoredRun
from bench.analysis.columns import REGISTRY, TEXT
from bench.analysis.time.quantiles import efficiency_columns, timing_columns
from bench.record.files import encodable
from bench.record.run_folder import CaseResult, RunFolder

DEMO_NOTE = "demo data: not ImageNet accuracy"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A run, as reports are made of it."""

    folder: RunFolder
    frame: pd.DataFrame
    info: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """Its folder."""
        return self.folder.path

    @cached_property
    def scored(self) -> ScoredRun:
        """Its results and predictions."""
        return ScoredRun.open(self.path)


def load(run: Path) -> Loaded:
    """A run with its table and all that reports tell besides; BenchError where the folder holds no run."""
    frame = load_frame(run)
    texts = {name: frame[name].map(public) for name in ("model", "reason", "note", "options")}
    return Loaded(RunFolder.open(run), frame.assign(**texts), public(load_info(run)))


# Folders of the user's, but not those of the system that advice may name. A URL's slashes follow a colon or a slash.
_FOLDERS = re.compile(r"(?<![\w./~*-])/(?!(?:sys|proc|dev|usr|etc)/)(?:[^\s/'\":;,]+/)+(?=[^\s/'\":;,])")


def public(value: Any) -> Any:
    """Plain JSON types without the folders of absolute paths, which are nobody's business where a report is read."""
    if isinstance(value, str):
        return _FOLDERS.sub(".../", value)
    if isinstance(value, Mapping):
        return {key: public(item) for key, item in value.items()}
    return [public(item) for item in value] if isinstance(value, list | tuple) else value


def load_frame(run: Path) -> pd.DataFrame:
    """The table of a run, planned Cases first and in order.

    Figures are derived from the raw samples (warm-up left out) and predictions of Cases that are ``ok`` or
    ``fallback``, which was measured too, though elsewhere than requested. Every other Case keeps its reason and what
    was counted. The columns of ``bench.analysis.columns.REGISTRY``, in that order; unknown numbers are <NA>, unknown
    texts are empty. ``note`` is ``DEMO_NOTE`` on every row of a run with demo data or weights.

    Raises:
        BenchError: the folder holds no run.
    """
    folder = RunFolder.open(run)
    info, results = folder.read_run_info(), folder.results()
    dataset = info.get("dataset") or {}
    is_demo = bool(dataset.get("is_demo"))
    marks = [DEMO_NOTE] if is_demo or any(result.case.weights == "demo" for result in results) else []
    if (info.get("settings") or {}).get("restrict_classes"):
        marks.append(f"chosen among the {dataset.get('n_classes_present')} classes that have images")
    marks += (info.get("model_files") or {}).get("notes") or ()
    noticed = [one for name in ("warnings", "real") for one in info.get(name) or () if "case_ids" in one]
    derived = score_columns(folder, results, is_demo) | timing_columns(folder, results, info)
    rows = []
    for result in results:
        columns, notes = derived.get(result.case.case_id, ({}, []))
        notes += [one["text"] for one in noticed if result.case.case_id in one["case_ids"]]
        columns = {**columns, **efficiency_columns(result.case, columns, info)}
        row = {**_identity(result), **columns, "note": "; ".join([*notes, *marks])}
        rows.append({name: encodable(value) if isinstance(value, str) else value for name, value in row.items()})
    frame = pd.DataFrame(rows, columns=list(REGISTRY))
    texts = [name for name, column in REGISTRY.items() if column.dtype == TEXT]
    frame[texts] = frame[texts].fillna("")
    return frame.astype({name: column.dtype for name, column in REGISTRY.items()})


def load_info(run: Path) -> dict[str, Any]:
    """What reports tell besides the table: ``run.json``, and under ``bad_images`` every unreadable file once.

    Raises:
        BenchError: the folder holds no run.
    """
    folder = RunFolder.open(run)
    bad = {
        image["image_id"]: image.get("reason", "") for result in folder.case_results() for image in result.bad_images
    }
    images = [{"image_id": image_id, "reason": reason} for image_id, reason in sorted(bad.items())]
    return {**folder.read_run_info(), "bad_images": images}


def _identity(result: CaseResult) -> dict[str, Any]:
    case, metrics = result.case, result.metrics
    row = {name: value for name, value in case.to_dict().items() if name in REGISTRY}
    bad = metrics.get("n_bad_images")
    return {
        **row,
        "case_id": case.case_id,
        "status": result.status.value,
        "reason": " ".join(result.reason.split()),
        "stage": result.stage,
        "options": json.dumps(dict(case.options), sort_keys=True) if case.options else "",
        "n_bad_images": bad if bad is not None else (len(result.bad_images) or None),
        "peak_rss_bytes": metrics.get("peak_rss_bytes"),
        "n_warmup": metrics.get("n_warmup"),
        "stop_reason": metrics.get("stop_reason", ""),
        "model_file_bytes": metrics.get("model_file_bytes"),
        "energy_joules_per_image": metrics.get("energy_joules_per_image"),
    }
