"""The A/A run: the same Case measured twice as if it were two, to learn what difference this machine can resolve today.

The two are measured as the Cases of every run are: in turns, and by fresh processes in every life, so that what
processes differ by is in the figure. It is stored with the host's fingerprint; verdicts of later runs on that host call
no smaller difference material.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from scipy.special import stdtrit

from bench.analysis.stats.lives import location
from bench.analysis.time import verdict
from bench.record.case import Case, Status
from bench.record.files import plain
from bench.record.machine import NoiseResult, Resolution, others_cores, save_noise
from bench.record.run_folder import CaseResult, utc_now
from bench.report.document import Document, notes
from bench.report.terminal import printer
from bench.run.progress import make_listener
from bench.run.runner import Runner
from bench.run.schedule import Lives
from bench.run.session import Session
from bench.run.spec import RunSpec
from scarlet.errors import BenchError

OPTION = "aa"
LIVES = 6


def run(spec: RunSpec, out: Path | None, console: Console) -> Document:
    """The A/A run: the first latency Case of the spec against itself.

    What it finds is stored under this host's fingerprint for later runs to use.

    Raises:
        BenchError: the options are at fault, or the Case cannot be measured.
    """
    if spec.lives == 1:
        raise BenchError("--lives 1 does not tell what processes differ by", f"Write for example --lives {LIVES}.")
    with Session.open(spec.but(lives=spec.lives or LIVES), out, console, "noise") as session:
        files = session.require()
        base = next(case for case in session.spec.cases(files.weights) if case.scenario == "latency")
        cases = noise_cases(base)
        session.write_plan(files, cases)
        printer(console)(f"{base.label} against itself, for about {spec.budget_seconds:g} s")
        with make_listener(console, len(cases)) as listener:
            runner = Runner(session.folder, session.context(files), listener, session.limits)
            result = measure(runner, cases, session.folder.read_run_info()["host"])
    session.folder.merge_parts()
    stored = save_noise(result)
    lines = [*text(result).splitlines(), f"stored: {stored}"]
    return Document("What this machine can resolve", notes(lines), plain(result))


def noise_cases(base: Case) -> tuple[Case, Case]:
    """The two copies: latency Cases that differ in nothing but a label that every backend ignores."""
    base = replace(base, scenario="latency")
    return base.having(OPTION, "a"), base.having(OPTION, "b")


def measure(runner: Runner, cases: tuple[Case, Case], host: Mapping[str, Any]) -> NoiseResult:
    """Measures two copies in turns; their samples and rows go to the runner's folder.

    Args:
        runner: with nothing measured yet; its limits say in how many lives.
        host: as returned by ``describe_host``, with its fingerprint, taken before anything began.

    Raises:
        BenchError: a copy could not be measured.
    """
    runner.execute(cases, Lives(1, runner.limits.budget_seconds, pairs_only=True))
    rows = [runner.ended[case.case_id] for case in cases]
    for row in rows:
        if row.status is not Status.OK:
            raise BenchError(
                f"the A/A run of {row.case.backend} ended early: {row.reason}",
                "See what scarlet-bench run says of this backend, or name another one.",
            )
    return NoiseResult(
        resolution=resolution_of(rows, verdict.round_times(rows, runner.run.samples())),
        host_fingerprint=host["fingerprint"],
        measured_at=utc_now(),
        load_1m=host.get("load_1m"),
        others_cores=others_cores(host),
        **{name: getattr(cases[0], name) for name in ("model", "backend", "device", "precision", "batch", "threads")},
    )


def resolution_of(rows: Sequence[CaseResult], times: Mapping[str, Mapping[int, float]]) -> Resolution:
    """What difference of two Cases an A/A run could have told from noise.

    The two are equal, but no two processes are: each life's log ratio is drawn around 0, and all of it is noise.

    Args:
        rows: of the two copies, which took the same rounds.
        times: as returned by ``verdict.round_times``.
    """
    rounds, _ = verdict.by_life(rows[0], rows[1], times)
    logs = [location(life) for life in rounds]
    t = float(stdtrit(len(logs), 0.975))
    return Resolution(
        interleaved=math.expm1(t * math.sqrt(sum(log * log for log in logs) / len(logs))),
        largest=math.expm1(max(map(abs, logs))),
        lives=len(logs),
        rounds=sum(map(len, rounds)),
    )


def text(result: NoiseResult) -> str:
    """Some lines for people."""
    resolution = result.resolution
    load = "" if result.load_1m is None else f", load {result.load_1m:.2f}"
    many = "s" if result.threads > 1 else ""
    return (
        f"{result.model} on {result.backend} against itself: {result.device} {result.precision} batch {result.batch}, "
        f"{result.threads} thread{many}{load}\n"
        f"{resolution.interleaved:.2%} is what 95 % of the differences between equals stay under here, "
        "from one pair of processes to the next\n"
        f"{resolution.lives} pairs, {resolution.rounds} rounds; the largest difference seen: {resolution.largest:.2%}"
    )
