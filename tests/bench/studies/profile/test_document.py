"""Figures of a profile's rows, by hand."""

from dataclasses import asdict

import pytest
from pydantic import TypeAdapter

from bench.backends.profiler import Node, Recording
from bench.report.document import table_of
from bench.studies.profile.document import Ridge, columns, ridge_of, rows_of, sentences, totals_of
from bench.studies.profile.layers import Joined, ModelNode


def node(name: str, op: str, bytes_moved: int | None, *samples_ns: float) -> Node:
    return Node(name, op, bytes_moved=bytes_moved, samples_ns=samples_ns)


CONV = node("a", "Conv", 100, 1000.0, 3000.0, 2000.0)
ACT = node("b", "HardSwish", None, 10.0, 10.0, 1010.0)
REORDER = node("r", "Reorder", 40, 500.0, 500.0, 500.0)
ROWS = [
    Joined("m.0.conv", [CONV], [ModelNode("a", "Conv", "m.0.conv", multiply_adds=600)], 0),
    Joined("m.0.act", [ACT], [ModelNode("b", "HardSwish", "m.0.act")], 1),
    Joined("(runtime) Reorder", [REORDER]),
]
RIDGE = Ridge(gflop_per_s=50.0, copy_gbyte_per_s=10.0)


def test_rows_by_layer() -> None:
    conv, act, own = rows_of(ROWS, batch=2, ridge=RIDGE)
    assert (conv.median_ns, conv.multiply_adds, conv.bytes_moved) == (2000.0, 1200, 100)
    assert conv.gflop_per_s == pytest.approx(2 * 1200 / 2000)
    assert conv.flop_per_byte == pytest.approx(24.0)
    assert conv.side == "right", "24 FLOP/byte are more than the ridge's 5"
    assert (act.median_ns, act.gflop_per_s, act.bytes_moved, act.side) == (10.0, None, None, "")
    assert (own.name, own.joined, own.multiply_adds) == ("(runtime) Reorder", False, None)
    assert sum(row.share_percent for row in (conv, act, own)) == pytest.approx(100.0)
    assert conv.share_percent == pytest.approx(100 * 2000 / 2510)
    first, second = table_of("", columns("layer"), [conv, act]).rows
    assert first[1:-1] == ("2.00", "79.7", "0.00120", "0.100", "1.20", "24.0", "right")
    assert second[3:-1] == ("", "", "", "", "")
    assert conv.to_dict()["flop_per_byte"] == pytest.approx(24.0)


def test_a_block_is_the_median_of_sums_and_not_the_sum_of_medians() -> None:
    block, own = rows_of(ROWS, batch=1, ridge=None, by="block")
    assert block.name == "m.0"
    assert block.median_ns == 3010.0  # of 1010, 3010 and 3010; the medians add up to 2010
    assert block.nodes == 2
    assert block.bytes_moved is None, "the activation's are not known, and a sum without them would be too small"
    assert block.side == ""
    assert own.median_ns == 500.0


def test_left_of_the_ridge_memory_is_the_limit() -> None:
    ridge = Ridge(gflop_per_s=500.0, copy_gbyte_per_s=10.0)
    assert rows_of(ROWS[:1], 1, ridge)[0].side == "left"


def test_negative_differences_of_a_coarse_clock_are_no_negative_times() -> None:
    rows = rows_of([Joined("a", [node("a", "Relu", 1, -2.0, -1.0, 3.0)])], 1, None)
    assert rows[0].median_ns == 0.0
    assert rows[0].share_percent == 0.0


def recording(plain: int, profiled: int) -> Recording:
    return Recording(((plain,) * 3,), ((plain - 400,) * 3,), ((profiled,) * 3,), (CONV, ACT, REORDER), 1000)


def test_the_sum_stands_beside_whole_calls() -> None:
    totals = totals_of(recording(2900, 3190), rows_of(ROWS, 1, None))
    assert totals.rows_ns == 2510.0
    assert totals.unjoined_ns == 500.0
    assert totals.unjoined_percent == pytest.approx(100 * 500 / 2510)
    assert totals.overhead_percent == pytest.approx(10.0)
    assert totals.within_nodes_percent == pytest.approx(100 * 3510 / 3190)  # of 1510, 3510 and 3510
    assert (totals.plain_ns, totals.profiled_fastest_ns, totals.samples) == (2900.0, 3190.0, 3)
    text = "\n".join(sentences(totals, RIDGE, 1000))
    assert "profiling adds 10.0 %" in text
    assert "0.00250 ms of processor time" in text
    assert "joined to no layer: 0.000500 ms (19.9 % of the rows)" in text
    assert "steps of 1 us" in text
    assert "ridge point: 5.00 FLOP/byte" in text


def test_a_disturbed_machine_is_said_to_be_one() -> None:
    rows = rows_of(ROWS, 1, None)
    assert totals_of(recording(2900, 3190), rows).disturbed  # the medians fall short of the usual 3510
    calm = totals_of(Recording(((2400,),), ((2400,),), ((2510,),), (node("a", "Conv", 1, 2500.0),)), rows)
    assert not calm.disturbed
    assert "something else" not in "\n".join(sentences(calm, None, 1))
    assert "doctor --peak" in "\n".join(sentences(calm, None, 1))


def test_the_ridge_of_the_cases_threads_and_precision() -> None:
    peaks = [
        {"threads": 1, "gflop_per_s": {"fp32": 80.0}, "copy_gbyte_per_s": 10.0},
        {"threads": 2, "gflop_per_s": {"fp32": 150.0, "int8": 600.0}, "copy_gbyte_per_s": 12.0},
    ]
    found = ridge_of(peaks, "int8", 2)
    assert found.flop_per_byte == 50.0
    assert ridge_of(peaks, "int8", 1) is None
    assert ridge_of([], "fp32", 1) is None


def test_a_recording_survives_json() -> None:
    import json

    before = recording(1, 2)
    assert TypeAdapter(Recording).validate_python(json.loads(json.dumps(asdict(before)))) == before
