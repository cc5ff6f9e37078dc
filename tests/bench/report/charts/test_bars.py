"""A list of intervals with few rows and with many."""

from bench.report.charts.axes import linear
from bench.report.charts.bars import MOST_NAMED, Bars, height_of
from bench.report.charts.theme import SCREEN


def test_many_bars_lose_their_text() -> None:
    few, many = (Bars(SCREEN, n, linear("ms")) for n in (MOST_NAMED, MOST_NAMED + 1))
    assert (len(few.texts()), len(few.tracks())) == (2, 1)
    assert many.texts() == many.tracks() == []
    assert height_of(200) < 1500
    assert height_of(3) > height_of(2)
