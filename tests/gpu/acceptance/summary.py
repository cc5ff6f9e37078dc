"""Writes down what a GPU check measured: figures against their targets, all rows, what executed in each, the host."""

import io
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.analysis.table import load_frame
from bench.record.case import Status
from bench.record.files import plain, write_text
from bench.record.run_folder import RunFolder
from bench.report.data import write_csv
from bench.report.document import Cell, Column, Document, Head, Note, notes, table_of
from bench.report.forms import write_document
from bench.report.tables import tables
from tests.gpu.acceptance.judge import Figure, judge, run_folders
from tests.gpu.acceptance.steps import Record

SUMMARY_JSON, SUMMARY = "summary.json", "summary.md"
TABLE_CSV, TABLE = "table.csv", "table.md"
PROOF, HOST = "proof.json", "host.json"
PACKED, PART_BYTES = "packed", 16 * 2**20

FIGURE_COLUMNS = (
    Column[Figure](Head("figure"), lambda figure: figure.name),
    Column[Figure](Head("target"), lambda figure: figure.target),
    Column[Figure](Head("measured"), lambda figure: Cell(figure.value, value=figure.number)),
    Column[Figure](Head("verdict"), lambda figure: figure.verdict),
    Column[Figure](Head("why"), lambda figure: figure.why),
)
STEP_COLUMNS = (
    Column[Record](Head("step"), lambda record: record.name),
    Column[Record](Head("status"), lambda record: record.status),
    Column[Record](Head("seconds", True), lambda record: Cell(f"{record.seconds:.0f}", value=record.seconds)),
    Column[Record](Head("why"), lambda record: record.reason),
)


def write(folder: Path, machine: Mapping[str, str], records: Sequence[Record]) -> tuple[Figure, ...]:
    """Makes all files of the folder that are derived from its steps, anew.

    Args:
        folder: of the check.
        machine: the GPU and PyTorch, as returned by ``find_gpu``.
        records: how its steps ended so far.

    Returns:
        the figures.

    Raises:
        BenchError: the disk is full or not writable.
    """
    runs = run_folders(folder)
    figures = judge(folder, records)
    _write_table(folder, runs)
    _write_proof(folder, runs)
    data = {
        "gpu": dict(machine),
        "figures": [asdict(figure) for figure in figures],
        "steps": [asdict(record) for record in records],
        "runs": {name: path.name for name, path in runs.items()},
    }
    _write_json(folder / SUMMARY_JSON, data)
    write_document(_summary(machine, figures, records), folder / SUMMARY)
    return figures


def all_ok(folder: Path, records: Sequence[Record]) -> bool:
    """Whether every step, and every row of every run, is ok: a package that is missing makes rows ``unavailable``."""
    rows = [result for path in run_folders(folder).values() for result in RunFolder(path).case_results()]
    return all(record.status == "ok" for record in records) and all(row.status == Status.OK for row in rows)


def pack(folder: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Packs all that a check left into ``packed/``: ``cat results.tar.xz.* | tar -xJ`` gives it back.

    The same files give the same bytes.

    Args:
        part_bytes: what a part holds at most; few machines without a network hand out larger files.

    Returns:
        the parts.
    """
    packed = folder / PACKED
    shutil.rmtree(packed, ignore_errors=True)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:xz", preset=6) as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            about = tar.gettarinfo(path, str(Path(folder.name) / path.relative_to(folder)))
            about.mtime = about.uid = about.gid = 0
            about.uname = about.gname = ""
            with path.open("rb") as content:
                tar.addfile(about, content)
    data, parts = archive.getvalue(), list[Path]()
    packed.mkdir()
    for start in range(0, len(data), part_bytes):
        parts.append(packed / f"results.tar.xz.{len(parts):03}")
        parts[-1].write_bytes(data[start : start + part_bytes])
    return parts


def _summary(machine: Mapping[str, str], figures: Sequence[Figure], records: Sequence[Record]) -> Document:
    about = "Compute capability {capability}, PyTorch {torch} for CUDA {cuda}".format_map(machine)
    files = f"All rows: {TABLE}, {TABLE_CSV}. What executed in each: {PROOF}. A run's own report: STEP/report.md."
    return Document(
        f"GPU check: {machine['name']}",
        (
            Note("Demo images and demo weights: no ImageNet accuracy.", "mark"),
            table_of("Figures", FIGURE_COLUMNS, figures),
            table_of("Steps", STEP_COLUMNS, records),
            *notes((f"{about}.", files)),
        ),
    )


def _write_table(folder: Path, runs: Mapping[str, Path]) -> None:
    """All rows of all runs, as CSV with every column, and as Markdown for people."""
    import pandas as pd

    frames = {name: load_frame(path) for name, path in runs.items()}
    if not frames:
        return
    whole = pd.concat([frame.assign(run=name) for name, frame in frames.items()], ignore_index=True)
    write_csv(whole, folder / TABLE_CSV)
    shown = [
        replace(table, title=f"{name}: {table.title}") for name, frame in frames.items() for table in tables(frame)
    ]
    write_document(Document("GPU check: all rows", shown), folder / TABLE)


def _write_proof(folder: Path, runs: Mapping[str, Path]) -> None:
    """What executed in each row, and the host as the first run saw it."""
    proofs: dict[str, dict[str, Any]] = {}
    for name, path in runs.items():
        for result in RunFolder(path).case_results():
            proofs.setdefault(name, {})[result.case.case_id] = {
                "case": result.case.label,
                "status": result.status.value,
                "reason": result.reason,
                "proof": result.proof,
            }
    _write_json(folder / PROOF, proofs)
    for path in [*runs.values()][:1]:
        info = RunFolder(path).read_run_info()
        names = ("host", "packages", "git", "dataset", "model_files")
        _write_json(folder / HOST, {name: info[name] for name in names if name in info})


def _write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(plain(data), indent=1, allow_nan=False) + "\n")
