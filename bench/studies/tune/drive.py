"""Carries out the search of ``bench.studies.tune.search``: finds the images, prepares the model, drives the
candidates' workers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import host
from bench.record.case import Case, Status
from bench.record.files import write_text
from bench.record.run_folder import utc_now
from bench.report.terminal import printer
from bench.run import schedule
from bench.run.progress import make_listener
from bench.run.runner import SLICE_NS, Runner
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.tune import search
from bench.studies.tune.search import Standing

FILE = "tuning.json"
MEMORY_FULL = "memory had no room for it beside the others"


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        run: its folder, with ``tuning.json``.
        standings: of all candidates, the best first.
    """

    run: Path
    standings: tuple[Standing, ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Standing | None:
        """The first, if it could be measured."""
        return self.standings[0] if self.standings and not self.standings[0].why_not else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        best = self.best
        return {
            "run": str(self.run),
            "best": best.to_dict() if best else None,
            "command": search.command(best.case) if best else None,
            "candidates": [standing.to_dict() for standing in self.standings],
            "notes": list(self.notes),
        }


def run(spec: RunSpec, out: Path | None, console: Console) -> Tuned:
    """Searches for the fastest way of one backend and one pipeline, from files to top-5.

    Args:
        spec: of one throughput Case, but for its batches, which are tried; threads and instances are searched.
        out: folder of the run; a new one in ``results/runs`` where None.

    Raises:
        BenchError: the options, data, checkpoint or output folder are at fault, or something is missing here.
    """
    spec.but(batches=1).only_case()  # several values are told before anything slow begins
    with Session.open(spec, out, console, "tune") as session:
        base = session.spec.but(batches=1).only_case()
        files = session.require()
        batches = [files.fixed_batch] if files.fixed_batch else spec.batches
        cases = search.candidates(base, host.allowed_cores(), batches)
        session.write_plan(files, cases)
        what = f"trying {len(cases)} ways, for about {spec.budget_seconds:g} s after they are loaded"
        printer(console)(what)
        context = session.context(files, time_parts=False)
        with make_listener(console, len(cases)) as listener:
            tuned = drive(Runner(session.folder, context, listener, session.limits), cases)
    session.folder.merge_parts()
    session.write(finished_at=utc_now(), exit_code=0)
    write_text(session.folder.path / FILE, json.dumps(tuned.to_dict(), indent=1, allow_nan=False) + "\n")
    return tuned


def drive(runner: Runner, cases: Sequence[Case]) -> Tuned:
    """Loads and warms the candidates, has them take turns, and records a row and the samples of each."""
    halving = Halving(runner)
    runner.execute(cases, halving)
    failed = {case_id: row.reason for case_id, row in runner.ended.items() if row.status is not Status.OK}
    standings = tuple(search.standings(cases, halving.times, failed))
    left_out = sum(MEMORY_FULL in standing.why_not for standing in standings)
    crowded = f"memory had no room for {left_out} of {len(cases)} candidates; give fewer --batches"
    notes = (crowded if left_out else "", search.unsettled(standings))
    return Tuned(runner.run.path, standings, tuple(filter(None, notes)))


class Halving:
    """The order of ``bench.studies.tune.search``: all candidates live at once, and leave by halves.

    Attributes:
        times: as returned by ``search``.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self.times: search.Times = {}

    def __call__(self, runner: Runner, cases: Sequence[Case]) -> None:
        """See ``bench.run.runner.Order``."""
        for crowded_out in cases[runner.admit(cases) :]:
            runner.end(crowded_out, Status.UNAVAILABLE, MEMORY_FULL)
        members = [live.case for live in runner.live.values()]
        limits = runner.limits
        with runner.watched("throughput") as self.end_of_round:
            self.times = search.search(
                members, self, lambda alive: schedule.rounds(alive, limits.seed), limits.budget_seconds
            )
        for case in members:
            self.leave(case)

    def one_pass(self, case: Case, round_: int) -> tuple[float, float] | None:
        """See ``search.Field``."""
        progress = self._runner.turn(case, round_, SLICE_NS)
        return (progress.median_ns, progress.busy_ns / 1e9) if progress else None

    def leave(self, case: Case) -> None:
        """Has the Case write its samples, and records its row."""
        if case.case_id in self._runner.live:
            self._runner.live[case.case_id].stop_reason = "budget"
            self._runner.finish(case)

    def say(self, case: Case, fraction: float, detail: str) -> None:
        """See ``search.Field``."""
        self._runner.listener.progress(case, fraction, detail)
