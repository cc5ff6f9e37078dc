"""Carries out the search of ``bench.studies.tune.search``: finds the images, prepares the model, drives the
candidates' workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from bench import host
from bench.host import memory
from bench.record.case import Case, Status
from bench.record.files import write_text
from bench.record.run_folder import CaseResult, RunFolder, utc_now
from bench.run import schedule
from bench.run.images import working
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.studies.tune import search
from bench.studies.tune.search import Standing
from bench.worker import channel
from bench.worker.channel import WorkerHandle
from bench.worker.messages import Context

# Long enough that the ends of a pass, where not everything is at work, weigh little; short enough for many rounds.
PASS_IMAGES = 128
FILE = "tuning.json"
MEMORY_FULL = "memory had no room for it beside the others"


@dataclass(frozen=True)
class Tuned:
    """What a search found.

    Attributes:
        run: its folder, with ``tuning.json``.
        standings: of all candidates, the best first.
        notes: what else must be known.
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
        console: for progress and notes.

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
        with working(console, what):
            tuned = drive(
                session.folder,
                session.context(files, throughput_images=PASS_IMAGES, time_parts=False),
                cases,
                budget_seconds=spec.budget_seconds,
                timeout_seconds=spec.timeout_seconds,
                seed=spec.seed,
            )
    session.folder.merge_parts()
    session.write(finished_at=utc_now(), exit_code=0)
    write_text(session.folder.path / FILE, json.dumps(tuned.to_dict(), indent=1, allow_nan=False) + "\n")
    return tuned


def drive(
    folder: RunFolder,
    context: Context,
    cases: Sequence[Case],
    budget_seconds: float,
    timeout_seconds: float,
    seed: int = 0,
    say: Callable[[float, str], None] = lambda fraction, detail: None,
    has_room: Callable[[Sequence[int]], bool] = memory.has_room,
    make_worker: Callable[[Case], WorkerHandle] | None = None,
) -> Tuned:
    """Loads and warms the candidates, has them take turns, and records a row and the samples of each.

    Args:
        folder: of the run.
        context: what the workers need.
        cases: the candidates.
        budget_seconds: for the passes after warm-up.
        timeout_seconds: for each answer of a worker.
        seed: of the order of turns.
        say: hears how far it is.
        has_room: whether memory has room for one more worker beside those of these process ids.
        make_worker: how to start a worker; a local process by default.
    """
    field = _Field(folder, context, timeout_seconds, make_worker)
    try:
        for place, case in enumerate(cases):
            if len(field.workers) >= 2 and not has_room([worker.pid for worker in field.workers.values()]):
                for crowded_out in cases[place:]:
                    field.fail(crowded_out, Status.UNAVAILABLE, MEMORY_FULL)
                break
            say(0.0, f"loading {case.label}")
            field.start(case)
        times = search.search(
            [case for case in cases if case in field.workers],
            field.one_pass,
            lambda alive: schedule.rounds(list(alive), seed),
            budget_seconds,
            dropped=field.finish,
            say=say,
        )
        for case in list(field.workers):
            field.finish(case)
    except BaseException:
        for worker in field.workers.values():
            worker.kill()
        raise
    standings = tuple(search.standings(cases, times, field.failed))
    left_out = sum(MEMORY_FULL in standing.why_not for standing in standings)
    crowded = f"memory had no room for {left_out} of {len(cases)} candidates; give fewer --batches"
    notes = (crowded if left_out else "", search.unsettled(standings))
    return Tuned(folder.path, standings, tuple(filter(None, notes)))


class _Field:
    """The candidates' workers. Whatever befalls one of them is that one's result alone."""

    def __init__(
        self,
        folder: RunFolder,
        context: Context,
        timeout_seconds: float,
        make_worker: Callable[[Case], WorkerHandle] | None,
    ) -> None:
        self._folder, self._context, self._timeout_seconds = folder, context, timeout_seconds
        self._make = make_worker or (
            lambda case: channel.LocalWorker(folder.log_path(case.case_id), case.threads * case.instances)
        )
        self._started: dict[Case, str] = {}
        self.workers: dict[Case, WorkerHandle] = {}
        self.failed: dict[str, str] = {}

    def start(self, case: Case) -> None:
        """Loads the Case and makes one pass to warm it."""
        self._started[case] = utc_now()
        self.workers[case] = self._make(case)
        message = {"do": "start", "case": case.to_dict(), "context": self._context.to_dict()}
        if self._ask(case, message) is not None:
            self._ask(case, {"do": "turn", "round": -1, "slice_ns": 0})

    def one_pass(self, case: Case, round_: int) -> tuple[float, float] | None:
        """See ``tuning.search``."""
        answer = self._ask(case, {"do": "turn", "round": round_, "slice_ns": 0})
        return None if answer is None else (float(answer["median_ns"]), answer["busy_ns"] / 1e9)

    def finish(self, case: Case) -> None:
        """Has the Case write its samples, and records its row."""
        answer = self._ask(case, {"do": "finish", "stop_reason": "budget"})
        if answer is None:
            return
        self.workers.pop(case).stop()
        fallback = str(answer["proof"].get("fallback", ""))
        self._record(
            case,
            Status.FALLBACK if fallback else Status.OK,
            fallback,
            stage=answer["stage"],
            metrics=answer["metrics"],
            proof=answer["proof"],
            bad_images=tuple(answer["bad_images"]),
        )
        if fallback:
            self.failed[case.case_id] = fallback

    def fail(self, case: Case, status: Status, reason: str) -> None:
        """Ends the Case's worker, if it has one, and records why."""
        if case in self.workers:
            self.workers.pop(case).kill()
        self.failed[case.case_id] = reason
        self._record(case, status, reason)

    def _record(self, case: Case, status: Status, reason: str, **more: Any) -> None:
        started_at = self._started.get(case, utc_now())
        result = CaseResult(
            case=case, status=status, reason=reason, started_at=started_at, ended_at=utc_now(), **more
        )
        self._folder.append_case(result)

    def _ask(self, case: Case, message: channel.Message) -> Mapping[str, Any] | None:
        try:
            return self.workers[case].ask(message, self._timeout_seconds)
        except channel.WorkerFailed as failure:
            self.fail(case, failure.status, failure.line)
        return None
