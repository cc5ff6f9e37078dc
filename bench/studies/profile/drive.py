"""`profile`: has a worker measure a Case layer by layer, and shows what each takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter
from rich.console import Console

from bench import host
from bench.backends import REGISTRY, facts
from bench.backends.base import ModelFiles
from bench.backends.profiler import CALLS_PER_TURN, Recording
from bench.record.case import Case, checked_names
from bench.record.files import plain, write_text
from bench.record.machine import lookup_peaks
from bench.report.data import write_csv
from bench.report.document import Column, Document, Head, notes, number_cell, rounded_cell, table_of
from bench.report.text import number
from bench.run.images import working
from bench.run.model_files import CHECK_IMAGES
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.profile.layers import Joined, join_case
from bench.worker import channel
from bench.worker.pixel_parity import Request
from scarlet.errors import BenchError

# Each call leaves as many samples as the network has nodes, all of which are held in memory.
MOST_REPEATS = 5000

# Of a usual call's time within nodes: undisturbed, medians of nodes add up to nearly all of it.
DISTURBED_BELOW = 0.9


@dataclass(frozen=True)
class Row:
    """A layer, or what the runtime does besides. All figures are for one call, the whole batch.

    Attributes:
        name: of the layers; ``(runtime) ...`` where it is none of the model's.
        ops: the runtime's operators, with the kernels where it names them.
        median_ns: median over the calls of the time of all its nodes together.
        share_percent: of the sum of all rows.
        multiply_adds: None where unknown, and of the runtime's own.
        gflop_per_s: 10**9 operations a second, a multiply-add counted as two; None where nothing is computed.
        peak_percent: of what the machine reached in this precision on as many threads; None where that is not stored.
    """

    name: str
    ops: tuple[str, ...]
    nodes: int
    joined: bool
    median_ns: float
    share_percent: float
    multiply_adds: int | None
    gflop_per_s: float | None
    peak_percent: float | None


@dataclass(frozen=True)
class Profile:
    """What was found; ``rows`` in the model's order, the runtime's own last; ``totals`` as of ``totals_of``."""

    case: Case
    rows: tuple[Row, ...]
    totals: Mapping[str, float]
    peak_gflop_per_s: float | None
    recording: Recording

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the samples."""
        names = ("totals", "peak_gflop_per_s", "rows")
        found: dict[str, Any] = plain({"case": self.case.to_dict(), **{name: getattr(self, name) for name in names}})
        return found


def run(spec: RunSpec, repeats: int, console: Console) -> Profile:
    """Profiles one Case.

    Args:
        spec: of one backend, precision, batch and number of threads.
        repeats: calls with profiling, and as many without.

    Raises:
        BenchError: options, data or checkpoint are at fault, or the backend cannot run such a Case.
    """
    if not CALLS_PER_TURN <= repeats <= MOST_REPEATS:
        raise BenchError(
            f"--repeats {repeats} is not from {CALLS_PER_TURN} to {MOST_REPEATS}", "Write for example --repeats 50."
        )
    checked_names("backend to profile", spec.backends, [name for name in REGISTRY if facts(name).profiler])
    spec.only_case()  # several values are told before anything slow begins
    with Session.scratch(spec.but(images=CHECK_IMAGES), console) as session:
        files = session.require()
        case = session.spec.only_case()
        with working(console, f"profiling {case.backend}"):
            recording = record(session, case, files, repeats)
    # Nobody measures the peaks of a GPU.
    peak = None if case.device != "cpu" else peak_of(lookup_peaks(host.fingerprint(host.describe_host())), case)
    rows = tuple(rows_of(join_case(case, files, recording.nodes), case.batch, peak))
    return Profile(case, rows, totals_of(recording, rows), peak, recording)


def record(session: Session, case: Case, files: ModelFiles, repeats: int) -> Recording:
    """Has a worker of its own measure, while this process waits.

    Raises:
        BenchError: the backend cannot run the Case, or the worker died or took too long.
    """
    images = [(image.image_id, image.label) for image in session.images]
    request = asdict(Request(case.pipeline, str(session.root), images, files=files))
    message = {"do": "profile", "case": case.to_dict(), "request": request, "repeats": repeats}
    log = session.folder.log_path("profile")
    try:
        answer = channel.ask_once(message, log, case.threads, session.spec.timeout_seconds)
    except channel.WorkerFailed as failure:
        do = failure.do or "Try a smaller --batch or another backend, change the options or install what is missing."
        raise BenchError(f"{case.backend} cannot be profiled: {failure.reason}", do) from None
    return TypeAdapter(Recording).validate_python(answer["recording"])


def peak_of(peaks: Sequence[Mapping[str, Any]], case: Case) -> float | None:
    """What the machine reached in the Case's precision on its threads, GFLOP/s, of ``machine.lookup_peaks``."""
    reached = (peak["gflop_per_s"].get(case.precision) for peak in peaks if peak["threads"] == case.threads)
    return next(filter(None, reached), None)


def rows_of(joined: Sequence[Joined], batch: int, peak_gflop_per_s: float | None) -> list[Row]:
    """The rows in the model's order, the runtime's own last."""
    samples = [np.sum([node.samples_ns for node in each.nodes], axis=0) for each in joined]
    medians = [max(0.0, float(np.median(times))) for times in samples]
    total = sum(medians)
    rows = []
    for each, median_ns in zip(joined, medians, strict=True):
        multiply_adds = None if each.multiply_adds is None else each.multiply_adds * batch
        reached = 2.0 * multiply_adds / median_ns if multiply_adds and median_ns else None
        rows.append(
            Row(
                name=each.name,
                ops=tuple(dict.fromkeys(" ".join(filter(None, (node.op, node.kernel))) for node in each.nodes)),
                nodes=len(each.nodes),
                joined=bool(each.members),
                median_ns=median_ns,
                share_percent=100.0 * median_ns / total if total else 0.0,
                multiply_adds=multiply_adds,
                gflop_per_s=reached,
                peak_percent=100.0 * reached / peak_gflop_per_s if reached and peak_gflop_per_s else None,
            )
        )
    return rows


def totals_of(recording: Recording, rows: Sequence[Row]) -> dict[str, float]:
    """The sum of the rows, beside what whole calls took.

    Returns:
        ``rows_ns``: sum of the rows' medians, of which ``unjoined_ns`` is none of the model's; ``plain_ns``,
        ``plain_cpu_ns``: median of the calls without profiling, and of their processor time, of all threads;
        ``profiled_ns``: likewise with it; ``within_nodes_percent``: of a profiled call, what lies within nodes (the
        rest is the runtime's way from node to node, and the copying of inputs and outputs), median over the samples;
        ``overhead_percent``: what profiling adds to a call, median over the turns of the ratio of their medians, less
        1; ``samples`` of each row.
    """
    plain_calls, profiled = np.array(recording.plain_ns, float), np.array(recording.profiled_ns, float)
    within = np.sum([node.samples_ns for node in recording.nodes], axis=0) / profiled.ravel()
    ratios = np.median(profiled, axis=1) / np.median(plain_calls, axis=1)
    return {
        "rows_ns": sum(row.median_ns for row in rows),
        "unjoined_ns": sum(row.median_ns for row in rows if not row.joined),
        "plain_ns": float(np.median(plain_calls)),
        "plain_cpu_ns": float(np.median(recording.plain_cpu_ns)),
        "profiled_ns": float(np.median(profiled)),
        "within_nodes_percent": 100.0 * float(np.median(within)),
        "overhead_percent": 100.0 * (float(np.median(ratios)) - 1.0),
        "samples": profiled.size,
    }


def document(profile: Profile, most: int) -> Document:
    """The slowest rows, or all of them in the model's order, and what their sum is worth.

    Args:
        most: rows of the table; 0 for all.
    """
    case = profile.case
    options = "".join(f", {name}={value}" for name, value in case.options)
    place = "GPU" if case.device == "cuda" else f"{case.threads} threads"
    title = f"{case.model}, {case.backend} {case.precision}, batch {case.batch}, {place}{options}"
    rows = sorted(profile.rows, key=lambda row: -row.median_ns)[:most] if most else list(profile.rows)
    lines = sentences(profile)
    if hidden := len(profile.rows) - len(rows):
        share = 100.0 - sum(row.share_percent for row in rows)
        lines = [f"{hidden} more rows: {share:.1f} % (--top 0 for all)", *lines]
    frame = pd.DataFrame([{**asdict(row), "ops": "; ".join(row.ops)} for row in profile.rows], dtype=object)
    return Document(title, [table_of(title, COLUMNS, rows), *notes(lines)], profile.to_dict(), {"rows": frame})


# An empty cell is an unknown or meaningless figure.
COLUMNS: list[Column[Row]] = [
    Column(Head("layer", folds=True), lambda row: row.name),
    Column(Head("us", True), lambda row: number_cell(row.median_ns / 1e3)),
    Column(Head("%", True), lambda row: rounded_cell(row.share_percent, ".1f")),
    Column(Head("M mult-adds", True), lambda row: number_cell(row.multiply_adds / 1e6 if row.multiply_adds else None)),
    Column(Head("GFLOP/s", True), lambda row: number_cell(row.gflop_per_s)),
    Column(Head("% of peak", True), lambda row: rounded_cell(row.peak_percent, ".1f"), "known"),
    Column(Head("runs as", folds=True), lambda row: f"{row.nodes} x " * (row.nodes > 1) + ", ".join(row.ops)),
]


def sentences(profile: Profile) -> list[str]:
    """What stands below the table."""
    totals, resolution_ns = profile.totals, profile.recording.resolution_ns
    ms = {name: f"{number(value / 1e6)} ms" for name, value in totals.items() if name.endswith("_ns")}
    unjoined_percent = 100.0 * totals["unjoined_ns"] / totals["rows_ns"] if totals["rows_ns"] else 0.0
    lines = [
        f"the rows add up to {ms['rows_ns']}, each the median of {totals['samples']} calls",
        f"a call takes {ms['plain_ns']} without profiling ({ms['plain_cpu_ns']} of processor time) and "
        f"{ms['profiled_ns']} with it; turn against turn, profiling adds {totals['overhead_percent']:.1f} %",
        f"{totals['within_nodes_percent']:.1f} % of a profiled call lie within these rows",
        f"joined to no layer: {ms['unjoined_ns']} ({unjoined_percent:.1f} % of the rows)",
    ]
    if totals["rows_ns"] < DISTURBED_BELOW * totals["profiled_ns"] * totals["within_nodes_percent"] / 100.0:
        lines.append(
            "something else kept the processor busy: a pause hits another row in each call, so that medians of rows "
            "leave it out and whole calls do not; on one thread, compare the sum with the processor time"
        )
    if resolution_ns > 1:
        lines.append(f"the runtime's clock has steps of {resolution_ns / 1e3:g} us")
    if profile.peak_gflop_per_s is None and profile.case.device == "cpu":
        lines.append(
            "no peak is stored for this machine, precision and number of threads: `scarlet-bench doctor --peak`"
        )
    return lines


def write(profile: Profile, out: Path) -> None:
    """Writes ``profile.json`` (with every sample) and ``profile.csv`` (the rows) into a folder.

    Raises:
        BenchError: the folder cannot be written.
    """
    content = {**profile.to_dict(), "recording": plain(profile.recording)}
    write_text(out / "profile.json", json.dumps(content) + "\n")
    write_csv(document(profile, 0).frames["rows"], out / "profile.csv")
