"""Drives workers through their Cases, in the turns that an order gives them; every planned Case becomes one row."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from bench.host import memory
from bench.host.disturbance import Monitor, RoundState, open_gpu
from bench.record.case import Case, Status
from bench.record.run_folder import CAUSE, CaseResult, RunFolder
from bench.worker import channel, inputs
from bench.worker.channel import WorkerHandle
from bench.worker.messages import Context, Progress

WARM_UP_ROUND = -1
SLICE_NS = 50_000_000  # of a timed Case, at least

# Time to import the libraries and load a model counts against --timeout; a turn never gets less than this, so that
# a Case cannot be declared dead between two slices.
LEAST_TURN_SECONDS = 1.0


class Listener(Protocol):
    """Hears how the run goes. Its methods must not raise."""

    def case_started(self, case: Case) -> None: ...

    def progress(self, case: Case, fraction: float, detail: str) -> None: ...

    def case_ended(self, result: CaseResult) -> None: ...


@dataclass(frozen=True)
class Limits:
    """How long things may take, and the seed of their order.

    Attributes:
        timeout_seconds: upper bound of each Case's own time: loading, turns and finishing, not the waiting.
        budget_seconds: for the measuring rounds of all timed Cases together.
        seed: of the order of turns.
    """

    timeout_seconds: float = 600.0
    budget_seconds: float = 60.0
    seed: int = 0


@dataclass(frozen=True)
class Workers:
    """Where Cases run.

    Attributes:
        make: how to start a worker for a Case; a process on this machine where None.
        has_room: whether memory has room for one more worker beside those of these process ids.
    """

    make: Callable[[Case], WorkerHandle] | None = None
    has_room: Callable[[Sequence[int]], bool] = memory.has_room


@dataclass
class Live:
    """A Case at work.

    Attributes:
        case: which.
        worker: what it runs in.
        started_at: ISO 8601, UTC.
        used_seconds: its own time so far.
        stop_reason: why its rounds ended, once they have.
        progress: what its last turn told.
    """

    case: Case
    worker: WorkerHandle
    started_at: str
    used_seconds: float = 0.0
    stop_reason: str = ""
    progress: Progress = field(default_factory=lambda: Progress(False, False, 0.0, 0))


# Gives Cases their turns: it is called with the runner and the Cases to run, and leaves none of them alive.
Order = Callable[["Runner", Sequence[Case]], None]


class Runner:
    """Runs Cases, one computing at a time. What befalls one of them ends that one alone.

    Args:
        run: folder that takes the results.
        context: what the workers need.
        listener: hears of progress.
        limits: of time.
        workers: where Cases run.
        watch: look for what disturbs each round.

    Attributes:
        live: the Cases at work by their ids, in the order in which they began.
        ended: the rows that this runner has recorded, by the ids of their Cases.
        rounds: what disturbed each watched round.
    """

    def __init__(
        self,
        run: RunFolder,
        context: Context,
        listener: Listener,
        limits: Limits | None = None,
        workers: Workers | None = None,
        watch: bool = True,
    ) -> None:
        self.run, self.context, self.listener = run, context, listener
        self.limits, self._workers, self._watch = limits or Limits(), workers or Workers(), watch
        self._monitor: Monitor | None = None
        self._objections: Mapping[str, str] = {}
        self.live: dict[str, Live] = {}
        self.ended: dict[str, CaseResult] = {}
        self.rounds: list[RoundState] = []

    def pids(self) -> list[int]:
        """This process and its workers: what else computes is a disturbance."""
        return [os.getpid(), *(live.worker.pid for live in self.live.values())]

    def execute(
        self, cases: Sequence[Case], order: Order, objections: Mapping[str, str] | None = None
    ) -> None:
        """Runs the Cases that have no final result yet.

        Args:
            cases: all that are planned.
            order: who takes turns with whom; ``bench.run.schedule.by_scenario`` is a run's.
            objections: why Cases cannot be valid whatever they give, by their ids. They run, and end as ``invalid``.

        Raises:
            KeyboardInterrupt: after every unfinished Case has been recorded as ``interrupted``.
        """
        finished = {
            result.case.case_id
            for result in self.run.case_results()
            if result.status is not Status.INTERRUPTED
        }
        todo = [case for case in cases if case.case_id not in finished]
        self._objections = objections or {}
        gpu = open_gpu({case.device for case in todo}) if self._watch else None
        watching = Monitor(self.pids, gpu=gpu) if self._watch else nullcontext()
        with watching as self._monitor:
            try:
                order(self, todo)
            except KeyboardInterrupt:
                self._interrupted(todo)
                raise
            finally:
                for live in self.live.values():
                    live.worker.kill()
                self.live.clear()
                inputs.drop(self.run.path)

    def _interrupted(self, todo: Iterable[Case]) -> None:
        for case in todo:
            if case.case_id not in self.ended:
                self.end(case, Status.INTERRUPTED, "the run was stopped; go on with --resume")

    # --- what an order does with Cases ------------------------------------------------------------------------

    def admit(self, cases: Sequence[Case]) -> int:
        """Starts and warms up as many Cases as memory has room for, two at least; gives how many were taken."""
        for index, case in enumerate(cases):
            if len(self.live) >= 2 and not self._workers.has_room(self.pids()[1:]):
                return index
            if self.start(case):
                while self.turn(case, WARM_UP_ROUND, SLICE_NS) and not self.live[case.case_id].progress.warm:
                    pass
        return len(cases)

    def start(self, case: Case) -> bool:
        """Has a worker load the Case; False where that has ended it."""
        self.listener.case_started(case)
        make = self._workers.make or self._local_worker
        live = self.live[case.case_id] = Live(case, make(case), _now())
        message = {"do": "start", "case": case.to_dict(), "context": self.context.to_dict()}
        return self._ask(live, message) is not None

    def _local_worker(self, case: Case) -> WorkerHandle:
        return channel.LocalWorker(self.run.log_path(case.case_id), case.threads * case.instances)

    def turn(self, case: Case, round_: int, slice_ns: int) -> Progress | None:
        """Has a live Case work for a slice; None where it is not alive, or that has ended it."""
        live = self.live.get(case.case_id)
        answer = live and self._ask(live, {"do": "turn", "round": round_, "slice_ns": slice_ns})
        if not live or not answer:
            return None
        live.progress = Progress(**{name: answer[name] for name in Progress.__dataclass_fields__})
        self.listener.progress(case, live.progress.fraction, live.progress.detail)
        return live.progress

    @contextmanager
    def watched(self, scenario: str) -> Iterator[Callable[[int], None]]:
        """Rounds of one scenario: what it gives is to be called with each one's number when it ends."""
        states: list[RoundState] = []
        monitor = self._monitor
        if monitor is not None:
            monitor.begin(scenario)
        try:
            yield lambda round_: states.append(monitor.end_of_round(round_)) if monitor is not None else None
        finally:
            self.run.write_rounds(states)
            self.rounds += states

    def finish(self, case: Case) -> bool:
        """Has a live Case write its results, and records its row; False where that failed."""
        live = self.live.get(case.case_id)
        answer = live and self._ask(live, {"do": "finish", "stop_reason": live.stop_reason})
        if not live or not answer:
            return False
        live.worker.stop()
        fallback, objection = answer["proof"].get("fallback", ""), self._objections.get(case.case_id, "")
        results = {name: answer[name] for name in ("stage", "metrics", "proof")}
        self._record(
            case,
            Status.INVALID if objection else Status.FALLBACK if fallback else Status.OK,
            "; ".join(filter(None, [objection, fallback])),
            **results,
            bad_images=tuple(answer["bad_images"]),
        )
        return True

    def end(self, case: Case, status: Status, reason: str, cause: str = "") -> None:
        """Records why a Case has no results, and ends its worker where it has one."""
        if case.case_id in self.live:
            self.live[case.case_id].worker.kill()
        self._record(case, status, reason, metrics={CAUSE: cause} if cause else {})

    # --- the steps of a Case ----------------------------------------------------------------------------------

    def _ask(self, live: Live, message: channel.Message) -> channel.Message | None:
        """The answer; None where there is none, which has ended the Case with a row."""
        remaining = max(LEAST_TURN_SECONDS, self.limits.timeout_seconds - live.used_seconds)
        started = time.monotonic()
        try:
            answer = live.worker.ask(message, remaining)
        except channel.WorkerFailed as failure:
            if failure.status is Status.TIMEOUT:
                failure = channel.too_slow(self.limits.timeout_seconds)
            log = self.run.log_path(live.case.case_id).name
            see = f"; see logs/{log}" if failure.status is Status.CRASHED else ""
            self.end(live.case, failure.status, f"{failure.line}{see}", failure.cause)
            return None
        live.used_seconds += time.monotonic() - started
        return answer

    def _record(self, case: Case, status: Status, reason: str, **results: Any) -> None:
        live = self.live.pop(case.case_id, None)
        started_at = live.started_at if live else _now()
        result = CaseResult(case, status, reason, started_at=started_at, ended_at=_now(), **results)
        self.ended[case.case_id] = result = self.run.append_case(result)
        self.listener.case_ended(result)


def give_up(run: RunFolder, cases: Iterable[Case], reason: str, listener: Listener) -> None:
    """Records every Case as unavailable, for one reason that holds for all of them."""
    for case in cases:
        result = CaseResult(case, Status.UNAVAILABLE, reason, started_at=_now(), ended_at=_now())
        run.append_case(result)
        listener.case_ended(result)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
