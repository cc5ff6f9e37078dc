"""`doctor`: what this machine is, and what to do about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from bench.commands.show import Json, console_for

if TYPE_CHECKING:
    from rich.console import Console


def doctor(
    peak: Annotated[
        bool,
        typer.Option(
            "--peak", help="Measure what arithmetic and memory reach here; later reports show shares of it."
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell what this machine is, what disturbs measurements on it, and what to do."""
    from bench import host
    from bench.backends import package_versions

    if peak:
        _peak(console_for(as_json), as_json)
        return
    checks = host.doctor(packages=package_versions())
    if as_json:
        typer.echo(json.dumps([check.to_dict() for check in checks]))
        return
    console = console_for(False)
    for check in checks:
        console.print(
            f"{check.state:>4}  {check.check}: {check.text}", markup=False, highlight=False, soft_wrap=True
        )
        if check.advice:
            console.print(f"      {check.advice}", markup=False, highlight=False, soft_wrap=True)


def _peak(console: Console, as_json: bool) -> None:
    """Measures, stores and shows the peaks of one thread and of all."""
    from bench import host
    from bench.host.peaks import TYPES, measure_peak
    from bench.record.machine import save_peaks

    counts = dict.fromkeys((1, host.allowed_cores()))
    peaks = [measure_peak(threads, tuple(TYPES)) for threads in counts]
    path = save_peaks(peaks, host.fingerprint(host.describe_host()))
    if as_json:
        typer.echo(json.dumps([reached.to_dict() for reached in peaks]))
        return
    for reached in peaks:
        types = ", ".join(f"{name} {value:.0f}" for name, value in reached.gflop_per_s.items())
        line = f"{reached.threads} threads: {types} GFLOP/s; copying {reached.copy_gbyte_per_s:.1f} GB/s"
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"stored: {path}", markup=False, highlight=False, soft_wrap=True)
