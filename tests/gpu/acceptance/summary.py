"""Writes down what a GPU check found: figures against their targets, one table of all rows, their proofs, the host."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.analysis.table import load_frame
from bench.record.files import plain, write_text
from bench.record.run_folder import RunFolder
from bench.report.markdown import escaped
from tests.gpu.acceptance.carry_out import Record
from tests.gpu.acceptance.evidence import gather, run_folders
from tests.gpu.acceptance.figures import Evidence, Figure, judge
from tests.gpu.acceptance.machine import GpuMachine

if TYPE_CHECKING:
    import pandas as pd

SUMMARY_JSON, SUMMARY = "summary.json", "summary.md"
TABLE_CSV, TABLE = "table.csv", "table.md"
PROOF, HOST = "proof.json", "host.json"

# Columns of the table for people: all others are in the CSV file.
SHOWN = {
    "scenario": "scenario",
    "backend": "backend",
    "device": "device",
    "precision": "precision",
    "pipeline": "pipeline",
    "batch": "batch",
    "options": "options",
    "status": "status",
    "latency_ns_p50": "p50 ms",
    "throughput_images_per_s": "images/s",
    "top1_percent": "top-1 %",
    "agreement_percent": "same top-1 %",
    "reason": "reason",
}


def write(folder: Path, machine: GpuMachine, records: Sequence[Record]) -> tuple[Figure, ...]:
    """Makes all files of the folder that are derived from its steps, anew.

    Args:
        folder: of the check.
        machine: whose GPU it ran on.
        records: how its steps ended so far.

    Returns:
        the figures.

    Raises:
        BenchError: the disk is full or not writable.
    """
    runs = run_folders(folder)
    evidence = gather(folder, records)
    figures = judge(evidence)
    _write_table(folder, runs)
    _write_proof(folder, runs)
    whole = {
        "gpu": asdict(machine),
        "figures": [asdict(figure) for figure in figures],
        "evidence": asdict(evidence),
        "steps": [asdict(record) for record in records],
        "runs": {name: path.name for name, path in runs.items()},
    }
    write_text(folder / SUMMARY_JSON, json.dumps(plain(whole), indent=1, allow_nan=False) + "\n")
    write_text(folder / SUMMARY, "\n".join(text(machine, figures, evidence, records, runs)) + "\n")
    return figures


def text(
    machine: GpuMachine,
    figures: Sequence[Figure],
    evidence: Evidence,
    records: Sequence[Record],
    runs: Mapping[str, Path],
) -> Iterator[str]:
    """The lines of ``summary.md``."""
    yield f"# GPU check: {escaped(machine.name)}"
    yield ""
    yield (
        f"Compute capability {escaped(machine.capability)}, PyTorch {escaped(machine.torch)} for CUDA "
        f"{escaped(machine.cuda)}. Demo images and demo weights: no ImageNet accuracy."
    )
    yield ""
    yield "| figure | target | measured | verdict | |"
    yield "|---|---|---|---|---|"
    for figure in figures:
        cells = (figure.name, figure.target, figure.value, figure.verdict, figure.why)
        yield f"| {' | '.join(map(escaped, cells))} |"
    yield ""
    yield f"All rows: [{TABLE}]({TABLE}), [{TABLE_CSV}]({TABLE_CSV}). What executed in each: [{PROOF}]({PROOF})."
    if evidence.decoding:
        yield ""
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in sorted(evidence.decoding.items()))
        yield f"Images a second of each pipeline by itself: {escaped(rates)}."
    yield ""
    yield "## Steps"
    yield ""
    yield "| step | status | seconds | |"
    yield "|---|---|---|---|"
    for record in records:
        link = f"[{record.name}]({record.name}/report.md)" if record.name in runs else escaped(record.name)
        yield f"| {link} | {record.status} | {record.seconds:.0f} | {escaped(record.reason)} |"


def _write_table(folder: Path, runs: Mapping[str, Path]) -> None:
    """All rows of all runs, as CSV with every column, and as Markdown with some."""
    import pandas as pd

    frames = [load_frame(path).assign(run=name) for name, path in runs.items()]
    if not frames:
        return
    whole = pd.concat(frames, ignore_index=True)
    write_text(folder / TABLE_CSV, whole.to_csv(index=False, lineterminator="\n"))
    write_text(folder / TABLE, "\n".join(_table_lines(whole)) + "\n")


def _table_lines(frame: pd.DataFrame) -> Iterator[str]:
    yield f"| {' | '.join(SHOWN.values())} |"
    yield f"|{'---|' * len(SHOWN)}"
    for row in frame.to_dict("records"):
        yield f"| {' | '.join(escaped(_cell(name, row[name])) for name in SHOWN)} |"


def _cell(name: str, value: Any) -> str:
    import pandas as pd

    if pd.isna(value):
        return ""
    if name == "latency_ns_p50":
        return f"{value / 1e6:.4g}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _write_proof(folder: Path, runs: Mapping[str, Path]) -> None:
    """What executed in each row, and the host as the first run saw it."""
    proofs: dict[str, dict[str, Any]] = {}
    for name, path in runs.items():
        for result in RunFolder(path).case_results():
            proofs.setdefault(name, {})[result.case.case_id] = {
                "case": result.case.label,
                "status": result.status.value,
                "reason": result.reason,
                "proof": plain(result.proof),
            }
    write_text(folder / PROOF, json.dumps(proofs, indent=1, allow_nan=False) + "\n")
    for path in runs.values():
        info = RunFolder(path).read_run_info()
        kept = {
            key: info[key] for key in ("host", "packages", "git", "dataset", "model_files") if key in info
        }
        write_text(folder / HOST, json.dumps(kept, indent=1, allow_nan=False) + "\n")
        return
