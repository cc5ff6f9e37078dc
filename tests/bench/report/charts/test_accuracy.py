"""The Pareto front of accuracy against latency."""

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report.charts.accuracy import front

few = settings(max_examples=60, deadline=None)
small = st.integers(0, 6).map(float)


@few
@given(st.lists(st.tuples(small, small), max_size=12))
def test_the_front_is_what_no_other_point_beats(points: list[tuple[float, float]]) -> None:
    beaten = {
        place
        for place, (cost, worth) in enumerate(points)
        if any(c <= cost and w >= worth and (c, w) != (cost, worth) for c, w in points)
    }
    found = front(points)
    assert sorted(found) == sorted(set(range(len(points))) - beaten)
    assert [points[place] for place in found] == sorted(points[place] for place in found)
