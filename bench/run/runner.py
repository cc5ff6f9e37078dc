"""Drives workers through their Cases, in the turns that an order gives them; every planned Case becomes one row."""

from __future__ import annotations

import os
import statistics
import time
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Protocol

from bench import host
from bench.host import memory
from bench.host.disturbance import Monitor, RoundState, open_gpu
from bench.host.gpu_state import Gpu
from bench.record.case import Case, Status
from bench.record.run_folder import CAUSE, LOGS, CaseResult, RunFolder
from bench.worker import channel, inputs
from bench.worker.channel import WorkerHandle
from bench.worker.messages import Context, Progress
from scarlet.processes import Terminated

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

    def note(self, text: str, /) -> None: ...


@dataclass(frozen=True)
class Limits:
    """How long things may take, and in what order they are done.

    Attributes:
        timeout_seconds: upper bound of each worker's own time: loading, turns and finishing, not the waiting.
        budget_seconds: wall time of all timed Cases together, their starts and warm-up included.
        lives: how many workers measure a timed Case, one after the other; what suits the budget where None.
        rotate_cores: keep all workers of a pair of rounds on the same cores, and take others for the next pair.
    """

    timeout_seconds: float = 600.0
    budget_seconds: float = 60.0
    seed: int = 0
    lives: int | None = None
    rotate_cores: bool = False


@dataclass(frozen=True)
class Workers:
    """Where Cases run.

    Attributes:
        make: how to start a worker for a Case; a process on this machine where None.
        has_room: whether memory has room for so many more workers beside those of these process ids.
        clock: seconds, that the budget is spent by.
    """

    make: Callable[[Case], WorkerHandle] | None = None
    has_room: Callable[[Sequence[int], int], bool] = memory.has_room
    clock: Callable[[], float] = time.monotonic


@dataclass
class Live:
    """A Case at work.

    Attributes:
        start_index: its place, from 0, among the Cases that were started together.
        started_at: ISO 8601, UTC.
        used_seconds: its own time so far.
        first_round: the first that it took.
        stop_reason: why its rounds ended, once they have.
        progress: what its last turn told.
    """

    case: Case
    worker: WorkerHandle
    start_index: int
    started_at: str
    used_seconds: float = 0.0
    first_round: int | None = None
    stop_reason: str = ""
    progress: Progress = field(default_factory=lambda: Progress(False, False, 0.0, 0))


# Gives Cases their turns: it is called with the runner and the Cases to run, and leaves none of them alive.
Order = Callable[["Runner", Sequence[Case]], None]


class Runner:
    """Runs Cases, one computing at a time. What befalls one of them ends that one alone.

    Args:
        limits: of time.
        watch: look for what disturbs each round.

    Attributes:
        live: the Cases at work by their ids, in the order in which they began.
        lives: what the workers of a Case left that have finished, by its id, until its row is recorded.
        ended: the rows that this runner has recorded, by the ids of their Cases.
        rounds: what disturbed each watched round.
        resolves: what the rounds of each scenario can tell apart: see ``bench.run.lives.Resolves``.
        clock: seconds, that the budget is spent by.
        objections: of ``execute``.
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
        self._gpu: Gpu | None = None
        self.objections: Mapping[str, str] = {}
        self.live: dict[str, Live] = {}
        self.lives: dict[str, list[dict[str, Any]]] = {}
        self.ended: dict[str, CaseResult] = {}
        self.rounds: list[RoundState] = []
        self.resolves: dict[str, dict[str, Any]] = {}
        self.clock = self._workers.clock

    def pids(self) -> list[int]:
        """This process and its workers: what else computes is a disturbance."""
        return [os.getpid(), *(live.worker.pid for live in self.live.values())]

    def execute(self, cases: Sequence[Case], order: Order, objections: Mapping[str, str] | None = None) -> None:
        """Runs the Cases that have no final result yet.

        Args:
            order: who takes turns with whom; ``bench.run.schedule.by_scenario`` is a run's.
            objections: why Cases cannot be valid whatever they give, by their ids. They run, and end as ``invalid``.

        Raises:
            KeyboardInterrupt: after every unfinished Case has been recorded: as ``interrupted``, or where time is up
                (``Terminated``) with the rounds that it has.
        """
        finished = {
            result.case.case_id for result in self.run.case_results() if result.status is not Status.INTERRUPTED
        }
        todo = [case for case in cases if case.case_id not in finished]
        self.run.drop_parts(case.case_id for case in todo)  # of lives that somebody stopped
        self.objections = objections or {}
        self._gpu = open_gpu({case.device for case in todo}) if self._watch else None
        watching = Monitor(self.pids, gpu=self._gpu) if self._watch else nullcontext()
        with watching as self._monitor:
            try:
                order(self, todo)
            except KeyboardInterrupt as stop:
                self._interrupted(todo, isinstance(stop, Terminated))
                raise
            finally:
                for live in self.live.values():
                    live.worker.kill()
                self.live.clear()
                inputs.drop(self.run.path)

    def _interrupted(self, todo: Iterable[Case], time_is_up: bool) -> None:
        for case in todo:
            live = self.live.get(case.case_id)
            if case.case_id in self.ended:
                continue
            if time_is_up and case.scenario != "accuracy" and live and live.first_round is not None:
                live.stop_reason = "terminated"
                self.finish(case)
            elif time_is_up and case.case_id in self.lives:
                if live:
                    live.worker.kill()
                self.conclude(case)
            else:
                self.end(case, Status.INTERRUPTED, "the run was stopped; go on with --resume")

    # --- what an order does with Cases ------------------------------------------------------------------------

    def admit(self, cases: Sequence[Case], least: int = 2) -> int:
        """Starts and warms up as many Cases as memory has room for, but at least two; gives how many were taken."""
        taken = 0
        while taken < len(cases):
            more = min(host.allowed_cores(), len(cases) - taken)
            while more > max(0, least - taken) and not self._has_room(more):
                more -= 1
            if not more:
                break
            self._start_all(cases[taken : taken + more], taken)
            taken += more
        for case in cases[:taken]:
            while self.turn(case, WARM_UP_ROUND, SLICE_NS) and not self.live[case.case_id].progress.warm:
                pass
        return taken

    def _has_room(self, more: int) -> bool:
        on_gpu = self._gpu is None or self._gpu.has_room(more)
        return on_gpu and self._workers.has_room(self.pids()[1:], more)

    def start(self, case: Case) -> bool:
        """Has a worker load the Case; False where that has ended it."""
        self._start_all([case])
        return case.case_id in self.live

    def _start_all(self, cases: Sequence[Case], first: int = 0) -> None:
        """Has a worker each load these Cases side by side: loading is not timed. ``first``: how many began before."""
        make, starting = self._workers.make or self._local_worker, list[Live]()
        for index, case in enumerate(cases, start=first):
            if case.case_id not in self.lives:
                self.listener.case_started(case)
            starting.append(Live(case, make(case), index, _now()))
            self.live[case.case_id] = starting[-1]
        context = self.context.to_dict()
        with ThreadPoolExecutor(len(starting)) as pool:
            try:
                answers = [
                    pool.submit(self._answer, live, {"do": "start", "case": live.case.to_dict(), "context": context})
                    for live in starting
                ]
                for live, answer in zip(starting, answers, strict=True):
                    self._heard(live, answer.result())
            except BaseException:
                for live in starting:
                    live.worker.kill()  # else the pool would wait for it
                raise

    def _local_worker(self, case: Case) -> WorkerHandle:
        return channel.LocalWorker(self.run.log_path(case.case_id), case.threads * case.instances)

    def turn(self, case: Case, round_: int, slice_ns: int, cpus: Sequence[int] = ()) -> Progress | None:
        """Has a live Case work for a slice, on these cores; None where it is not alive, or that has ended it."""
        live = self.live.get(case.case_id)
        where = {"cpus": list(cpus)} if cpus else {}
        answer = live and self._ask(live, {"do": "turn", "round": round_, "slice_ns": slice_ns, **where})
        if not live or not answer:
            return None
        if live.first_round is None and round_ >= 0:
            live.first_round = round_
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

    def finish(self, case: Case, last: bool = True) -> bool:
        """Has a live Case write its results, and ends its worker; False where that failed.

        Args:
            last: no other worker measures it after this one: its row is recorded.
        """
        live = self.live.get(case.case_id)
        answer = live and self._ask(live, {"do": "finish", "stop_reason": live.stop_reason})
        if not live or not answer:
            return False
        lives = self.lives.setdefault(case.case_id, [])
        if case.scenario != "accuracy":
            self.run.end_life(case.case_id, len(lives))
        place = {"first_round": live.first_round, "start_index": live.start_index}
        lives.append({**answer, "place": place, "started_at": live.started_at})
        del self.live[case.case_id]  # from here on, who interrupts finds the life among those that are over
        live.worker.stop()
        if last:
            self.conclude(case)
        return True

    def conclude(self, case: Case) -> None:
        """Records the row of a Case of what its lives left."""
        lives = self.lives[case.case_id]
        fallback = next(filter(None, (life["proof"].get("fallback", "") for life in lives)), "")
        refused = next((life["metrics"]["invalid"] for life in lives if "invalid" in life["metrics"]), "")
        objection = self.objections.get(case.case_id, refused)
        self._record(
            case,
            Status.INVALID if objection else Status.FALLBACK if fallback else Status.OK,
            "; ".join(filter(None, [objection, fallback])),
            stage=lives[-1]["stage"],
            metrics=merged_metrics(case, lives),
            proof={**lives[0]["proof"], "fallback": fallback},
            bad_images=tuple(lives[0]["bad_images"]),
        )

    def end(self, case: Case, status: Status, reason: str, cause: str = "") -> None:
        """Records why a Case has no results, and ends its worker where it has one; what others measured goes."""
        if case.case_id in self.live:
            self.live[case.case_id].worker.kill()
        self.run.drop_parts([case.case_id])
        self._record(case, status, reason, metrics={CAUSE: cause} if cause else {})

    # --- the steps of a Case ----------------------------------------------------------------------------------

    def _ask(self, live: Live, message: channel.Message) -> channel.Message | None:
        """The answer; None where there is none, which has ended the Case with a row."""
        return self._heard(live, self._answer(live, message))

    def _answer(self, live: Live, message: channel.Message) -> channel.Message | channel.WorkerFailed:
        """The answer, or why there is none; of several workers in threads of their own."""
        remaining = max(LEAST_TURN_SECONDS, self.limits.timeout_seconds - live.used_seconds)
        started = time.monotonic()
        try:
            return live.worker.ask(message, remaining)
        except channel.WorkerFailed as failure:
            return failure
        finally:
            live.used_seconds += time.monotonic() - started

    def _heard(self, live: Live, answer: channel.Message | channel.WorkerFailed) -> channel.Message | None:
        if not isinstance(answer, channel.WorkerFailed):
            return answer
        if answer.status is Status.TIMEOUT:
            answer = channel.too_slow(self.limits.timeout_seconds)
        log = self.run.log_path(live.case.case_id).name
        see = f"; see logs/{log}" if answer.status is Status.CRASHED else ""
        self.end(live.case, answer.status, f"{answer.line}{see}", answer.cause)
        return None

    def _record(self, case: Case, status: Status, reason: str, **results: Any) -> None:
        live, lives = self.live.pop(case.case_id, None), self.lives.pop(case.case_id, [])
        started_at = lives[0]["started_at"] if lives else live.started_at if live else _now()
        self.take(CaseResult(case, status, reason, started_at=started_at, ended_at=_now(), **results))

    def take(self, result: CaseResult) -> None:
        """Records a row, of Cases of its own or of those that ran elsewhere."""
        self.ended[result.case.case_id] = result = self.run.append_case(result)
        self.listener.case_ended(result)


# What becomes of a figure that every life has; of others the last life's stands.
_MERGED: Mapping[str, Callable[[list[Any]], Any]] = {
    "load_ns": statistics.median,
    "peak_rss_bytes": max,
    "energy_joules_per_image": statistics.fmean,
    "n_warmup": sum,
    "n_bad_images": max,
    "n_pipeline_fallbacks": max,
    "are_probabilities": all,
    "warmup_settled": all,
    "load": lambda parts: {**parts[-1], "tests": [test for part in parts for test in part["tests"]]},
    LOGS: lambda parts: dict(ChainMap(*parts)),
}


def merged_metrics(case: Case, lives: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics of a Case's row, of those that its workers left; ``lives`` say where the rounds of each begin."""
    metrics = dict(lives[-1]["metrics"])
    for name, merge in _MERGED.items():
        values = [life["metrics"][name] for life in lives if name in life["metrics"]]
        if len(values) > 1:
            metrics[name] = merge(values)
    return metrics if case.scenario == "accuracy" else {**metrics, "lives": [life["place"] for life in lives]}


def give_up(run: RunFolder, cases: Iterable[Case], reason: str, listener: Listener) -> None:
    """Records every Case as unavailable, for one reason that holds for all of them."""
    for case in cases:
        result = CaseResult(case, Status.UNAVAILABLE, reason, started_at=_now(), ended_at=_now())
        run.append_case(result)
        listener.case_ended(result)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
