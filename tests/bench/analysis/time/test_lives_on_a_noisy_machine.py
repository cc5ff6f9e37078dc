"""Verdicts over lives on a machine on which processes differ: the simulation of docs/method.md, with fewer seeds.

Bounds lie three standard errors of 200 seeds beyond what is promised.
"""

import sys
from dataclasses import replace

import numpy as np
import pytest
from folders import ROOT
from noisy_machine import DIFFERING, QUIET, TWO_STATES, Noise

from bench.analysis.stats import intervals
from bench.analysis.time.quantiles import median_over_lives

sys.path.insert(0, str(ROOT / "docs" / "experiments"))

import simulated_lives as experiment

SEEDS, LIVES = 200, 6
SLACK = 4.6  # per cent: three standard errors at 95 % of 200 seeds

MACHINES = {"alike": QUIET, "differ": DIFFERING, "differ, t(3)": replace(DIFFERING, freedom=3), "states": TWO_STATES}


@pytest.mark.parametrize("noise", MACHINES.values(), ids=list(MACHINES))
def test_the_interval_holds_the_ratio_and_definite_verdicts_are_seldom_wrong(noise: Noise) -> None:
    found = experiment.simulated(noise, LIVES, SEEDS)
    assert experiment.held(found) >= 95.0 - SLACK
    assert max(experiment.wrong(found)) <= 5.0 + SLACK


def test_eight_per_cent_are_found_where_processes_differ() -> None:
    found = experiment.simulated(DIFFERING, LIVES, SEEDS)
    assert experiment.verdicts(found, experiment.LARGE)["slower"] >= 90.0


def test_one_life_says_what_another_start_would_not() -> None:
    """Why lives: the same rounds of one start, with the materiality that lives have."""
    found = experiment.simulated(DIFFERING, 1, SEEDS)
    assert experiment.held(found) <= 50.0
    assert experiment.wrong(found)[1] >= 30.0


def test_comparisons_of_one_baseline_hold_together() -> None:
    """Each pair of Cases is drawn anew here, which is no easier than one baseline for all."""
    found = experiment.simulated(DIFFERING, LIVES, SEEDS, comparisons=5)
    assert experiment.held(found) >= 97.5


def test_calls_of_a_round_are_alike_and_the_median_of_a_row_knows_it() -> None:
    noise, order, held, pooled = replace(DIFFERING, first=0.0), experiment.starts(LIVES), 0, 0
    n_rounds = experiment.rounds_of(LIVES)
    for seed in range(SEEDS):
        source = np.random.default_rng(seed)
        calls = noise.call_times(noise.rounds(order, n_rounds, source)[0], 15, source).reshape(-1, 15)
        _, low, high = median_over_lives(np.median(calls, axis=1), np.repeat(range(LIVES), n_rounds).tolist())
        every = intervals.sign_test_interval(calls)
        held += low <= 1.0 <= high
        pooled += every.low <= 1.0 <= every.high
    assert held >= 0.95 * SEEDS - 2 * SLACK
    assert pooled <= 0.6 * SEEDS
