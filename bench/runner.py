"""Drives workers through their Cases in interleaved rounds; every planned Case becomes exactly one row."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

from bench import memory, schedule, wire
from bench.backends.base import Unavailable
from bench.case import Case, Status
from bench.results import CaseResult, RunFolder
from bench.tasks import Context, Progress
from models.errors import BenchError

WARM_UP_ROUND = -1
ACCURACY_SLICE_NS = 500_000_000
LATENCY_SLICE_NS = 50_000_000

# Time to import the libraries and load a model counts against --timeout; a turn never gets less than this, so that
# a Case cannot be declared dead between two slices.
LEAST_TURN_SECONDS = 1.0


class Listener(Protocol):
    """Hears how the run goes. Its methods must not raise."""

    def case_started(self, case: Case) -> None: ...

    def progress(self, case: Case, fraction: float, detail: str) -> None: ...

    def case_ended(self, result: CaseResult) -> None: ...


class WorkerHandle(Protocol):
    """A place where one Case runs. ``wire.LocalWorker`` is the one on this machine."""

    def call(self, message: wire.Message, timeout_seconds: float) -> wire.Message: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Live:
    """A Case at work."""

    case: Case
    worker: WorkerHandle
    started_at: str
    oom_kills: int
    used_seconds: float = 0.0
    busy_ns: int = 0
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
        make_worker: Callable[[Case], WorkerHandle] | None = None,
    ) -> None:
        self._run = run
        self._context = asdict(context)
        self._listener = listener
        self._timeout_seconds = timeout_seconds
        self._budget_seconds = budget_seconds
        self._seed = seed
        self._make_worker = make_worker or self._local_worker
        self._live: dict[str, Live] = {}

    def _local_worker(self, case: Case) -> WorkerHandle:
        return wire.LocalWorker(self._run.log_path(case.case_id), case.threads * case.instances)

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
        for case in cases:
            with self._ends_quietly():
                self._start(case)
        for live in self._members(cases):
            with self._ends_quietly():
                self._turn(live, WARM_UP_ROUND, LATENCY_SLICE_NS)
                while not live.progress.warm:
                    self._turn(live, WARM_UP_ROUND, LATENCY_SLICE_NS)
        spent_before_ns = {live.case.case_id: live.busy_ns for live in self._members(cases)}
        orders = schedule.rounds([case.case_id for case in cases], self._seed)
        for round_, order in enumerate(orders):
            members = self._members(cases)
            spent_ns = sum(live.busy_ns - spent_before_ns[live.case.case_id] for live in members)
            # A Case that has reached its aim goes on until the slowest has, so that every round is complete and
            # every pair of Cases can be compared round by round.
            if not members or spent_ns >= budget_seconds * 1e9 or all(live.progress.done for live in members):
                break
            for case_id in order:
                if case_id in self._live:
                    with self._ends_quietly():
                        self._turn(self._live[case_id], round_, LATENCY_SLICE_NS)
                        self._say_budget(self._live.get(case_id), spent_ns / (budget_seconds * 1e9))
        for live in self._members(cases):
            with self._ends_quietly():
                self._finish(live)

    def _say_budget(self, live: Live | None, fraction: float) -> None:
        if live is not None:
            self._listener.progress(live.case, min(1.0, fraction), live.progress.detail)

    def _members(self, cases: Sequence[Case]) -> list[Live]:
        return [self._live[case.case_id] for case in cases if case.case_id in self._live]

    # --- the steps of a Case --------------------------------------------------------------------------------------

    def _start(self, case: Case) -> Live:
        self._listener.case_started(case)
        live = Live(case, self._make_worker(case), _now(), memory.oom_kills())
        self._live[case.case_id] = live
        self._ask(live, {"do": "start", "case": case.to_dict(), "context": self._context})
        return live

    def _turn(self, live: Live, round_: int, slice_ns: int) -> None:
        answer = self._ask(live, {"do": "turn", "round": round_, "slice_ns": slice_ns})
        live.progress = Progress(**{name: answer[name] for name in Progress.__dataclass_fields__})
        live.busy_ns += live.progress.busy_ns
        self._listener.progress(live.case, live.progress.fraction, live.progress.detail)

    def _finish(self, live: Live) -> None:
        answer = self._ask(live, {"do": "finish"})
        live.worker.stop()
        del self._live[live.case.case_id]
        fallback = answer["proof"].get("fallback", "")
        self._record(
            live.case,
            live.started_at,
            Status.FALLBACK if fallback else Status.OK,
            fallback,
            stage=answer["stage"],
            metrics=answer["metrics"],
            proof=answer["proof"],
            bad_images=tuple(answer["bad_images"]),
        )

    def _ask(self, live: Live, message: wire.Message) -> wire.Message:
        """Sends a message; whatever goes wrong ends the Case with a row."""
        remaining = max(LEAST_TURN_SECONDS, self._timeout_seconds - live.used_seconds)
        started = time.monotonic()
        try:
            answer = live.worker.call(message, remaining)
        except wire.WorkerTimeout:
            limit = f"{self._timeout_seconds:g} s"
            self._end(
                live, Status.TIMEOUT, f"it took longer than --timeout ({limit}); give it more or fewer images"
            )
        except wire.WorkerDied as death:
            status, reason = self._post_mortem(live, death)
            self._end(live, status, reason)
        else:
            live.used_seconds += time.monotonic() - started
            if not answer["ok"]:
                reason = " ".join(filter(None, [answer["reason"], answer.get("do", "")]))
                self._end(live, Status(answer["status"]), reason)
            return answer
        raise AssertionError("unreachable: _end raises")

    def _post_mortem(self, live: Live, death: wire.WorkerDied) -> tuple[Status, str]:
        if death.returncode == -9 and memory.oom_kills() > live.oom_kills:
            return (
                Status.OOM,
                "the system killed it because memory ran out; use a smaller batch or fewer workers",
            )
        log = self._run.log_path(live.case.case_id).name
        said = f"; its last words: {death.last_words}" if death.last_words else ""
        return Status.CRASHED, f"the worker was {death.cause}{said}; see logs/{log}"

    def _end(self, live: Live, status: Status, reason: str) -> None:
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


class PreparationFailed(BenchError):
    """Preparing broke in a way that only its log explains."""


def prepare_files(request: dict[str, Any], log: Path, threads: int, timeout_seconds: float) -> dict[str, Any]:
    """Has a worker build the model's files, so that this process never imports a framework.

    Returns:
        ``ModelFiles`` as plain JSON types.

    Raises:
        BenchError: the model or its checkpoint is at fault.
        PreparationFailed: building took too long, crashed or met a bug.
        Unavailable: a package that the model needs is missing.
    """
    worker = wire.LocalWorker(log, threads)
    whole_log = f"The whole log is {log}."
    try:
        answer = worker.call({"do": "prepare", "request": request}, timeout_seconds)
    except wire.WorkerTimeout:
        what = f"preparing the model took longer than {timeout_seconds:g} s"
        raise PreparationFailed(what, f"Give a larger --timeout. {whole_log}") from None
    except wire.WorkerDied as death:
        what = f"preparing the model failed: the worker was {death.cause}; its last words: {death.last_words}"
        raise PreparationFailed(what, whole_log) from None
    except KeyboardInterrupt:
        worker.kill()
        raise
    worker.stop()
    if answer["ok"]:
        files: dict[str, Any] = answer["files"]
        return files
    if answer["status"] == Status.UNAVAILABLE.value:
        raise Unavailable(answer["reason"])
    if "do" in answer:
        raise BenchError(answer["reason"], answer["do"])
    raise PreparationFailed(f"preparing the model failed: {answer['reason']}", whole_log)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
