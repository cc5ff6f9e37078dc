"""On a fake clock: a call takes as long as the script says."""

from collections.abc import Callable

import numpy as np
import pytest

from bench.worker.sampling import MIN_SAMPLES_PER_TURN, LatencySampler, WarmUpRule

SLICE_NS = 50_000_000


class Script:
    """A clock that a call moves by what ``latency_ns(call number)`` says."""

    def __init__(self, latency_ns: Callable[[int], int]) -> None:
        self.now_ns = 0
        self.calls = 0
        self._latency_ns = latency_ns

    def call(self) -> None:
        self.now_ns += self._latency_ns(self.calls)
        self.calls += 1

    def clock_ns(self) -> int:
        return self.now_ns


def sampler(script: Script, per_turn: int = MIN_SAMPLES_PER_TURN, **rules: object) -> LatencySampler:
    made = LatencySampler(script.call, script.clock_ns, **rules)  # type: ignore[arg-type]
    made.min_samples_per_turn = per_turn
    return made


def warmed(script: Script, slice_ns: int = SLICE_NS, **rules: object) -> LatencySampler:
    made = sampler(script, **rules)
    while not made.warm:
        made.warm_up_turn(slice_ns)
    return made


def test_a_steady_call_settles_after_two_windows() -> None:
    made = warmed(Script(lambda _: 10_000_000))
    assert made.settled
    assert made.n_warmup == 40


def test_warm_up_lasts_until_the_slow_start_has_left_both_windows() -> None:
    falling = Script(lambda call: 10_000_000 + max(0, 50 - call) * 400_000)
    made = warmed(falling, slice_ns=1, per_turn=1)
    assert made.settled
    assert 70 <= made.n_warmup <= 90


def test_a_call_that_never_settles_is_given_up_on_and_says_so() -> None:
    rule = WarmUpRule(max_ns=500_000_000)
    made = warmed(Script(lambda call: 1_000_000 * (call + 1)), warm_up=rule)
    assert made.warm
    assert not made.settled
    assert sum(made.samples.latency_ns) >= rule.max_ns


def test_a_turn_lasts_its_slice_and_at_least_five_samples() -> None:
    quick, slow = Script(lambda _: 1_000_000), Script(lambda _: 100_000_000)
    for script, expected in ((quick, 50), (slow, 5)):
        made = sampler(script)
        made.turn(0, SLICE_NS)
        assert made.samples.warmup.count(False) == expected


def test_the_first_call_of_a_turn_is_warm_up_because_others_used_the_caches() -> None:
    made = sampler(Script(lambda call: 9_000_000 if call % 6 == 0 else 1_000_000))
    for round_ in range(4):
        made.turn(round_, 1)
    measured = [
        latency_ns
        for latency_ns, warmup in zip(made.samples.latency_ns, made.samples.warmup, strict=True)
        if not warmup
    ]
    assert measured == [1_000_000] * 20
    assert made.n_warmup == 4
    assert made.samples.round == [round_ for round_ in range(4) for _ in range(6)]


@pytest.mark.parametrize("shift", [1.06, 0.94])
def test_windows_that_differ_by_more_than_five_per_cent_have_not_settled(shift: float) -> None:
    before, after = np.full(20, 1_000_000), np.full(20, round(1_000_000 * shift))
    assert not WarmUpRule().settled(np.concatenate([before, after]))
    assert WarmUpRule().settled(np.concatenate([before, before]))


def test_one_wild_sample_in_ten_does_not_keep_warm_up_going() -> None:
    quiet = np.full(20, 1_000_000)
    struck = quiet.copy()
    struck[::10] *= 5
    assert WarmUpRule().settled(np.concatenate([quiet, struck]))


@pytest.mark.parametrize(("scatter", "passes"), [(0.01, 0.97), (0.03, 0.69), (0.06, 0.52)])
def test_a_slow_change_passes_as_often_as_the_method_says(scatter: float, passes: float) -> None:
    source = np.random.default_rng(0)
    faster = np.exp(-0.04 * np.arange(40) / 20)
    noise = source.normal(0, scatter, (1000, 40))
    settled = [WarmUpRule().settled((1e7 * faster * np.exp(each)).astype(np.int64)) for each in noise]
    assert np.mean(settled) == pytest.approx(passes, abs=0.05)
