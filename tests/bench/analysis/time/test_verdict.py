"""bench.analysis.time.verdict: the rule, who is compared with whom, lives, and what is refused."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bench.analysis.stats import intervals
from bench.analysis.stats.lives import location, over_lives
from bench.analysis.time import verdict
from bench.analysis.time.verdict import Verdict
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult

PYTORCH = Case(model="scarlet_c", weights="random", backend="pytorch")
ORT = replace(PYTORCH, backend="onnxruntime")
INT8 = replace(ORT, precision="int8")


def ended(case, status=Status.OK, **more):
    return CaseResult(case, status, **{"stage": "compute", **more})


def samples(times, stage="compute", per_round=3, images=1):
    """Rounds of calls with these medians: one call far above, one far below; before each round a warm-up call."""
    rows = []
    for case, medians in times.items():
        for round_, median in enumerate(medians):
            spread = [median, 5 * median, median / 5][:per_round]
            calls = [(True, 9 * median), *((False, time) for time in spread)]
            rows += [(case.case_id, round_, stage, images, warmup, time) for warmup, time in calls]
    names = ["case_id", "round", "stage", "images", "warmup", "latency_ns"]
    return pd.DataFrame(rows, columns=names).astype({"case_id": "category", "stage": "category"})


BASE = np.linspace(1000.0, 1500.0, 12)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (1.04, 1.06, Verdict.SLOWER),
        (1.02, 1.06, Verdict.UNRESOLVED),  # material by its middle, not as a whole
        (0.94, 0.96, Verdict.FASTER),
        (0.94, 0.98, Verdict.UNRESOLVED),
        (0.98, 1.02, Verdict.SAME),
        (1.001, 1.02, Verdict.SAME),  # a difference, and too small to matter
        (0.98, 1.04, Verdict.UNRESOLVED),
        (0.90, 1.10, Verdict.UNRESOLVED),
        (1 / 1.03, 1.03, Verdict.SAME),
        (None, None, Verdict.UNRESOLVED),
    ],
)
def test_the_whole_interval_decides(low, high, expected):
    assert verdict.decide(low, high) is expected


positive = st.floats(0.1, 10.0)


@given(positive, positive, st.floats(0.0, 0.5))
def test_turning_the_ratio_over_turns_the_verdict_over(first, second, material):
    low, high = sorted((first, second))
    mirrored = {Verdict.FASTER: Verdict.SLOWER, Verdict.SLOWER: Verdict.FASTER}
    one, other = verdict.decide(low, high, material), verdict.decide(1 / high, 1 / low, material)
    edges = (1 + material, 1 / (1 + material))
    assume(all(abs(end / edge - 1) > 1e-9 for end in (low, high) for edge in edges))
    assert mirrored.get(one, one) is other


@given(positive, positive, st.floats(0.0, 0.3), st.floats(0.0, 0.3))
def test_more_materiality_never_turns_faster_into_slower_nor_same_into_either(first, second, m, more):
    low, high = sorted((first, second))
    before, after = verdict.decide(low, high, m), verdict.decide(low, high, m + more)
    if before is Verdict.SAME:
        assert after is Verdict.SAME
    assert {before, after} != {Verdict.FASTER, Verdict.SLOWER}


@pytest.mark.parametrize(
    ("noise", "resolution", "materiality"),
    [
        (None, None, 0.03),
        ({}, None, 0.03),
        ({"resolution": 0.021}, 0.021, 0.03),
        ({"resolution": 0.08}, 0.08, 0.08),
        ({"resolution": None}, None, 0.03),
        ({"resolution": math.nan}, None, 0.03),
        ({"resolution": -1.0}, None, 0.03),
        ({"resolution": "0.1"}, None, 0.03),
    ],
)
def test_materiality_is_three_per_cent_or_what_the_machine_resolves(noise, resolution, materiality):
    assert verdict.resolution({"noise": noise}) == resolution
    assert verdict.materiality({"noise": noise}) == materiality


def test_the_baseline_is_pytorch_in_fp32_wherever_it_stands():
    found = verdict.baselines([INT8, ORT, PYTORCH])
    assert found == dict.fromkeys((each.case_id for each in (INT8, ORT, PYTORCH)), PYTORCH.case_id)


def test_without_pytorch_in_fp32_the_first_is_the_baseline():
    half = replace(PYTORCH, precision="fp16")
    assert set(verdict.baselines([INT8, half, ORT]).values()) == {INT8.case_id}


@pytest.mark.parametrize(
    "change",
    [
        *({"batch": 8}, {"threads": 2}, {"instances": 2}, {"device": "cuda"}),
        *({"pipeline": "reference"}, {"scenario": "throughput"}, {"model": "scarlet_a"}),
    ],
)
def test_other_settings_are_other_groups_and_a_case_alone_has_no_baseline(change):
    apart = replace(ORT, **change)
    assert verdict.baselines([PYTORCH, apart]) == {}
    assert set(verdict.baselines([PYTORCH, ORT, apart])) == {PYTORCH.case_id, ORT.case_id}


def test_accuracy_is_not_timed():
    assert verdict.baselines([replace(each, scenario="accuracy") for each in (PYTORCH, ORT)]) == {}


def test_the_ratio_is_of_round_medians_and_the_drift_cancels():
    found = verdict.compare([ended(PYTORCH), ended(ORT)], samples({PYTORCH: BASE, ORT: BASE / 4}))
    other = found[ORT.case_id]
    assert (other.ratio, other.low, other.high) == pytest.approx((0.25, 0.25, 0.25))
    assert (other.verdict, other.n_rounds, other.baseline_case_id) == (Verdict.FASTER, 12, PYTORCH.case_id)
    baseline = found[PYTORCH.case_id]
    assert (baseline.ratio, baseline.verdict, baseline.refusal) == (None, None, "")
    assert (baseline.baseline_case_id, baseline.n_rounds) == (PYTORCH.case_id, 12)


def test_time_per_image_is_what_is_compared():
    throughput = [replace(each, scenario="throughput") for each in (PYTORCH, ORT)]
    taken = pd.concat([samples({throughput[0]: BASE}, images=100), samples({throughput[1]: BASE}, images=50)])
    found = verdict.compare([ended(each) for each in throughput], taken)[throughput[1].case_id]
    assert found.ratio == pytest.approx(2.0)
    assert found.verdict is Verdict.SLOWER


def test_only_common_rounds_count():
    short = verdict.compare([ended(PYTORCH), ended(ORT)], samples({PYTORCH: BASE, ORT: BASE[:5] / 4}))
    found = short[ORT.case_id]
    assert (found.n_rounds, found.verdict, found.low) == (5, Verdict.UNRESOLVED, None)
    assert found.ratio == pytest.approx(0.25)


def test_every_comparison_shown_widens_every_interval():
    source = np.random.default_rng(0)
    others = [replace(ORT, options=(("number", str(number)),)) for number in range(6)]
    times = {case: BASE * source.lognormal(0, 0.05, 12) for case in (PYTORCH, *others)}
    alone = verdict.compare([ended(PYTORCH), ended(others[0])], samples(times))[others[0].case_id]
    together = verdict.compare([ended(case) for case in times], samples(times))[others[0].case_id]
    assert together.low < alone.low < alone.ratio == together.ratio < alone.high < together.high
    rounds = [[verdict.round_times([ended(each)], samples(times))[each.case_id]] for each in (others[0], PYTORCH)]
    first, second = (list(each[0].values()) for each in rounds)
    assert (together.ratio, together.low, together.high) == intervals.ratio_interval(first, second, comparisons=6)


def lived(case, n_lives=6, first=True, rounds=8):
    """Its row, of lives of so many rounds; in every second life the other Case is started first."""
    known = [{"first_round": rounds * life, "start_index": int(first == bool(life % 2))} for life in range(n_lives)]
    return ended(case, metrics={"lives": known})


def of_lives(factors, noise=0.002, rounds=8):
    """Times of the baseline, and of a Case that in each life takes this much as long."""
    source = np.random.default_rng(3)
    base = source.lognormal(7, 0.1, rounds * len(factors))
    return {PYTORCH: base, ORT: base * np.repeat(factors, rounds) * source.lognormal(0, noise, len(base))}


def test_what_lives_differ_by_is_in_the_interval_and_what_is_started_first_is_taken_out():
    factors = 1.06 * np.array([1.03, 0.97, 1.05, 0.99, 1.01, 0.95])  # 3 % for what is started first
    taken = samples(of_lives(factors))
    found = verdict.compare([lived(PYTORCH, first=False), lived(ORT)], taken)[ORT.case_id]
    one = verdict.compare([ended(PYTORCH), ended(ORT)], taken)[ORT.case_id]
    assert (found.n_lives, one.n_lives) == (6, 1)
    assert found.low <= one.low < one.high <= found.high, "the hull of both"
    assert found.high / found.low > one.high / one.low
    assert found.start_effect == pytest.approx(0.03, abs=0.003)
    assert found.spread == pytest.approx(0.023, abs=0.004)
    assert (one.start_effect, one.spread) == (None, None)
    logs = np.log(list(verdict.round_times([ended(ORT)], taken)[ORT.case_id].values()))
    logs -= np.log(list(verdict.round_times([ended(PYTORCH)], taken)[PYTORCH.case_id].values()))
    expected = over_lives([location(part) for part in logs.reshape(6, 8)], [1, -1] * 3)
    assert (found.ratio, found.high) == pytest.approx((expected.ratio, expected.high))


def test_lives_that_happen_to_agree_say_no_more_than_their_rounds():
    source = np.random.default_rng(1)
    wide = np.tile(source.normal(0, 0.2, 8), 6)
    times = {PYTORCH: np.full(48, 1000.0), ORT: 1100 * np.exp(wide)}
    found = verdict.compare([lived(PYTORCH, first=False), lived(ORT)], samples(times))[ORT.case_id]
    signs = intervals.ratio_interval(times[ORT], times[PYTORCH])
    assert (found.low, found.high) == pytest.approx((signs.low, signs.high))
    assert found.spread == pytest.approx(0.0, abs=1e-6)
    assert found.high / found.low > 1.05


def test_within_one_life_a_definite_verdict_asks_for_twice_the_materiality():
    taken = samples(of_lives([1.05] * 6))
    rows = [[lived(PYTORCH, n, first=False, rounds=r), lived(ORT, n, rounds=r)] for n, r in ((6, 8), (1, 48))]
    many, one = (verdict.compare(each, taken)[ORT.case_id] for each in rows)
    assert (many.verdict, one.verdict) == (Verdict.SLOWER, Verdict.SAME)


def test_a_baseline_that_lived_on_is_paired_by_the_rounds_of_both():
    """Memory held two Cases at a time: the baseline had all twelve lives, the other one the last six."""
    times = of_lives([1.0] * 6 + [1.2] * 6)
    own = ended(ORT, metrics={"lives": [{"first_round": 8 * life, "start_index": 1} for life in range(6, 12)]})
    base = ended(PYTORCH, metrics={"lives": [{"first_round": 8 * life, "start_index": 0} for life in range(12)]})
    taken = samples(times)
    taken = taken[(taken["case_id"] != ORT.case_id) | (taken["round"] >= 48)]
    found = verdict.compare([base, own], taken)[ORT.case_id]
    assert (found.n_lives, found.n_rounds, found.start_effect) == (6, 48, None)
    assert found.ratio == pytest.approx(1.2, rel=0.01)


def test_cases_that_are_not_ok_take_no_part():
    found = verdict.compare(
        [ended(PYTORCH, Status.FAILED, reason="x"), ended(ORT), ended(INT8)],
        samples({PYTORCH: BASE, ORT: BASE, INT8: BASE}),
    )
    assert set(found) == {ORT.case_id, INT8.case_id}
    assert found[INT8.case_id].baseline_case_id == ORT.case_id


def test_a_case_without_samples_is_no_baseline():
    found = verdict.compare([ended(PYTORCH), ended(ORT), ended(INT8)], samples({ORT: BASE, INT8: BASE}))
    assert found[INT8.case_id].baseline_case_id == ORT.case_id
    assert (found[PYTORCH.case_id].baseline_case_id, found[PYTORCH.case_id].n_rounds) == ("", 0)


def test_disturbed_rounds_are_counted_and_kept():
    rounds = pd.DataFrame({"round": [0, 1, 2, 3, 50], "disturbed": [True, False, True, True, True]})
    taken = samples({PYTORCH: BASE, ORT: BASE})
    found = verdict.compare([ended(PYTORCH), ended(ORT)], taken, rounds)[ORT.case_id]
    assert (found.n_rounds, found.n_disturbed_rounds) == (12, 3)
    apart = rounds.assign(scenario=["latency", "latency", "throughput", "throughput", "latency"])
    assert verdict.compare([ended(PYTORCH), ended(ORT)], taken, apart)[ORT.case_id].n_disturbed_rounds == 1


def test_rows_of_different_stages_are_not_compared():
    taken = pd.concat([samples({PYTORCH: BASE}), samples({ORT: BASE}, stage="h2d")])
    found = verdict.compare([ended(PYTORCH), ended(ORT, stage="h2d")], taken)[ORT.case_id]
    assert found.refusal == "not compared: it timed h2d and pytorch timed compute"
    assert (found.ratio, found.verdict, found.n_rounds) == (None, None, 12)


def test_only_samples_of_the_own_stage_count():
    mixed = pd.concat([samples({PYTORCH: BASE, ORT: BASE}), samples({ORT: BASE * 9}, stage="h2d")])
    assert verdict.compare([ended(PYTORCH), ended(ORT)], mixed)[ORT.case_id].ratio == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("started", "refused"), [("2026-01-01T10:05:00.000+00:00", True), ("2026-01-01T09:59:00.000+00:00", False)]
)
def test_cases_of_two_sessions_are_not_compared(started, refused):
    baseline = ended(PYTORCH, started_at="2026-01-01T09:58:00+00:00", ended_at="2026-01-01T10:00:00+00:00")
    other = ended(ORT, started_at=started, ended_at="2026-01-01T10:09:00+00:00")
    found = verdict.compare([baseline, other], samples({PYTORCH: BASE, ORT: BASE}))[ORT.case_id]
    assert ("resumed" in found.refusal) is refused
    assert (found.ratio is None) is refused
    # A time without its zone cannot be set against one with it: nothing is refused for that.
    assert verdict.refusal(replace(other, started_at="2026-01-01T10:05:00"), baseline) == ""


def test_a_clock_that_stood_still_gives_no_ratio():
    found = verdict.compare([ended(PYTORCH), ended(ORT)], samples({PYTORCH: BASE, ORT: BASE * 0}))
    assert "a time above 0" in found[ORT.case_id].refusal
    assert found[ORT.case_id].verdict is None
