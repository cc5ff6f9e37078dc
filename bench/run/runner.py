"""Drives workers through their Cases in interleaved rounds; every planned Case becomes exactly one row."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NoReturn, Protocol

from bench.analysis.time import verdict
from bench.host import memory
from bench.host.disturbance import Monitor, RoundState
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run import schedule
from bench.worker import channel
from bench.worker.channel import WorkerHandle
from bench.worker.messages import Context, Progress

WARM_UP_ROUND = -1
ACCURACY_SLICE_NS = 500_000_000
LATENCY_SLICE_NS = 50_000_000  # at least

# Time to import the libraries and load a model counts against --timeout; a turn never gets less than this, so that
# a Case cannot be declared dead between two slices.
LEAST_TURN_SECONDS = 1.0


class Listener(Protocol):
    """Hears how the run goes. Its methods must not raise."""

    def case_started(self, case: Case) -> None: ...

    def progress(self, case: Case, fraction: float, detail: str) -> None: ...

    def case_ended(self, result: CaseResult) -> None: ...


@dataclass
class Live:
    """A Case at work."""

    case: Case
    worker: WorkerHandle
    started_at: str
    used_seconds: float = 0.0
    stop_reason: str = ""
    progress: Progress = field(default_factory=lambda: Progress(False, False, 0.0, 0))


class CaseEnded(Exception):
    """The Case is over before its time; the result has been recorded."""


class Runner:
    """Runs Cases, one computing at a time.

    Args:
        run: folder that takes the results.
        context: what the workers need.
        listener: hears of progress.
        timeout_seconds: upper bound of each Case's own time: loading, turns and finishing, not the waiting.
        budget_seconds: time for the measuring rounds of all latency and throughput Cases together.
        seed: of the order of turns.
        monitor: watches what disturbs each interleaved round.
        has_room: whether memory has room for one more worker beside those of these process ids.
        objections: why Cases cannot be valid whatever they give, by their ids. They run, and end as ``invalid``.
        make_worker: how to start a worker for a Case; a local process by default.
    """

    def __init__(
        self,
        run: RunFolder,
        context: Context,
        listener: Listener,
        timeout_seconds: float = 600.0,
        budget_seconds: float = 60.0,
        seed: int = 0,
        monitor: Monitor | None = None,
        has_room: Callable[[Sequence[int]], bool] = memory.has_room,
        objections: Mapping[str, str] | None = None,
        make_worker: Callable[[Case], WorkerHandle] | None = None,
    ) -> None:
        self._run = run
        self._context = context.to_dict()
        self._stop = context.stop
        self._listener = listener
        self._timeout_seconds = timeout_seconds
        self._budget_seconds = budget_seconds
        self._seed = seed
        self._monitor = monitor
        self._has_room = has_room
        self._objections = objections or {}
        self._make_worker = make_worker or self._local_worker
        self._live: dict[str, Live] = {}
        self._comparisons = 0
        self.rounds: list[RoundState] = []

    def pids(self) -> list[int]:
        """This process and its workers: what else computes is a disturbance."""
        return [os.getpid(), *(live.worker.pid for live in self._live.values())]

    def _local_worker(self, case: Case) -> WorkerHandle:
        return channel.LocalWorker(self._run.log_path(case.case_id), case.threads * case.instances)

    def execute(self, cases: Sequence[Case]) -> None:
        """Runs the Cases that have no final result yet.

        Accuracy Cases run one after the other: time does not matter to them. Latency Cases stay alive together and
        take turns, then throughput Cases do.

        Raises:
            KeyboardInterrupt: after every unfinished Case has been recorded as ``interrupted``.
        """
        finished = {
            result.case.case_id
            for result in self._run.case_results()
            if result.status is not Status.INTERRUPTED
        }
        todo = [case for case in cases if case.case_id not in finished]
        timed = [case for case in todo if case.scenario != "accuracy"]
        # Reports adjust every interval for all comparisons of the run: so does the rule that says when to stop.
        pairs = verdict.baselines(cases).items()
        self._comparisons = sum(case_id != baseline for case_id, baseline in pairs)
        try:
            for case in todo:
                if case.scenario == "accuracy":
                    self._alone(case)
            for scenario in ("latency", "throughput"):
                group = [case for case in timed if case.scenario == scenario]
                if group:
                    self._together(group, self._budget_seconds * len(group) / len(timed))
        except KeyboardInterrupt:
            self._interrupted(todo)
            raise
        finally:
            for live in list(self._live.values()):
                live.worker.kill()
            self._live.clear()

    def give_up(self, cases: Sequence[Case], reason: str) -> None:
        """Records every Case as unavailable, for one reason that holds for all of them."""
        for case in cases:
            self._record(case, _now(), Status.UNAVAILABLE, reason)

    def _interrupted(self, todo: Iterable[Case]) -> None:
        recorded = {result.case.case_id for result in self._run.case_results()}
        for case in todo:
            if case.case_id not in recorded:
                started_at = self._live[case.case_id].started_at if case.case_id in self._live else _now()
                self._record(case, started_at, Status.INTERRUPTED, "the run was stopped; go on with --resume")

    # --- one Case alone -------------------------------------------------------------------------------------------

    def _alone(self, case: Case) -> None:
        with self._ends_quietly():
            live = self._start(case)
            while not live.progress.done:
                self._turn(live, 0, ACCURACY_SLICE_NS)
            self._finish(live)

    # --- Cases that take turns ------------------------------------------------------------------------------------

    def _together(self, cases: Sequence[Case], budget_seconds: float) -> None:
        """Runs timed Cases in interleaved rounds.

        All of them live at once where memory allows. Where it does not, as many as fit take turns, then the next:
        the Case that others are compared with stays alive and takes part in all of these groups, and rounds are
        numbered on, so that every Case is compared with it in rounds that both took.
        """
        scenario = cases[0].scenario
        baselines = verdict.baselines(cases)
        # Those with one baseline follow each other, and it leads them.
        place = {case.case_id: number for number, case in enumerate(cases)}
        pending = sorted(
            cases,
            key=lambda case: (
                place[baselines.get(case.case_id, case.case_id)],
                baselines.get(case.case_id) != case.case_id,
            ),
        )
        round_ = self._run.next_round(scenario)
        while pending:
            admitted = self._admit(pending)
            del pending[:admitted]
            needed = {baselines.get(case.case_id) for case in pending}
            share = budget_seconds * admitted / len(cases)
            if self._live:
                round_ = self._rounds_of(list(self._live), baselines, scenario, round_, share)
            for live in list(self._live.values()):
                if live.case.case_id not in needed:
                    with self._ends_quietly():
                        self._finish(live)

    def _admit(self, pending: Sequence[Case]) -> int:
        """Starts and warms up as many Cases as memory has room for, two at least; gives how many were taken."""
        taken = 0
        for case in pending:
            if len(self._live) >= 2 and not self._has_room(self.pids()[1:]):
                break
            taken += 1
            with self._ends_quietly():
                live = self._start(case)
                self._turn(live, WARM_UP_ROUND, LATENCY_SLICE_NS)
                while not live.progress.warm:
                    self._turn(live, WARM_UP_ROUND, LATENCY_SLICE_NS)
        return taken

    def _rounds_of(
        self,
        members: Sequence[str],
        baselines: Mapping[str, str],
        scenario: str,
        first: int,
        budget_seconds: float,
    ) -> int:
        """Takes rounds until the comparisons are precise or the budget is spent; gives the next round's number."""
        stop, medians = verdict.RatioStop(), {case_id: dict[int, float]() for case_id in members}
        spent_ns, round_, reason = 0, first, "budget"
        watched: list[RoundState] = []
        if self._monitor is not None:
            self._monitor.begin(scenario)
        try:
            turns = zip(itertools.count(first), schedule.rounds(members, self._seed), self._slices())
            for round_, order, slice_ns in turns:
                if spent_ns >= budget_seconds * 1e9 or not any(case_id in self._live for case_id in members):
                    break
                if self._is_enough(members, baselines, medians, stop, round_ - first):
                    reason = self._stop
                    break
                for case_id in order:
                    with self._ends_quietly():
                        if case_id in self._live:
                            live = self._live[case_id]
                            self._turn(live, round_, slice_ns)
                            spent_ns += live.progress.busy_ns
                            medians[case_id][round_] = live.progress.median_ns
                            fraction = min(1.0, spent_ns / (budget_seconds * 1e9))
                            self._listener.progress(live.case, fraction, live.progress.detail)
                if self._monitor is not None:
                    watched.append(self._monitor.end_of_round(round_))
        finally:
            self._run.write_rounds(watched)
            self.rounds += watched
        for live in self._live.values():
            live.stop_reason = reason
        return round_

    def _slices(self) -> Iterator[int]:
        """The length of each round's slices: the same for all Cases of a round, another for every round.

        Slices of one length may keep step with a periodic disturbance, which then meets the same Case for many
        rounds on end.
        """
        source = random.Random(self._seed)
        while True:
            yield round(LATENCY_SLICE_NS * source.uniform(1.0, 2.0))

    def _is_enough(
        self,
        members: Sequence[str],
        baselines: Mapping[str, str],
        medians: Mapping[str, Mapping[int, float]],
        stop: verdict.RatioStop,
        n_rounds: int,
    ) -> bool:
        """Every ratio is known well enough, and so is the median of every Case that is compared with none.

        Where the context says ``plateau``: the noise of every Case has stopped changing.
        """
        if self._stop == "plateau":
            return n_rounds > 0 and all(live.progress.done for live in self._live.values())
        here = {
            case_id: baselines[case_id]
            for case_id in members
            if case_id in self._live and case_id in baselines
        }
        alone = [self._live[case_id] for case_id in members if case_id in self._live and case_id not in here]
        if any(not live.progress.done for live in alone):
            return False
        # A comparison whose other half ended early will never be known better.
        pairs = {case_id: other for case_id, other in here.items() if other in here}
        compared = any(case_id != other for case_id, other in pairs.items())
        return stop.reached(medians, pairs, n_rounds, self._comparisons) if compared else n_rounds > 0

    # --- the steps of a Case --------------------------------------------------------------------------------------

    def _start(self, case: Case) -> Live:
        self._listener.case_started(case)
        live = Live(case, self._make_worker(case), _now())
        self._live[case.case_id] = live
        self._ask(live, {"do": "start", "case": case.to_dict(), "context": self._context})
        return live

    def _turn(self, live: Live, round_: int, slice_ns: int) -> None:
        answer = self._ask(live, {"do": "turn", "round": round_, "slice_ns": slice_ns})
        live.progress = Progress(**{name: answer[name] for name in Progress.__dataclass_fields__})
        self._listener.progress(live.case, live.progress.fraction, live.progress.detail)

    def _finish(self, live: Live) -> None:
        answer = self._ask(live, {"do": "finish", "stop_reason": live.stop_reason})
        live.worker.stop()
        del self._live[live.case.case_id]
        fallback = answer["proof"].get("fallback", "")
        objection = self._objections.get(live.case.case_id, "")
        self._record(
            live.case,
            live.started_at,
            Status.INVALID if objection else Status.FALLBACK if fallback else Status.OK,
            "; ".join(filter(None, [objection, fallback])),
            stage=answer["stage"],
            metrics=answer["metrics"],
            proof=answer["proof"],
            bad_images=tuple(answer["bad_images"]),
        )

    def _ask(self, live: Live, message: channel.Message) -> channel.Message:
        """Sends a message; whatever goes wrong ends the Case with a row."""
        remaining = max(LEAST_TURN_SECONDS, self._timeout_seconds - live.used_seconds)
        started = time.monotonic()
        try:
            answer = live.worker.ask(message, remaining)
        except channel.WorkerFailed as failure:
            if failure.status is Status.TIMEOUT:
                failure = channel.too_slow(self._timeout_seconds)
            log = self._run.log_path(live.case.case_id).name
            see = f"; see logs/{log}" if failure.status is Status.CRASHED else ""
            self._end(live, failure.status, f"{failure.line}{see}")
        live.used_seconds += time.monotonic() - started
        return answer

    def _end(self, live: Live, status: Status, reason: str) -> NoReturn:
        live.worker.kill()
        del self._live[live.case.case_id]
        self._record(live.case, live.started_at, status, reason)
        raise CaseEnded

    @contextmanager
    def _ends_quietly(self) -> Iterator[None]:
        """A Case that ends early ends alone: the others go on."""
        try:
            yield
        except CaseEnded:
            return

    def _record(self, case: Case, started_at: str, status: Status, reason: str, **more: Any) -> None:
        result = CaseResult(
            case=case, status=status, reason=reason, started_at=started_at, ended_at=_now(), **more
        )
        self._run.append_case(result)
        self._listener.case_ended(result)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
