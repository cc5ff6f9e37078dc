"""`doctor`: what this machine is, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.show import Json, Out, show

if TYPE_CHECKING:
    from bench.report.document import Document


def doctor(
    peak: Annotated[
        bool,
        typer.Option("--peak", help="Measure what arithmetic and memory reach here; later reports show shares of it."),
    ] = False,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Tell what this machine is, what disturbs measurements on it, and what to do."""
    from bench import host
    from bench.backends import package_versions

    if peak:
        show(_peak(), out, as_json)
        return
    from bench.report.document import Document, notes

    checks = host.doctor(packages=package_versions())
    lines = []
    for check in checks:
        lines.append(f"{check.state:>4}  {check.check}: {check.text}")
        lines += [f"      {check.advice}"] if check.advice else []
    show(Document("This machine", notes(lines), [asdict(check) for check in checks]), out, as_json)


def _peak() -> Document:
    """Measures and stores the peaks of one thread and of all."""
    from bench import host
    from bench.host.peaks import TYPES, measure_peak
    from bench.record.machine import save_peaks
    from bench.report.document import Document, notes

    counts = dict.fromkeys((1, host.allowed_cores()))
    peaks = [measure_peak(threads, tuple(TYPES)) for threads in counts]
    path = save_peaks(peaks, host.fingerprint(host.describe_host()))
    lines = []
    for reached in peaks:
        types = ", ".join(f"{name} {value:.0f}" for name, value in reached.gflop_per_s.items())
        lines.append(f"{reached.threads} threads: {types} GFLOP/s; copying {reached.copy_gbyte_per_s:.1f} GB/s")
    data = [asdict(reached) for reached in peaks]
    return Document("Peaks of this machine", notes([*lines, f"stored: {path}"]), data)
