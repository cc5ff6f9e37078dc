"""Baseline files: what a run predicted, small enough to be committed and laid out so that a diff can be read.

JSON with sorted keys. Each accuracy row has a block of its own; its top-1 classes stand under ``predictions``, once
for all rows that predicted the same, as base64 of little-endian int16, 96 bytes a line: a change of one prediction
changes one line. 512 images take 1.4 kB a set of predictions, 50,000 take 140 kB. How far the first class leads stands
under ``leads`` likewise, as float32, 2.7 kB a row for 512 images; files without them are read as before.

Image ids are kept as a digest only; their order is that of the sorted ids.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.record.case import Case
from bench.record.files import file_name, plain, write_text
from bench.run.images import DEMO_DATA
from bench.run.spec import RunSpec
from bench.studies.check.snapshot import Row, Snapshot, Timed, array_digest
from pipelines.imagenet.find import DEMO_MARKER
from scarlet.errors import BenchError, error_text
from scarlet.files import read_json

Values = NDArray[np.int16] | NDArray[np.float32]

SCHEMA = 1
FOLDER = Path("results") / "baselines"
LINE_BYTES = 96  # 48 images, 128 characters
KEY_LENGTH = 16
MAKE = "scarlet-bench baseline"

# Fields of a row that are written as they are.
AS_THEY_ARE = ("top1_right", "top5_right", "predictions_sha256", "input_sha256", "no_accuracy")
DATASET = ("fingerprint", "n_images", "n_images_in_set", "is_demo", "layout")


def default_path(model: str, is_demo: bool) -> Path:
    """``results/baselines/<model>.json``, with ``-demo`` after the model where the images are the demo set's."""
    return FOLDER / f"{file_name(model)}{'-demo' if is_demo else ''}.json"


def is_demo(data: str | None) -> bool:
    """Whether a run on this folder, as of ``RunSpec.data``, would be one on demo images."""
    return data is None or (Path(data).expanduser() / DEMO_MARKER).is_file()


def write(snapshot: Snapshot, path: Path) -> tuple[Row | Timed, ...]:
    """Writes a baseline of a run's rows that are ok.

    Returns:
        the rows left out, because they are not ok.

    Raises:
        BenchError: no accuracy row is ok, or the file cannot be written.
    """
    kept = [row for row in snapshot.rows if row.top1 is not None]
    if not kept:
        reasons = "; ".join(f"{row.case.label}: {row.status.value}, {row.reason}" for row in snapshot.rows)
        what = f"{snapshot.name} has no accuracy row to make a baseline of{f' ({reasons})' if reasons else ''}"
        raise BenchError(what, "Run with --scenarios accuracy, and see that its rows are ok.")
    dataset = {name: snapshot.dataset.get(name) for name in DATASET} | {"n_images": snapshot.n_images}
    content = {
        "schema": SCHEMA,
        **{name: getattr(snapshot, name) for name in ("model", "packages", "weights", "reference")},
        "created_at": snapshot.info.get("created_at") or "",
        "revision": snapshot.info.get("git") or {},
        "host": {name: (snapshot.info.get("host") or {}).get(name) for name in ("cpu_model", "fingerprint")},
        "settings": _settings(snapshot),
        "dataset": {**dataset, "ids_sha256": snapshot.ids_sha256, "labels_sha256": array_digest(snapshot.labels)},
        "accuracy": [
            _named(row.case)
            | {name: getattr(row, name) for name in ("n_images", *AS_THEY_ARE)}
            | {"top1": _key(row.top1), "leads": row.margin if row.margin is None else _key(row.margin)}
            for row in sorted(kept, key=lambda row: row.case)
            if row.top1 is not None
        ],
        "latency": [
            _named(row.case)
            | {"reference": row.reference.to_dict()}
            | {"ratio": row.ratio, "ratio_low": row.low, "ratio_high": row.high}
            for row in sorted(snapshot.timed, key=lambda row: row.case)
            if row.ratio is not None and row.reference is not None
        ],
        "labels": _packed(snapshot.labels),
        "predictions": {_key(row.top1): _packed(row.top1) for row in kept if row.top1 is not None},
        "leads": {_key(row.margin): _packed(row.margin) for row in kept if row.margin is not None},
    }
    write_text(path, json.dumps(plain(content), indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    return (*(row for row in snapshot.rows if row.top1 is None), *(row for row in snapshot.timed if row.ratio is None))


def _named(case: Case) -> dict[str, Any]:
    return {"case_id": case.case_id, "case": case.to_dict()}


def _settings(snapshot: Snapshot) -> dict[str, Any]:
    """The run's settings, without paths that mean something on one machine only where that can be helped."""
    stored = dict(snapshot.info.get("settings") or {})
    root = snapshot.dataset.get("root")
    demo_root = DEMO_DATA / str(snapshot.dataset.get("n_images_in_set"))
    if snapshot.dataset.get("is_demo") and root and Path(str(root)) == demo_root.resolve():
        stored["data"] = None
    return RunSpec.from_dict(stored).located(_from_here).to_dict() | {"images": str(snapshot.n_images)}


def _from_here(path: str) -> str:
    folder = Path.cwd()
    return Path(path).relative_to(folder).as_posix() if Path(path).is_relative_to(folder) else path


def _key(values: Values) -> str:
    return hashlib.sha256(_little(values)).hexdigest()[:KEY_LENGTH]


def _little(values: Values) -> bytes:
    return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).tobytes()


def _packed(values: Values) -> list[str]:
    raw = _little(values)
    starts = range(0, len(raw), LINE_BYTES)
    return [base64.b64encode(raw[start : start + LINE_BYTES]).decode("ascii") for start in starts]


def _unpacked(lines: Sequence[str], dtype: str = "<i2") -> Any:
    raw = b"".join(base64.b64decode(line, validate=True) for line in lines)
    return np.frombuffer(raw, dtype=dtype).astype(dtype[1:])


def read(path: Path) -> Snapshot:
    """Reads a baseline, and checks its digests.

    Raises:
        BenchError: it is missing, no baseline, of a newer version, or not what was written.
    """
    try:
        content = read_json(path)
        schema = content.get("schema")
        if isinstance(schema, int) and schema > SCHEMA:
            raise BenchError(f"{path} was written by a newer scarlet-bench", f"Update it, or make it again: {MAKE}.")
        return _snapshot(content, path)
    except OSError as error:
        raise BenchError(f"the baseline {path} cannot be read: {error.strerror}", f"Make one with: {MAKE}.") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{path} is no baseline, or was edited: {error_text(error)}"
        raise BenchError(what, f"Restore it, or make it again: {MAKE}.") from None


def _snapshot(content: Mapping[str, Any], path: Path) -> Snapshot:
    dataset = content["dataset"]
    labels = _unpacked(content["labels"])
    if array_digest(labels) != dataset["labels_sha256"] or len(labels) != dataset["n_images"]:
        raise ValueError("its labels are not those that its digest was made of")
    known = {key: _unpacked(lines) for key, lines in content["predictions"].items()}
    leads = {key: _unpacked(lines, "<f4") for key, lines in content.get("leads", {}).items()}
    for key, values in (*known.items(), *leads.items()):
        if _key(values) != key or len(values) != len(labels):
            raise ValueError(f"the predictions {key} are not those that their digest was made of")
    rows = tuple(
        Row(
            Case.from_dict(row["case"]),
            top1=known[row["top1"]],
            margin=leads[row["leads"]] if row.get("leads") else None,
            **{name: row[name] for name in AS_THEY_ARE},
        )
        for row in content["accuracy"]
    )
    timed = []
    for row in content["latency"]:
        case, reference = Case.from_dict(row["case"]), Case.from_dict(row["reference"])
        timed.append(Timed(case, reference, float(row["ratio"]), row["ratio_low"], row["ratio_high"]))
    info = {"settings": content["settings"], "git": content["revision"], "host": content["host"]}
    return Snapshot(
        name=path.name,
        model=content["model"],
        dataset=dataset,
        ids_sha256=dataset["ids_sha256"],
        labels=labels,
        weights=content["weights"],
        rows=rows,
        timed=tuple(timed),
        packages=content["packages"],
        info={**info, "created_at": content["created_at"]},
        reference=dict(content.get("reference") or {}),
    )


def spec_of(
    baseline: Snapshot, data: str | None = None, checkpoint: str | None = None, latency: bool = False
) -> RunSpec:
    """What repeats the run of a baseline: accuracy, and the timed scenarios it holds where asked for; ``data`` and
    ``checkpoint`` are other places of the same images and weights.
    """
    spec = RunSpec.from_dict(baseline.info["settings"])
    timed = dict.fromkeys(row.case.scenario for row in baseline.timed) if latency else {}
    return spec.but(
        scenarios=("accuracy", *timed),
        images=baseline.n_images,
        data=data or spec.data,
        checkpoint=checkpoint or spec.checkpoint,
    )
