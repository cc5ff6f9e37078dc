import itertools
from collections import Counter

import pytest

from bench.record.case import Case
from bench.run import schedule


def test_two_members_alternate_who_leads_within_each_pair_of_rounds() -> None:
    orders = list(itertools.islice(schedule.rounds("AB", seed=3), 40))
    for first, second in zip(orders[::2], orders[1::2], strict=True):
        assert first == second[::-1]


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_every_member_stands_once_in_every_place_of_a_square(count: int) -> None:
    members = list(range(count))
    orders = schedule.rounds(members, seed=1)
    for _ in range(5):
        square = list(itertools.islice(orders, count))
        assert all(sorted(order) == members for order in square)
        for place in range(count):
            assert sorted(order[place] for order in square) == members


def test_a_linear_drift_adds_the_same_to_every_member() -> None:
    members = "ABCD"
    totals: Counter[str] = Counter()
    for round_, order in enumerate(itertools.islice(schedule.rounds(members, seed=9), 4 * 25)):
        for place, member in enumerate(order):
            totals[member] += round_ * len(members) + place
    assert max(totals.values()) / min(totals.values()) < 1.01


def test_the_seed_decides_the_orders() -> None:
    def taken(seed: int) -> list[tuple[str, ...]]:
        return list(itertools.islice(schedule.rounds("ABCDE", seed), 20))

    assert taken(1) == taken(1)
    assert taken(1) != taken(2)


def test_nobody_to_schedule_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        next(schedule.rounds([]))


@pytest.mark.parametrize(("budget_seconds", "n_timed", "seconds"), [(160, 2, 4.0), (160, 64, 0.5), (10**6, 0, 600.0)])
def test_a_test_of_loadgens_takes_a_twentieth_of_a_cases_share(budget_seconds, n_timed, seconds):
    cases = [Case("net", "user", "fake", scenario="accuracy")]
    cases += [Case("net", "user", "fake", scenario="offline", batch=n + 1) for n in range(n_timed)]
    assert schedule.load_seconds(budget_seconds, cases) == seconds
