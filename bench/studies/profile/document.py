"""The rows of a profile: times, shares, and what the roofline model says of them. No torch, no runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.backends.profiler import Recording
from bench.record.case import Case
from bench.record.files import plain
from bench.report.document import Cell, Column, Document, Head, notes, number_cell, table_of
from bench.report.text import number
from bench.studies.profile.layers import Joined, block_names, short_name

BY = ("layer", "block")

# Of a usual call's time within nodes: undisturbed, medians of nodes add up to nearly all of it.
DISTURBED_BELOW = 0.9


@dataclass(frozen=True)
class Ridge:
    """Where a machine's roofline bends: the arithmetic intensity from which on arithmetic is the limit.

    Attributes:
        gflop_per_s: measured peak in the Case's precision on its threads.
        copy_gbyte_per_s: measured peak of copying memory.
    """

    gflop_per_s: float
    copy_gbyte_per_s: float

    @property
    def flop_per_byte(self) -> float:
        """The intensity at the ridge point."""
        return self.gflop_per_s / self.copy_gbyte_per_s


@dataclass(frozen=True)
class Row:
    """A layer, a block, or what the runtime does besides. All figures are for one call, the whole batch.

    Attributes:
        name: of the layers; ``(runtime) ...`` where it is none of the model's.
        block: see ``bench.studies.profile.layers.block_names``.
        ops: the runtime's operators, with the kernels where it names them.
        median_ns: median over the calls of the time of all its nodes together.
        share_percent: of the sum of all rows.
        multiply_adds: None where unknown, and of the runtime's own.
        bytes_moved: what its nodes read and write, in the types in which they ran; None where unknown.
        side: ``left`` or ``right`` of the ridge point; empty without a measured peak, or where nothing is computed.
    """

    name: str
    block: str
    ops: tuple[str, ...]
    nodes: int
    joined: bool
    median_ns: float
    share_percent: float
    multiply_adds: int | None
    bytes_moved: int | None
    side: str = ""

    @property
    def gflop_per_s(self) -> float | None:
        """10**9 operations a second, a multiply-add counted as two; None where nothing is computed."""
        if not self.multiply_adds or not self.median_ns:
            return None
        return 2.0 * self.multiply_adds / self.median_ns

    @property
    def flop_per_byte(self) -> float | None:
        """Arithmetic intensity; None where nothing is computed or the bytes are not known."""
        return _intensity(self.multiply_adds, self.bytes_moved)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, the derived figures included."""
        derived = {"gflop_per_s": self.gflop_per_s, "flop_per_byte": self.flop_per_byte}
        return {**asdict(self), "ops": list(self.ops), **derived}


@dataclass(frozen=True)
class Totals:
    """The sum of the rows, beside what whole calls took.

    Attributes:
        rows_ns: sum of the rows' medians.
        unjoined_ns: of these, the rows that are none of the model's.
        plain_ns: median of the calls without profiling.
        plain_cpu_ns: median of their processor time, of all threads.
        profiled_ns: median of the calls with profiling.
        within_nodes_percent: of a profiled call, what lies within nodes: median over the samples. The rest is the
            runtime's way from node to node, and the copying of inputs and outputs.
        overhead_percent: what profiling adds to a call: median over the turns of the ratio of their medians, less 1.
        samples: of each row.
    """

    rows_ns: float
    unjoined_ns: float
    plain_ns: float
    plain_fastest_ns: float
    plain_cpu_ns: float
    profiled_ns: float
    profiled_fastest_ns: float
    within_nodes_percent: float
    overhead_percent: float
    samples: int

    @property
    def disturbed(self) -> bool:
        """Whether the rows' medians fall short of what lies within the nodes of a usual call."""
        return self.rows_ns < DISTURBED_BELOW * self.profiled_ns * self.within_nodes_percent / 100.0

    @property
    def unjoined_percent(self) -> float:
        """Share of the rows that are none of the model's."""
        return 100.0 * self.unjoined_ns / self.rows_ns if self.rows_ns else 0.0


def rows_of(joined: Sequence[Joined], batch: int, ridge: Ridge | None, by: str = "layer") -> list[Row]:
    """The rows in the model's order, the runtime's own last.

    Args:
        by: ``layer``, or ``block`` to add up the layers of each block.
    """
    blocks = block_names(joined)
    groups: dict[str, list[tuple[Joined, str]]] = {}
    for row, block in zip(joined, blocks, strict=True):
        groups.setdefault(block if by == "block" else row.layer, []).append((row, block))
    samples = {name: [node.samples_ns for row, _ in group for node in row.nodes] for name, group in groups.items()}
    medians = {name: max(0.0, float(np.median(np.sum(times, axis=0)))) for name, times in samples.items()}
    total = sum(medians.values())
    rows = []
    for name, group in groups.items():
        parts = [row for row, _ in group]
        multiply_adds = _sum([row.multiply_adds for row in parts], batch)
        bytes_moved = _sum([node.bytes_moved for row in parts for node in row.nodes])
        rows.append(
            Row(
                name=name if by == "block" else short_name(parts[0]),
                block=group[0][1],
                ops=_ops(parts),
                nodes=sum(len(row.nodes) for row in parts),
                joined=parts[0].is_joined,
                median_ns=medians[name],
                share_percent=100.0 * medians[name] / total if total else 0.0,
                multiply_adds=multiply_adds,
                bytes_moved=bytes_moved,
                side=_side(_intensity(multiply_adds, bytes_moved), ridge),
            )
        )
    return rows


def _sum(values: Sequence[int | None], times: int = 1) -> int | None:
    """None where one of them is not known: a sum without it would be too small."""
    known = [value for value in values if value is not None]
    return sum(known) * times if known and len(known) == len(values) else None


def _ops(rows: Sequence[Joined]) -> tuple[str, ...]:
    named = (" ".join(filter(None, (node.op, node.kernel))) for row in rows for node in row.nodes)
    return tuple(dict.fromkeys(named))


def _intensity(multiply_adds: int | None, bytes_moved: int | None) -> float | None:
    return 2.0 * multiply_adds / bytes_moved if multiply_adds and bytes_moved else None


def _side(flop_per_byte: float | None, ridge: Ridge | None) -> str:
    if flop_per_byte is None or ridge is None:
        return ""
    return "left" if flop_per_byte < ridge.flop_per_byte else "right"


def totals_of(recording: Recording, rows: Sequence[Row]) -> Totals:
    """The sum of the rows, and what it is to be compared with."""
    plain, profiled = np.array(recording.plain_ns, float), np.array(recording.profiled_ns, float)
    within = np.sum([node.samples_ns for node in recording.nodes], axis=0) / profiled.ravel()
    ratios = np.median(profiled, axis=1) / np.median(plain, axis=1)
    return Totals(
        rows_ns=sum(row.median_ns for row in rows),
        unjoined_ns=sum(row.median_ns for row in rows if not row.joined),
        plain_ns=float(np.median(plain)),
        plain_fastest_ns=float(np.min(plain)),
        plain_cpu_ns=float(np.median(recording.plain_cpu_ns)),
        profiled_ns=float(np.median(profiled)),
        profiled_fastest_ns=float(np.min(profiled)),
        within_nodes_percent=100.0 * float(np.median(within)),
        overhead_percent=100.0 * (float(np.median(ratios)) - 1.0),
        samples=profiled.size,
    )


def ridge_of(peaks: Sequence[Mapping[str, Any]], precision: str, threads: int) -> Ridge | None:
    """The ridge point for a precision on as many threads; None where it was not measured.

    Args:
        peaks: as returned by ``machine.lookup_peaks``.
    """
    for peak in peaks:
        reached = peak["gflop_per_s"].get(precision)
        if peak["threads"] == threads and reached and peak.get("copy_gbyte_per_s"):
            return Ridge(float(reached), float(peak["copy_gbyte_per_s"]))
    return None


@dataclass(frozen=True)
class Profile:
    """What was found; ``rows``: by layer or block, in the model's order, the runtime's own last."""

    case: Case
    rows: tuple[Row, ...]
    totals: Totals
    ridge: Ridge | None
    recording: Recording
    by: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, without the samples."""
        ridge = None if self.ridge is None else {**asdict(self.ridge), "flop_per_byte": self.ridge.flop_per_byte}
        totals = {**asdict(self.totals), "unjoined_percent": self.totals.unjoined_percent}
        rows = [row.to_dict() for row in self.rows]
        found: dict[str, Any] = plain(
            {"case": self.case.to_dict(), "by": self.by, "totals": totals, "ridge": ridge, "rows": rows}
        )
        return found


def document(profile: Profile, most: int) -> Document:
    """The slowest rows, or all of them in the model's order, and what their sum is worth.

    Args:
        most: rows of the table; 0 for all.
    """
    case = profile.case
    options = ", ".join(f"{name}={value}" for name, value in case.options)
    title = f"{case.model}, {case.backend} {case.precision}, batch {case.batch}, {case.threads} threads"
    title = f"{title}{', ' + options if options else ''}, by {profile.by}"
    rows = sorted(profile.rows, key=lambda row: -row.median_ns)[:most] if most else list(profile.rows)
    lines = sentences(profile.totals, profile.ridge, profile.recording.resolution_ns)
    if len(rows) < len(profile.rows):
        share = sum(row.share_percent for row in profile.rows) - sum(row.share_percent for row in rows)
        hidden = len(profile.rows) - len(rows)
        lines = [f"{hidden} more rows: {share:.1f} % (--top 0 for all)", *lines]
    frame = pd.DataFrame([{**row.to_dict(), "ops": "; ".join(row.ops)} for row in profile.rows], dtype=object)
    table = table_of(title, columns(profile.by), rows)
    return Document(title, [table, *notes(lines)], profile.to_dict(), {"rows": frame})


def columns(by: str) -> list[Column[Row]]:
    """Of a table of layers or blocks; an empty cell is an unknown or meaningless figure."""
    return [
        Column(Head(by, folds=True), lambda row: row.name),
        Column(Head("us", True), lambda row: number_cell(row.median_ns / 1e3)),
        Column(Head("%", True), lambda row: Cell(f"{row.share_percent:.1f}", value=row.share_percent)),
        Column(
            Head("M mult-adds", True), lambda row: number_cell(row.multiply_adds / 1e6 if row.multiply_adds else None)
        ),
        Column(Head("kB", True), lambda row: number_cell(None if row.bytes_moved is None else row.bytes_moved / 1e3)),
        Column(Head("GFLOP/s", True), lambda row: number_cell(row.gflop_per_s)),
        Column(Head("FLOP/byte", True), lambda row: number_cell(row.flop_per_byte)),
        # Known only with a measured peak.
        Column(Head("side"), lambda row: row.side, "known"),
        Column(Head("runs as", folds=True), lambda row: _runs_as(row, by)),
    ]


def _runs_as(row: Row, by: str) -> str:
    if by == "block" and row.joined:
        return f"{row.nodes} nodes"  # the operators are too many to name
    text = ", ".join(row.ops[:2]) + (" ..." if len(row.ops) > 2 else "")
    return f"{row.nodes} x {text}" if row.nodes > 1 else text


def sentences(totals: Totals, ridge: Ridge | None, resolution_ns: int) -> list[str]:
    """What stands below the table."""
    lines = [
        f"the rows add up to {_ms(totals.rows_ns)}, each the median of {totals.samples} calls",
        f"a call takes {_ms(totals.plain_ns)} without profiling (the fastest {_ms(totals.plain_fastest_ns)}; "
        f"{_ms(totals.plain_cpu_ns)} of processor time) and {_ms(totals.profiled_ns)} with it (the fastest "
        f"{_ms(totals.profiled_fastest_ns)}); turn against turn, profiling adds {totals.overhead_percent:.1f} %",
        f"{totals.within_nodes_percent:.1f} % of a profiled call lie within these rows",
        f"joined to no layer: {_ms(totals.unjoined_ns)} ({totals.unjoined_percent:.1f} % of the rows)",
    ]
    if totals.disturbed:
        lines.append(
            "something else kept the processor busy: a pause hits another row in each call, so that medians of rows "
            "leave it out and whole calls do not; on one thread, compare the sum with the processor time"
        )
    if resolution_ns > 1:
        lines.append(f"the runtime's clock has steps of {resolution_ns / 1e3:g} us")
    if ridge is None:
        lines.append(
            "no peak is stored for this machine, precision and number of threads: `scarlet-bench doctor --peak`"
        )
    else:
        lines.append(
            f"ridge point: {number(ridge.flop_per_byte)} FLOP/byte ({number(ridge.gflop_per_s)} GFLOP/s over "
            f"{number(ridge.copy_gbyte_per_s)} GB/s); memory is the limit on its left, arithmetic on its right"
        )
    return lines


def _ms(nanoseconds: float) -> str:
    return f"{number(nanoseconds / 1e6)} ms"
