"""Distributions at few of their steps."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report.charts.ecdf import thinned

few = settings(max_examples=60, deadline=None)


@few
@given(st.integers(1, 3000), st.integers(5, 200), st.sampled_from([3, 10**9]))
def test_thinning_keeps_the_ends_and_the_median(n_samples: int, most: int, largest: int) -> None:
    ordered = np.sort(np.random.default_rng(n_samples).integers(1, largest, n_samples))
    values, shares = thinned(ordered, most)
    assert len(values) == len(shares) <= max(most, 1)
    assert (values[0], values[-1], shares[-1]) == (ordered[0], ordered[-1], 1.0)
    assert np.all(np.diff(shares) > 0)
    assert np.all(np.diff(values) >= 0)
    n = len(ordered)
    middles = {(n + 1) // 2 / n, (n // 2 + 1) / n}
    kept = dict(zip(shares.tolist(), values.tolist(), strict=True))
    assert np.mean([kept[share] for share in middles]) == np.median(ordered)
    # Every step that is kept is one of the whole distribution, at its own height.
    assert np.array_equal(ordered[np.round(shares * n).astype(int) - 1], values)
