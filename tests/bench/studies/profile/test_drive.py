"""Figures of a profile's rows, by hand."""

import io
import json
from dataclasses import asdict

import pytest
from pydantic import TypeAdapter
from rich.console import Console

from bench.backends.profiler import Node, Recording
from bench.record.case import Case
from bench.report import terminal
from bench.studies.profile.drive import Profile, document, peak_of, rows_of, totals_of
from bench.studies.profile.layers import Joined, ModelNode

CONV = Node("a", "Conv", samples_ns=(1000.0, 3000.0, 2000.0))
ACT = Node("b", "HardSwish", samples_ns=(10.0, 10.0, 1010.0))
REORDER = Node("r", "Reorder", "blocked", samples_ns=(500.0, 500.0, 500.0))
LONG = "mb_module.10.a_layer_whose_name_tells_it_from_others_by_its_end_alone.conv"
ROWS = [
    Joined(LONG, [CONV], [ModelNode("a", "Conv", LONG, multiply_adds=600)], 0),
    Joined("m.0.act", [ACT], [ModelNode("b", "HardSwish", "m.0.act")], 1),
    Joined("(runtime) Reorder", [REORDER, REORDER]),
]


def recording(plain: int, profiled: int) -> Recording:
    return Recording(((plain,) * 3,), ((plain - 400,) * 3,), ((profiled,) * 3,), (CONV, ACT, REORDER, REORDER), 1000)


def profile(recorded: Recording, peak: float | None = None) -> Profile:
    rows = tuple(rows_of(ROWS, 2, peak))
    return Profile(Case("m", "demo", "onnxruntime"), rows, totals_of(recorded, rows), peak, recorded)


def test_rows_by_layer() -> None:
    found = profile(recording(2900, 3190), peak=12.0)
    conv, act, own = found.rows
    assert (conv.median_ns, conv.multiply_adds) == (2000.0, 1200)
    assert conv.gflop_per_s == pytest.approx(2 * 1200 / 2000)
    assert conv.peak_percent == pytest.approx(10.0)
    assert (act.median_ns, act.gflop_per_s, act.peak_percent) == (10.0, None, None)
    assert (own.name, own.joined, own.nodes, own.multiply_adds) == ("(runtime) Reorder", False, 2, None)
    assert own.median_ns == 1000.0, "of sums, not a sum of medians"
    assert conv.share_percent == pytest.approx(100 * 2000 / 3010)
    (table,) = document(found, 0).tables
    assert table.rows == (
        (LONG, "2.00", "66.4", "0.00120", "1.20", "10.0", "Conv"),
        ("m.0.act", "0.0100", "0.3", "", "", "", "HardSwish"),
        ("(runtime) Reorder", "1.00", "33.2", "", "", "", "2 x Reorder blocked"),
    )
    (table,) = document(profile(recording(2900, 3190)), 1).tables
    assert "% of peak" not in table.header
    assert [row[0] for row in table.rows] == [LONG], "the slowest"


def test_a_narrow_terminal_folds_a_long_name_and_cuts_none() -> None:
    stream = io.StringIO()
    terminal.show(document(profile(recording(2900, 3190)), 1), Console(file=stream, width=60))
    lines = stream.getvalue().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("mb_module"))
    folded = "".join(line.split(" ")[0] for line in lines[start : lines.index("", start)])
    assert folded == LONG


def test_negative_differences_of_a_coarse_clock_are_no_negative_times() -> None:
    (row,) = rows_of([Joined("a", [Node("a", "Relu", samples_ns=(-2.0, -1.0, 3.0))])], 1, None)
    assert (row.median_ns, row.share_percent) == (0.0, 0.0)


def test_the_sum_stands_beside_whole_calls() -> None:
    found = profile(recording(2900, 3190))
    totals = found.totals
    assert (totals["rows_ns"], totals["unjoined_ns"], totals["plain_ns"], totals["samples"]) == (3010, 1000, 2900, 3)
    assert totals["overhead_percent"] == pytest.approx(10.0)
    assert totals["within_nodes_percent"] == pytest.approx(100 * 4010 / 3190)  # of 2010, 4010 and 4010
    text = "\n".join(block.text for block in document(found, 1).blocks[1:])
    assert "2 more rows: 33.6 %" in text
    assert "profiling adds 10.0 %" in text
    assert "0.00250 ms of processor time" in text
    assert "joined to no layer: 0.00100 ms (33.2 % of the rows)" in text
    assert "steps of 1 us" in text
    assert "doctor --peak" in text
    assert "something else kept the processor busy" in text, "the medians fall short of the usual 4010"
    calm = Recording(((2900,),), ((2900,),), ((3010,),), (Node("a", "Conv", samples_ns=(3000.0,)),))
    text = "\n".join(block.text for block in document(profile(calm, 1.0), 1).blocks[1:])
    assert "something else" not in text
    assert "doctor --peak" not in text


def test_the_peak_of_the_cases_threads_and_precision() -> None:
    peaks = [{"threads": 1, "gflop_per_s": {"fp32": 80.0}}, {"threads": 2, "gflop_per_s": {"fp32": 150.0, "int8": 6.0}}]
    assert peak_of(peaks, Case("m", "demo", "openvino", precision="int8", threads=2)) == 6.0
    assert peak_of(peaks, Case("m", "demo", "openvino", precision="int8")) is None
    assert peak_of([], Case("m", "demo", "openvino")) is None


def test_a_recording_survives_json() -> None:
    before = recording(1, 2)
    assert TypeAdapter(Recording).validate_python(json.loads(json.dumps(asdict(before)))) == before
