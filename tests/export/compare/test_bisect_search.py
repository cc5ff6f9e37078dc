"""The search itself on made-up layers, and the figures of a difference."""

import math

import numpy as np
import pytest

from export.compare.bisect import RTOL, Collector, Compared, Difference, bisect, error_table, outputs_at_once
from export.compare.pairing import Layer
from scarlet.errors import BenchError

BATCH = np.zeros((2, 3, 4, 4), np.float32)


class Made:
    """Values that are 0 and 1 in turn, with an error in some of them; notes what it is asked for."""

    def __init__(self, wrong=()):
        self.wrong = set(wrong)
        self.asked = []

    def of(self, names, batches):
        self.asked.append(list(names))
        for batch in batches:
            right = np.tile(np.array([0.0, 1.0], np.float32), (len(batch), 1))
            yield {name: right + (0.5 if int(name[1:]) in self.wrong else 0.0) for name in names}


def chain(count, feeds=None):
    """Layers that each read the one before, or those given."""
    return [
        Layer(f"l{place}", "Made", f"v{place}", f"v{place}", f"n{place}", "Op", (feeds or {}).get(place, (place - 1,)))
        for place in range(count)
    ]


def with_first(layers):
    layers[0] = Layer(**{**layers[0].__dict__, "feeds": ()})
    return layers


@pytest.mark.parametrize("count", [1, 2, 3, 10, 177])
def test_each_place_is_found_in_few_steps_with_few_values_at_a_time(count):
    layers = with_first(chain(count))
    for first in range(count):
        other = Made(range(first, count))
        found = bisect(Compared(Made(), other, layers, [BATCH]))
        assert found.first.name == f"l{first}"
        assert found.scanned == ""
        assert max(map(len, other.asked)) <= outputs_at_once(count)
        assert found.looked_at == sum(map(len, other.asked)) <= 3 * outputs_at_once(count) + 1
        assert len(other.asked) <= 5


def test_agreement_looks_at_one_handful_and_the_output_is_in_it():
    other = Made()
    found = bisect(Compared(Made(), other, with_first(chain(100)), [BATCH, BATCH]))
    assert found.first is None
    assert other.asked == [list(other.asked[0])]
    assert other.asked[0][-1] == "v99"


def test_a_fault_hidden_for_a_while_is_found_by_the_scan_and_said():
    # Layers 20 and 21 differ, the ReLU behind hides it; 60 and all after differ as well, through another path.
    layers = with_first(chain(100))
    wrong = [20, 21, *range(60, 100)]
    layers[60] = Layer(**{**layers[60].__dict__, "feeds": (21, 59)})
    other = Made(wrong)
    found = bisect(Compared(Made(), other, layers, [BATCH]))
    assert found.first.name == "l20"
    assert "l60 reads l21" in found.scanned
    assert max(map(len, other.asked)) <= 7


def test_a_layer_that_agrees_again_makes_the_search_look_at_all_before():
    layers = with_first(chain(100))
    found = bisect(Compared(Made(), Made([3, *range(40, 70), 99]), layers, [BATCH]))
    assert found.first.name == "l3"
    assert "agrees again after" in found.scanned


def test_what_the_output_hides_is_found_only_when_every_layer_is_asked_for():
    layers = with_first(chain(100))
    assert bisect(Compared(Made(), Made([31]), layers, [BATCH])).first is None
    found = bisect(Compared(Made(), Made([31]), layers, [BATCH]), every_layer=True)
    assert found.first.name == "l31"
    assert found.looked_at < 40
    assert found.scanned == "every layer was requested"
    assert bisect(Compared(Made(), Made(), layers, [BATCH]), every_layer=True).first is None


def test_a_suspect_is_looked_at_though_the_output_hides_it():
    layers = with_first(chain(100))
    found = bisect(Compared(Made(), Made([31]), layers, [BATCH]), suspects=[31, 80])
    assert found.first.name == "l31"
    assert "agrees again after l31" in found.scanned
    # One before a fault that the output shows is looked at, too; one without effect changes nothing.
    assert bisect(Compared(Made(), Made([31, *range(70, 100)]), layers, [BATCH]), suspects=[31]).first.name == "l31"
    assert bisect(Compared(Made(), Made(), layers, [BATCH]), suspects=[31]).first is None


def test_a_table_of_all_layers_worst_first_a_few_at_a_time():
    other = Made([7])
    rows = error_table(Compared(Made(), other, with_first(chain(20)), [BATCH]))
    assert len(rows) == 20
    assert rows[0][0].name == "l7"
    assert rows[0][1].sqnr_db == pytest.approx(10 * math.log10(2))  # power 1/2 against 1/4
    assert rows[1][1].sqnr_db == math.inf
    assert max(map(len, other.asked)) == 5


@pytest.mark.parametrize("batches", [[], [BATCH[:0]]])
def test_no_images_is_a_clear_error(batches):
    with pytest.raises(BenchError, match="no images"):
        bisect(Compared(Made(), Made(), chain(2), batches))
    with pytest.raises(BenchError, match="no images"):
        error_table(Compared(Made(), Made(), chain(2), batches))


def measured(reference, other, pieces=1):
    collector = Collector()
    for mine, theirs in zip(np.array_split(reference, pieces), np.array_split(other, pieces), strict=True):
        collector.add(mine, theirs)
    return collector.difference()


@pytest.mark.parametrize("pieces", [1, 3])
def test_figures_of_a_difference_are_those_of_the_whole(pieces):
    source = np.random.default_rng(0)
    reference = source.standard_normal((6, 5, 4, 4)).astype(np.float32)
    other = reference + 1e-3 * source.standard_normal(reference.shape).astype(np.float32)
    other[4, 3, 1, 2] += 0.25
    found = measured(reference, other, pieces)
    apart = np.abs(reference.astype(np.float64) - other)
    assert found.max_abs == apart.max()
    assert found.spread == pytest.approx(reference.astype(np.float64).std())
    assert found.relative == pytest.approx(apart.max() / reference.std())
    assert found.worst_channel == 3
    power = np.square(reference, dtype=np.float64).sum() / np.square(apart).sum()
    assert found.sqnr_db == pytest.approx(10 * np.log10(power))
    assert found.beyond(0.1)
    assert not found.beyond(0.5)


def test_a_value_that_is_one_number_is_compared_too():
    one = np.array(2.0, np.float32)
    assert measured_once(one, one + 1).max_abs == 1.0
    assert measured_once(one, one).max_abs == 0.0


def measured_once(reference, other):
    collector = Collector()
    collector.add(reference, other)
    return collector.difference()


def test_a_layer_that_does_not_vary_is_judged_by_the_absolute_part():
    still = np.ones((2, 3), np.float32)
    assert measured(still, still) == Difference(0.0, 0.0, 0.0, None, math.inf)
    apart = measured(still, still + np.float32(1e-3))
    assert (apart.spread, apart.relative) == (0.0, math.inf)
    assert apart.beyond(RTOL)
    assert not measured(still, still + np.float32(5e-7)).beyond(RTOL)
    silent = measured(0 * still, still)
    assert silent.sqnr_db == -math.inf


def test_values_that_are_not_finite_agree_only_with_the_same():
    values = np.array([[1.0, np.nan, np.inf, -np.inf]], np.float32)
    assert measured(values, values).max_abs == 0.0
    for place in range(4):
        other = values.copy()
        other[0, place] = np.nan if place != 1 else 0.0
        found = measured(values, other)
        assert found.max_abs == math.inf
        assert found.beyond(RTOL)


def test_shapes_that_differ_are_a_difference():
    found = measured(np.zeros((2, 3)), np.zeros((2, 4)))
    assert found.shapes == ((3,), (4,))
    assert found.beyond(1e9)
