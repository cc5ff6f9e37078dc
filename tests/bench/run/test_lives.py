"""Lives: how many, in what order, when they are enough, and what becomes of a Case that several workers measure."""

import math
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bench_fakes import Clock, HereWorker, Recorder, fake_case

from bench import host
from bench.record import raw_tables
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder
from bench.run import schedule
from bench.run.lives import START_SHARE, Plan, Seen, how_many, start_order
from bench.run.runner import Workers
from bench.worker import channel, serve
from scarlet.processes import Terminated

ONE, OTHER = fake_case(seed="1", latency_ns="5000000"), fake_case(seed="2", latency_ns="10000000")

RunCases = Callable[..., tuple[RunFolder, Recorder]]


def rows(folder: RunFolder) -> dict[Case, CaseResult]:
    return {result.case: result for result in folder.case_results()}


@pytest.mark.parametrize(("members", "n_lives"), [("AB", 2), ("ABC", 6), ("ABCD", 4), ("ABCDE", 10), ("ABCDEF", 6)])
def test_every_member_starts_in_every_place_equally_often_and_before_each_other_in_half(members, n_lives):
    orders = [start_order(members, life) for life in range(n_lives)]
    assert orders[0] == list(members), "the one that others are compared with leads the first"
    places = Counter((place, each) for order in orders for place, each in enumerate(order))
    assert set(places.values()) == {n_lives // len(members)}
    for one in members:
        for other in set(members) - {one}:
            assert sum(order.index(one) < order.index(other) for order in orders) == n_lives / 2


def test_two_members_alternate_in_pairs() -> None:
    assert ["".join(start_order("AB", life)) for life in range(6)] == ["AB", "BA", "BA", "AB", "AB", "BA"]
    assert start_order("A", 3) == ["A"]


@pytest.mark.parametrize(
    ("start_seconds", "budget_seconds", "expected"),
    [
        (3.0, 60.0, 8),
        (10.0, 120.0, 6),
        (13.0, 120.0, 4),
        (15.0, 60.0, 4),
        (16.0, 60.0, 1),
        (0.0, 60.0, 12),
        (0.1, 600.0, 12),
        (4.3, 60.0, 6),
    ],
)
def test_starts_take_at_most_their_share_of_the_budget_where_four_lives_do(start_seconds, budget_seconds, expected):
    found = how_many(start_seconds, budget_seconds)
    assert found == expected
    assert found in (1, 4, 6) or found * start_seconds <= START_SHARE * budget_seconds


def test_each_life_has_new_workers_in_turned_order_and_rounds_are_numbered_on(run_cases: RunCases) -> None:
    made: list[Case] = []

    def make(case: Case) -> HereWorker:
        made.append(case)
        return HereWorker()

    folder, recorder = run_cases(ONE, OTHER, lives=4, budget_seconds=16.0, workers=Workers(make), watch=True)
    assert made == [ONE, OTHER, OTHER, ONE, OTHER, ONE, ONE, OTHER]
    assert recorder.started == [ONE, OTHER], "a listener hears of a Case once"
    assert [result.case for result in recorder.ended] in ([ONE, OTHER], [OTHER, ONE])
    kept = {case: row.metrics["lives"] for case, row in rows(folder).items()}
    assert [life["start_index"] for life in kept[ONE]] == [0, 1, 1, 0]
    assert [life["start_index"] for life in kept[OTHER]] == [1, 0, 0, 1]
    firsts = [life["first_round"] for life in kept[ONE]]
    assert firsts == [life["first_round"] for life in kept[OTHER]] == sorted(set(firsts))
    samples = folder.samples().query("not warmup")
    assert set(samples["round"]) == set(range(samples["round"].max() + 1)) == set(folder.rounds()["round"])
    assert min(np.diff([*firsts, samples["round"].max() + 1])) >= schedule.LEAST_ROUNDS["latency"]
    metrics = rows(folder)[ONE].metrics
    assert metrics["n_warmup"] == len(folder.samples().query("warmup and case_id == @ONE.case_id"))
    assert metrics["warmup_settled"] is True
    folder.merge_parts()
    assert len(folder.samples().query("not warmup")) == len(samples)
    assert len((folder.path / "cases.jsonl").read_text().splitlines()) == 2


def test_the_budget_is_wall_time_with_the_starts(run_cases: RunCases) -> None:
    clock = Clock(start_seconds=2.5)
    folder, _ = run_cases(ONE, OTHER, lives=None, budget_seconds=70.0, clock=clock)
    # Two starts and warm-up of 40 calls: 5.6 s a life; six of them are 34 of 70 s.
    assert len(rows(folder)[ONE].metrics["lives"]) == 6
    assert {row.metrics["stop_reason"] for row in rows(folder).values()} == {"budget"}
    assert 70.0 <= clock() < 71.0, "to the end of the budget, and of a pair of rounds"


def test_rounds_come_in_pairs_so_that_either_of_two_leads_as_often(run_cases: RunCases) -> None:
    folder, _ = run_cases(ONE, OTHER, lives=4, budget_seconds=10.0)
    firsts = [life["first_round"] for life in rows(folder)[ONE].metrics["lives"]]
    lengths = np.diff([*firsts, folder.samples()["round"].max() + 1])
    assert not (lengths % 2).any()


def test_a_budget_that_starts_use_up_leaves_each_life_a_pair_of_rounds(run_cases: RunCases) -> None:
    folder, _ = run_cases(ONE, OTHER, lives=4, budget_seconds=1.0, clock=Clock(9.0))
    assert [life["first_round"] for life in rows(folder)[ONE].metrics["lives"]] == [0, 2, 4, 6]


def test_a_budget_that_four_starts_do_not_fit_in_gets_one_life_and_says_so(run_cases: RunCases) -> None:
    folder, recorder = run_cases(ONE, OTHER, lives=None, budget_seconds=40.0, clock=Clock(9.0))
    assert len(rows(folder)[ONE].metrics["lives"]) == 1
    assert any("four starts" in note for note in recorder.notes)


def test_where_only_a_verdict_is_wanted_four_lives_are_taken_whatever_the_budget(run_cases: RunCases) -> None:
    order = schedule.Lives(1, 40.0, pairs_only=True)
    folder, recorder = run_cases(ONE, OTHER, lives=None, budget_seconds=40.0, clock=Clock(9.0), order=order)
    assert len(rows(folder)[ONE].metrics["lives"]) == 4
    assert not any("one life" in note for note in recorder.notes)


def test_it_ends_early_after_whole_lives_where_all_is_known(run_cases: RunCases) -> None:
    folder, _ = run_cases(ONE, OTHER, lives=12, budget_seconds=50.0)
    assert {row.metrics["stop_reason"] for row in rows(folder).values()} == {"precision"}
    assert [len(row.metrics["lives"]) for row in rows(folder).values()] == [6, 6]


def test_a_lone_case_ends_where_its_time_is_known_over_lives() -> None:
    quiet, loud = ({"a": [{0: 1e6 * (1 + spread * life)} for life in range(6)]} for spread in (1e-4, 1e-2))
    assert Seen(1, quiet, {"a": [0] * 6}).is_enough([("a", "a")])
    assert not Seen(1, loud, {"a": [0] * 6}).is_enough([("a", "a")])
    assert not Seen(1, {"a": quiet["a"][:5]}, {"a": [0] * 5}).is_enough([("a", "a")]), "it is too early to look"


@pytest.mark.parametrize("spread", [0.008, 0.012])
def test_ending_early_costs_little_of_what_the_interval_promises(spread: float) -> None:
    """It is narrower than asked for when rounds end, and still holds the truth nearly as often."""
    source, held, early = np.random.default_rng(4), 0, 0
    for _ in range(1000):
        lives = [{0: 1e6 * math.exp(source.normal(0, spread))} for _ in range(12)]
        for n_lives in range(1, 13):
            seen = Seen(1, {"a": lives[:n_lives]}, {"a": [0] * n_lives})
            if seen.is_enough([("a", "a")]):
                early += n_lives < 12
                break
        over = seen.over(("a", "a"))
        assert over is not None
        assert over.low is not None
        assert over.high is not None
        held += over.low <= 1e6 <= over.high
    assert early > 400
    assert held >= 925


def test_figures_of_all_lives_become_one_row(run_cases: RunCases) -> None:
    answers = iter(range(4))

    class Changed(HereWorker):
        """Says of each life something else."""

        def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
            answer = super().ask(request, timeout_seconds)
            if request["do"] == "finish":
                life = next(answers)
                answer["metrics"] |= {"load_ns": 10 * life**2, "peak_rss_bytes": [5, 9, 7, 6][life]}
                answer["metrics"] |= {"warmup_settled": life != 1, "energy_joules_per_image": 1.0 + life}
                answer["proof"] |= {"life": life, "fallback": "it fell back" if life == 2 else ""}
            return answer

    folder, _ = run_cases(ONE, lives=4, budget_seconds=8.0, workers=Workers(lambda case: Changed()))
    row = rows(folder)[ONE]
    kept = {name: row.metrics[name] for name in ("load_ns", "peak_rss_bytes", "energy_joules_per_image")}
    assert kept == {"load_ns": 25, "peak_rss_bytes": 9, "energy_joules_per_image": 2.5}
    assert row.metrics["warmup_settled"] is False
    assert (row.status, row.reason) == (Status.FALLBACK, "it fell back")
    assert (row.proof["life"], row.proof["fallback"]) == (0, "it fell back")


def test_a_case_that_fails_in_a_later_life_ends_there_and_what_it_measured_is_not_kept(run_cases: RunCases) -> None:
    made: list[Case] = []

    def make(case: Case) -> HereWorker:
        made.append(case)
        return HereWorker(channel.dead(7, "no more") if made.count(ONE) == 2 and case == ONE else None)

    folder, _ = run_cases(ONE, OTHER, lives=4, budget_seconds=16.0, workers=Workers(make))
    assert made.count(ONE) == 2, "it is not started again"
    assert made.count(OTHER) == 4
    found = rows(folder)
    assert (found[ONE].status, found[OTHER].status) == (Status.CRASHED, Status.OK)
    assert "lives" not in found[ONE].metrics
    assert set(folder.samples()["case_id"]) == {OTHER.case_id}


def test_a_run_that_was_stopped_between_lives_begins_them_anew(run_cases: RunCases, tmp_path: Path) -> None:
    made: list[Case] = []

    def make(case: Case) -> HereWorker:
        made.append(case)
        if len(made) == 6:
            raise KeyboardInterrupt
        return HereWorker()

    with pytest.raises(KeyboardInterrupt):
        run_cases(ONE, OTHER, lives=4, budget_seconds=16.0, workers=Workers(make), watch=True)
    folder = RunFolder.open(tmp_path / "run")
    assert {row.status for row in rows(folder).values()} == {Status.INTERRUPTED}
    taken = len(folder.rounds())
    assert taken
    raw_tables.part_path(folder.path, ONE.case_id, "samples", 9).touch()  # as a run that was killed leaves it
    run_cases(ONE, OTHER, lives=4, budget_seconds=16.0, watch=True, folder=folder)
    assert rows(folder)[ONE].metrics["lives"][0]["first_round"] == taken
    assert folder.samples()["round"].drop_duplicates().loc[lambda rounds: rounds >= 0].min() == taken


@pytest.mark.parametrize("life", [1, 2])
def test_what_is_measured_when_time_is_up_makes_rows(run_cases: RunCases, tmp_path: Path, life: int) -> None:
    made: list[Case] = []

    class TimedOut(HereWorker):
        """SIGTERM comes in its third round, or, in the second life, while it is loading."""

        turns = 0

        def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
            answer = super().ask(request, timeout_seconds)
            self.turns += request["do"] == "turn" and request["round"] >= 0
            if self.turns == 3 if life == 1 else len(made) > 2:
                self.turns = -100
                raise Terminated
            return answer

    def make(case: Case) -> HereWorker:
        made.append(case)
        return TimedOut() if case == OTHER else HereWorker()

    with pytest.raises(Terminated):
        run_cases(ONE, OTHER, lives=4, budget_seconds=16.0, workers=Workers(make))
    folder = RunFolder.open(tmp_path / "run")
    found = rows(folder)
    assert {row.status for row in found.values()} == {Status.OK}
    assert (found[ONE].metrics["stop_reason"], len(found[ONE].metrics["lives"])) == (
        "terminated" if life == 1 else "",
        1,
    )
    measured = folder.samples().query("not warmup").groupby("case_id")["round"].nunique()
    assert measured[ONE.case_id] >= 2
    assert measured[OTHER.case_id] >= 2


def test_time_is_up_while_a_worker_ends(run_cases: RunCases, tmp_path: Path) -> None:
    class EndsSlowly(HereWorker):
        """SIGTERM comes while the process is awaited, to which nothing can be sent any more."""

        ended = False

        def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
            assert not self.ended
            return super().ask(request, timeout_seconds)

        def stop(self) -> None:
            self.ended = True
            if not signals:
                signals.append(1)
                raise Terminated

    signals: list[int] = []
    with pytest.raises(Terminated):
        run_cases(ONE, OTHER, lives=4, budget_seconds=16.0, workers=Workers(lambda case: EndsSlowly()))
    found = rows(RunFolder.open(tmp_path / "run"))
    assert {row.status for row in found.values()} == {Status.OK}
    assert len(found[ONE].metrics["lives"]) == len(found[OTHER].metrics["lives"]) == 1


def test_workers_load_side_by_side_on_as_many_cores_as_there_are(run_cases, monkeypatch):
    monkeypatch.setattr(host, "allowed_cores", lambda: 2)
    both, at_once, lock = threading.Barrier(2, timeout=20.0), Counter[str](), threading.Lock()

    class Meeting(HereWorker):
        """Loads when another one does."""

        def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
            with lock:
                at_once["now"] += 1
                at_once[request["do"]] = max(at_once[request["do"]], at_once["now"])
            if request["do"] == "start":
                both.wait()
            try:
                return super().ask(request, timeout_seconds)
            finally:
                with lock:
                    at_once["now"] -= 1

    cases = [fake_case(seed=str(number)) for number in range(4)]
    folder, _ = run_cases(*cases, budget_seconds=1.0, workers=Workers(lambda case: Meeting()))
    assert {row.status for row in rows(folder).values()} == {Status.OK}
    assert (at_once["start"], at_once["turn"]) == (2, 1), "one computes at a time"


def test_an_accident_while_workers_load_ends_all_and_waits_for_none(run_cases: RunCases) -> None:
    made: list[HereWorker] = []
    killed, seen = threading.Event(), []

    class Loading(HereWorker):
        """Loads until it is killed."""

        def ask(self, request: channel.Message, timeout_seconds: float) -> channel.Message:
            seen.append(killed.wait(10.0))
            raise channel.WorkerFailed(Status.CRASHED, "killed")

        def kill(self) -> None:
            super().kill()
            killed.set()

    def make(case: Case) -> HereWorker:
        made.append(HereWorker() if case == OTHER else Loading())
        if case == OTHER:
            made[-1].ask = lambda request, seconds: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        return made[-1]

    with pytest.raises(ZeroDivisionError):
        run_cases(OTHER, ONE, workers=Workers(make))
    assert [worker.ended for worker in made] == ["killed", "killed"]
    assert seen == [True]


def test_groups_that_memory_holds_have_their_lives_one_after_the_other(run_cases: RunCases) -> None:
    cases = [fake_case(latency_ns=str(5_000_000 + number), seed=str(number)) for number in range(3)]
    workers = Workers(has_room=lambda pids, more: False)
    folder, _ = run_cases(*cases, lives=4, budget_seconds=16.0, workers=workers)
    firsts = [[life["first_round"] for life in rows(folder)[case].metrics["lives"]] for case in cases]
    assert firsts[0] == [*firsts[1], *firsts[2]], "the first lives beside each of the others"
    assert len(set(firsts[0])) == 8


def test_all_of_a_pair_of_rounds_are_kept_on_the_same_cores(run_cases, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 3})
    kept: list[tuple[int, ...]] = []
    monkeypatch.setattr(serve, "keep_on", lambda cpus: kept.append(tuple(cpus)))
    run_cases(ONE, OTHER, budget_seconds=6.0, rotate_cores=True)
    pairs = [set(kept[first : first + 4]) for first in range(0, len(kept), 4)]
    assert pairs[:4] == [{(0,)}, {(2,)}, {(3,)}, {(0,)}]
    two, all_of_them = replace(ONE, threads=2), replace(ONE, threads=3)
    assert [schedule.core_sets([two])(n) for n in range(3)] == [(0, 2), (0, 3), (2, 3)]
    assert schedule.core_sets([two, all_of_them])(0) == (), "where their threads need all cores they have all"


def test_every_thread_of_a_worker_goes_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: dict[int, Any] = {}

    def move(thread: int, cpus: Any) -> None:
        if thread == 8:
            raise ProcessLookupError
        moved[thread] = cpus

    monkeypatch.setattr(os, "listdir", lambda path: ["7", "8", "9"])
    monkeypatch.setattr(os, "sched_setaffinity", move)
    serve.keep_on([1])
    assert moved == {7: [1], 9: [1]}


def drawn(source: np.random.Generator, ratio: float, spread: float, n_lives: int, n_rounds: int) -> Seen:
    """Lives of two Cases whose rounds differ by so much, and whose processes do not."""
    numbers = np.arange(n_lives * n_rounds).reshape(n_lives, -1)
    times = ratio * np.exp(source.normal(0.0, spread, numbers.shape))
    own = [dict(zip(*each, strict=True)) for each in zip(numbers.tolist(), times.tolist(), strict=True)]
    base = [dict.fromkeys(each, 1.0) for each in numbers.tolist()]
    order = [start_order("ab", life) for life in range(n_lives)]
    return Seen(1, {"a": own, "b": base}, {each: [start.index(each) for start in order] for each in "ab"})


def test_what_is_said_to_be_told_apart_is_in_four_of_five_runs() -> None:
    source, found = np.random.default_rng(5), 0
    plan = Plan(lives=6, start_seconds=4.0, rounds_seconds=6.0)
    for _ in range(300):
        first = drawn(source, 1.0, 0.05, 1, 30)
        said = first.resolves(("a", "b"), plan, 0.03)
        run = drawn(source, 1.0 + said.difference, 0.05, 6, 30).over(("a", "b"))
        assert run is not None
        found += bool(run.low and run.low > 1.03)
    assert 0.72 <= found / 300 <= 0.92
    assert (said.lives, said.rounds, said.over_lives) == (6, 180, False)


def test_a_budget_is_told_that_would_resolve_five_per_cent() -> None:
    plan = Plan(lives=6, start_seconds=4.0, rounds_seconds=6.0)
    said = drawn(np.random.default_rng(1), 1.0, 0.1, 1, 30).resolves(("a", "b"), plan, 0.03)
    assert said.difference > 0.05
    assert said.budget_seconds is not None
    longer = (said.budget_seconds - 24) / 36
    enough, rounds = Plan(6, 4.0, 6.0 * longer), round(30 * longer)
    again = drawn(np.random.default_rng(1), 1.0, 0.1, 1, rounds).resolves(("a", "b"), enough, 0.03)
    assert again.difference == pytest.approx(0.05, abs=0.003)
    assert f"--budget {math.ceil(said.budget_seconds / 10) * 10}" in said.sentence
    assert "less than this machine resolves" in replace(said, budget_seconds=None).sentence
    assert "--budget" not in replace(said, difference=0.04).sentence


def test_once_lives_are_over_their_spread_counts() -> None:
    seen = drawn(np.random.default_rng(2), 1.0, 0.01, 6, 20)
    for life, rounds in enumerate(seen.times["a"]):
        rounds.update({number: time * math.exp(0.05 * (-1) ** (life // 2)) for number, time in rounds.items()})
    plan = Plan(6, 4.0, 6.0)
    said = seen.resolves(("a", "b"), plan, 0.03)
    assert said.over_lives
    assert said.spread > 0.04
    assert (
        said.difference
        > 0.1
        > drawn(np.random.default_rng(2), 1.0, 0.01, 1, 20).resolves(("a", "b"), plan, 0.03).difference
    )


def test_a_run_says_it_once_and_keeps_it(run_cases: RunCases) -> None:
    noisy = [fake_case(seed=str(number), noise="0.3", latency_ns="10000000") for number in range(2)]
    _, recorder = run_cases(*noisy, lives=4, budget_seconds=60.0)
    (note,) = recorder.notes
    assert note.startswith("latency: differences of ")
