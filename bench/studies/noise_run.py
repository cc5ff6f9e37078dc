"""Drives an A/A run: two copies of a Case take turns, and then work one after the other, again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bench.analysis.time.verdict import RatioStop
from bench.record.case import Case, Status
from bench.record.machine import NoiseResult
from bench.record.run_folder import CaseResult, RunFolder, utc_now
from bench.run import schedule
from bench.studies.noise import REPETITION, SEQUENTIAL, resolution_of
from bench.worker import channel
from bench.worker.channel import WorkerHandle
from bench.worker.messages import Context
from scarlet.errors import BenchError

# More make the bounds of short comparisons surer, fewer leave each more time to drift.
REPETITIONS = 6
SLICE_NS = 50_000_000
WARM_UP_ROUND = -1
# As many as a comparison of two Cases takes at the least.
MIN_ROUNDS = RatioStop.min_rounds


def measure(
    folder: RunFolder,
    context: Context,
    cases: tuple[Case, Case],
    host: Mapping[str, Any],
    host_fingerprint: str,
    say: Callable[[float, str], None] = lambda fraction, detail: None,
    budget_seconds: float = 60.0,
    timeout_seconds: float = 600.0,
    repetitions: int = REPETITIONS,
    seed: int = 0,
    make_worker: Callable[[Case], WorkerHandle] | None = None,
) -> NoiseResult:
    """Measures two copies of a Case both ways; their samples and rows go to the run's folder.

    A repetition is a stretch of interleaved rounds, then as many slices of the first copy alone, then as many of the
    second. Both workers live and are warm all the time.

    Args:
        folder: of the run.
        context: what the workers need.
        cases: as of ``noise_cases``.
        host: as of ``describe_host``, taken before anything began.
        host_fingerprint: of that host.
        say: hears how far it is (0..1), and some words.
        budget_seconds: for the timed slices of all repetitions together.
        timeout_seconds: for each answer of a worker.
        repetitions: how many.
        seed: of the order of turns.
        make_worker: how to start a worker; a local process by default.

    Raises:
        BenchError: a copy could not be measured.
    """
    make = make_worker or (
        lambda case: channel.LocalWorker(folder.log_path(case.case_id), case.threads * case.instances)
    )
    started_at = utc_now()
    workers: dict[Case, WorkerHandle] = {}
    try:
        for case in cases:
            say(0.0, f"loading {case.label}")
            workers[case] = make(case)
            start = {"do": "start", "case": case.to_dict(), "context": context.to_dict()}
            _ask(case, workers[case], start, timeout_seconds)
        for case, worker in workers.items():
            warm_up = {"do": "turn", "round": WARM_UP_ROUND, "slice_ns": SLICE_NS}
            while not _ask(case, worker, warm_up, timeout_seconds)["warm"]:
                pass
        _take_turns(cases, workers, say, budget_seconds, timeout_seconds, repetitions, seed)
        for case, worker in workers.items():
            answer = _ask(case, worker, {"do": "finish"}, timeout_seconds)
            fallback = str(answer["proof"].get("fallback", ""))
            folder.append_case(
                CaseResult(
                    case=case,
                    status=Status.FALLBACK if fallback else Status.OK,
                    reason=fallback,
                    stage=answer["stage"],
                    metrics=answer["metrics"],
                    proof=answer["proof"],
                    bad_images=tuple(answer["bad_images"]),
                    started_at=started_at,
                    ended_at=utc_now(),
                )
            )
            worker.stop()
    except BaseException:
        for worker in workers.values():
            worker.kill()
        raise
    samples = folder.samples()
    # On a GPU a call leaves a sample of each stage.
    headline = samples[samples["stage"].astype(str) == str(answer["stage"])]
    return NoiseResult(
        resolution=resolution_of(headline, cases),
        host_fingerprint=host_fingerprint,
        measured_at=utc_now(),
        load_1m=host.get("load_1m"),
        model=cases[0].model,
        backend=cases[0].backend,
        device=cases[0].device,
        precision=cases[0].precision,
        batch=cases[0].batch,
        threads=cases[0].threads,
    )


def _take_turns(
    cases: tuple[Case, Case],
    workers: Mapping[Case, WorkerHandle],
    say: Callable[[float, str], None],
    budget_seconds: float,
    timeout_seconds: float,
    repetitions: int,
    seed: int,
) -> None:
    spent_ns, share_ns = 0.0, budget_seconds * 1e9 / repetitions

    def turn(case: Case, round_: int) -> None:
        nonlocal spent_ns
        answer = _ask(
            case, workers[case], {"do": "turn", "round": round_, "slice_ns": SLICE_NS}, timeout_seconds
        )
        spent_ns += answer["busy_ns"]
        fraction = min(1.0, spent_ns / (budget_seconds * 1e9))
        say(fraction, f"repetition {round_ // REPETITION + 1} of {repetitions}: {answer['detail']}")

    orders = schedule.rounds(cases, seed)
    for repetition in range(repetitions):
        base, began_ns, n_rounds = repetition * REPETITION, spent_ns, 0
        # Half of the repetition's time in turns, and then the same number of slices for each copy alone. An even
        # number of rounds: each copy has led as often as the other.
        while n_rounds < MIN_ROUNDS or n_rounds % 2 or spent_ns - began_ns < share_ns / 2:
            for case in next(orders):
                turn(case, base + n_rounds)
            n_rounds += 1
        for number, case in enumerate(cases):
            for place in range(n_rounds):
                turn(case, base + SEQUENTIAL + number * n_rounds + place)


def _ask(
    case: Case, worker: WorkerHandle, message: channel.Message, timeout_seconds: float
) -> channel.Message:
    """An answer, or a ``BenchError`` that says why there is none: without both copies there is nothing to tell."""
    try:
        return worker.ask(message, timeout_seconds)
    except channel.WorkerFailed as failure:
        reason = failure.line
    raise BenchError(
        f"the A/A run of {case.backend} ended early: {reason}",
        "See what scarlet-bench run says of this backend, or name another one.",
    )
