"""A list of intervals with few rows and with many."""

import pytest

from bench.report.charts.axes import linear
from bench.report.charts.bars import MOST_NAMED, Bars
from bench.report.charts.chart import POINT_AT


@pytest.mark.parametrize(("n", "is_named"), [(3, True), (MOST_NAMED, True), (200, False)])
def test_many_bars_lose_their_text(n: int, is_named: bool) -> None:
    values = [{"place": place, "name": "x", "figure": "1", "kind": "one", "at": 1.0} for place in range(n)]
    ways = [("one", "#000000", "circle"), ("other", "#FFFFFF", "cross")]
    chart = Bars(values, linear("ms"), "at", "kind", ways, []).chart("x", "X", [], "1 row.")
    marks = [layer.to_dict()["mark"]["type"] for layer in chart.layers]
    assert (marks.count("text"), POINT_AT in chart.notes) == (2 * is_named, not is_named)
    assert n < chart.height < 1500
    assert chart.legend == ("one",)
