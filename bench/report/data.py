"""Tables and runs for other programs: CSV that is safe to open in a spreadsheet, Parquet with its types, and JSON.

The JSON form of a run is published and versioned: ``docs/schema/run-1.json``, a JSON Schema that ``schema``
makes (the command ``schema`` prints it). A field that is added later keeps the version; one that changes its meaning
or goes makes a new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analysis.columns import CASES, NUMBER, PREDICTIONS, REGISTRY, ROUNDS, SAMPLES, TEXT, WHOLE, source_of
from bench.analysis.table import DEMO_NOTE, Loaded, public
from bench.record.files import atomic_file, encodable, plain, write_text
from bench.report.document import Document, as_data, as_frames

VERSION = 1

# A spreadsheet takes a cell that begins so for a formula (OWASP, "CSV Injection"). A quote in front makes it
# text.
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")

# Of run.json, what tells where the figures come from; the folder of the data is nobody's business elsewhere.
_OF_RUN = ("created_at", "finished_at", "command", "git", "host", "packages", "warnings")
_OF_DATASET = ("layout", "n_images", "fingerprint", "is_demo")


def write_document(document: Document, path: Path) -> list[Path]:
    """Writes a document as ``.json``, or each of its tables as ``.csv`` or ``.parquet``; gives the files."""
    if path.suffix.lower() == ".json":
        write_json(as_data(document), path)
        return [path]
    frames = as_frames(document)
    writer = write_csv if path.suffix.lower() == ".csv" else write_parquet
    # The first has the name that was requested.
    paths = [path, *(path.with_name(f"{path.stem}-{name}{path.suffix}") for name in [*frames][1:])]
    for target, frame in zip(paths, frames.values(), strict=True):
        writer(frame, target)
    return paths


def write_json(data: Any, path: Path) -> None:
    """Writes plain JSON types; the same data give the same bytes."""
    write_text(path, json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")


def write_parquet(frame: pd.DataFrame, path: Path) -> None:
    """Writes the frame as it is."""
    with atomic_file(path) as stream:
        frame.to_parquet(stream, index=False, compression="zstd")


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Writes the frame, unknown values as empty cells, and no digit that only binary fractions have."""
    safe = frame.copy()
    for column in safe.columns:
        if getattr(safe[column].dtype, "kind", "O") not in "biuf":
            # Not by map, which makes numbers with a fraction of whole ones beside unknown ones.
            cells = [safe_cell(cell) if isinstance(cell, str) else cell for cell in safe[column]]
            safe[column] = pd.Series(cells, index=safe.index, dtype=object)
    write_text(path, safe.to_csv(index=False, lineterminator="\n", float_format="%.12g"))


def safe_cell(text: str) -> str:
    """The text, with a quote in front where a spreadsheet would run it."""
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text


def run_data(run: Loaded) -> dict[str, Any]:
    """The run as JSON types, valid by ``schema()``.

    Every figure names its raw file: ``sources`` of a Case says for each figure which file of the run's folder it was
    derived from; the rows of that file with this ``case_id`` are all that went into it.
    """
    frame, info = run.frame, run.info
    dataset = info.get("dataset") or {}
    proofs = {result.case.case_id: public(plain(result.proof)) for result in run.folder.case_results()}
    return {
        "schema_version": VERSION,
        "run": {name: _encodable(info[name]) for name in _OF_RUN if info.get(name) is not None},
        "dataset": {name: dataset[name] for name in _OF_DATASET if name in dataset},
        "demo_note": DEMO_NOTE if frame["note"].str.contains(DEMO_NOTE, regex=False).any() else "",
        "bad_images": [_encodable(dict(image)) for image in info.get("bad_images") or ()],
        "cases": [_case(row, proofs) for row in json.loads(frame.to_json(orient="records", double_precision=15))],
    }


def _case(row: Mapping[str, Any], proofs: Mapping[str, Any]) -> dict[str, Any]:
    figures = {name: row[name] for name in REGISTRY if _is_figure(name) and row[name] is not None}
    return {
        **{name: row[name] for name in REGISTRY if not _is_figure(name) and row[name] is not None},
        **{name: json.loads(row[name] or "{}") for name in _OBJECTS},
        "figures": figures,
        "sources": {name: source_of(name, row["scenario"]) for name in figures},
        "proof": _encodable(proofs.get(row["case_id"], {})),
    }


# Columns whose text is a JSON object of texts.
_OBJECTS = ("options", "left_empty")


def _is_figure(name: str) -> bool:
    """Whether the column is a number that was measured or counted, and neither a setting nor a text."""
    return REGISTRY[name].is_numeric and not REGISTRY[name].tells


def _encodable(value: Any) -> Any:
    """The value with every text in it fit for UTF-8: names of files may hold bytes that are none."""
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, Mapping):
        return {encodable(str(key)): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    return value


_TEXT, _WHOLE, _OBJECT = {"type": "string"}, {"type": "integer"}, {"type": "object"}


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the document."""
    run = {
        "created_at": {**_TEXT, "description": "ISO 8601, UTC."},
        "finished_at": {**_TEXT, "description": "ISO 8601, UTC; absent where the run did not end."},
        "command": {"type": "array", "items": _TEXT},
        "git": _OBJECT,
        "host": _OBJECT,
        "packages": {**_OBJECT, "additionalProperties": {"type": ["string", "null"]}},
        "warnings": {"type": "array", "items": _OBJECT},
    }
    dataset = {
        "layout": _TEXT,
        "n_images": _WHOLE,
        "fingerprint": {**_TEXT, "description": "Of all images and labels; equal for equal sets."},
        "is_demo": {"type": "boolean"},
    }
    bad_image = {"image_id": _TEXT, "reason": _TEXT}
    about_run = "When, by which command, of which revision, on which host, with which packages."
    about_demo = "What must be said where demo data or demo weights took part."
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"A run of scarlet-bench, version {VERSION}",
        "type": "object",
        "required": ["schema_version", "run", "dataset", "demo_note", "bad_images", "cases"],
        "properties": {
            "schema_version": {"const": VERSION},
            "run": {**_OBJECT, "description": about_run, "properties": run},
            "dataset": {**_OBJECT, "properties": dataset},
            "demo_note": {**_TEXT, "description": about_demo},
            "bad_images": {"type": "array", "items": {**_OBJECT, "required": list(bad_image), "properties": bad_image}},
            "cases": {"type": "array", "items": {"$ref": "#/$defs/case"}},
        },
        "$defs": {"case": _case_schema()},
    }


def _case_schema() -> dict[str, Any]:
    types = {TEXT: _TEXT, WHOLE: _WHOLE, NUMBER: {"type": "number"}}
    described: dict[str, dict[str, Any]] = {
        name: {**types[column.dtype], "description": column.meaning} for name, column in REGISTRY.items()
    }
    objects = {
        name: {**_OBJECT, "additionalProperties": _TEXT, "description": REGISTRY[name].meaning} for name in _OBJECTS
    }
    own = {name: described[name] for name in REGISTRY if not _is_figure(name)} | objects
    return {
        "type": "object",
        "required": ["case_id", "status", "figures", "sources", "proof"],
        "additionalProperties": False,
        "properties": {
            **own,
            "figures": {
                **_OBJECT,
                "description": "What was measured; an unknown figure is absent.",
                "additionalProperties": False,
                "properties": {name: described[name] for name in REGISTRY if _is_figure(name)},
            },
            "sources": {
                **_OBJECT,
                "description": "For each figure the raw file whose rows of this case_id it was derived from.",
                "additionalProperties": {"enum": [SAMPLES, PREDICTIONS, ROUNDS, CASES]},
            },
            "proof": {**_OBJECT, "description": "What really executed, as the backend tells."},
        },
    }
