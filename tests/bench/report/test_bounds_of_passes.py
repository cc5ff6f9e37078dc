"""What bounds a pass: the limit that its parts set, and how the report tells it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_run import case, end, make_run

from bench.analysis.table import load_frame
from bench.analysis.time.quantiles import limit_of_parts, threads_of_parts
from bench.record.case import Case
from bench.record.run_folder import CaseResult, RunFolder, Status
from bench.report import tables as fmt
from bench.report.sentences import bound_lines

NS = {"decode": 2.0, "preprocess": 1.0, "compute": 6.0}


@pytest.mark.parametrize(
    ("threads", "cores", "expected"),
    [
        # All cores for each side: they take turns, 2 + 1 + 6.
        ((4, 4), 4, (9.0, "compute")),
        # More threads than cores are no more cores.
        ((16, 8), 4, (9.0, "compute")),
        # Cores of their own: the slower side alone, which is compute.
        ((2, 2), 4, (6.0, "compute")),
        # Compute on half the cores, reading on all: (2 + 1) + 6 / 2 of all cores' time is no more than compute's own 6.
        ((4, 2), 4, (6.0, "compute")),
        # Compute on all, reading on one of four: 3 / 4 + 6.
        ((1, 4), 4, (6.75, "compute")),
        # On a GPU: only the slower side counts.
        ((4, 0), 4, (6.0, "compute")),
    ],
)
def test_the_limit_is_of_turns_on_shared_cores_and_of_the_slower_side_on_own_ones(threads, cores, expected):
    readers, computing = threads
    named = {"decode": readers, "preprocess": readers, "compute": computing}
    assert limit_of_parts(NS, named, cores) == expected


def test_where_reading_is_slower_the_larger_of_its_parts_bounds_the_pass() -> None:
    own = {"decode": 1, "preprocess": 1, "compute": 1}
    assert limit_of_parts({"decode": 4.0, "preprocess": 5.0, "compute": 6.0}, own, 2) == (9.0, "preprocess")


def test_threads_of_the_parts() -> None:
    timed = case(scenario="throughput", threads=3, instances=2)
    assert threads_of_parts(CaseResult(timed, Status.OK)) == {"decode": 3, "preprocess": 3, "compute": 6}
    split = CaseResult(timed, Status.OK, metrics={"decode_threads": 1})
    assert threads_of_parts(split) == {"decode": 1, "preprocess": 1, "compute": 6}
    on_gpu = case(scenario="throughput", threads=3, device="cuda")
    assert threads_of_parts(CaseResult(on_gpu, Status.OK))["compute"] == 0


def through_run(path: Path, passes: dict[Case, float], **metrics: Any) -> RunFolder:
    """Ten rounds of a pass of 100 images in so many ns an image, with the parts in ``NS`` ns an image."""
    folder = make_run(path, passes)
    stages = {"end_to_end": 0.0, **NS}
    for timed, ns in passes.items():
        times = {**stages, "end_to_end": ns}
        folder.write_samples_part(
            timed.case_id,
            round=np.repeat(np.arange(10), len(times)),
            stage=list(times) * 10,
            images=np.full(10 * len(times), 100),
            warmup=np.zeros(10 * len(times), bool),
            latency_ns=np.array([100 * each for each in times.values()] * 10, dtype=np.int64),
        )
        end(folder, timed, stage="end_to_end", metrics=metrics)
    return folder


def test_a_row_has_the_share_of_its_limit(tmp_path: Path) -> None:
    timed = case(scenario="throughput", threads=2, batch=4)
    row = load_frame(through_run(tmp_path / "run", {timed: 10.0}, cores=2).path).iloc[0]
    assert row["sum_of_parts_images_per_s"] == pytest.approx(1e9 / 9.0)
    assert row["sum_of_parts_percent"] == pytest.approx(90.0)
    split = load_frame(through_run(tmp_path / "split", {timed: 10.0}, cores=4).path).iloc[0]
    assert split["sum_of_parts_percent"] == pytest.approx(60.0), "each side has cores of its own there"
    # A run of before this was written down: the host's cores, of which the tests' host has two.
    old = load_frame(through_run(tmp_path / "old", {timed: 10.0}).path).iloc[0]
    assert old["sum_of_parts_percent"] == pytest.approx(90.0)


def test_the_table_shows_the_parts_and_says_what_bounds_each_row(tmp_path: Path) -> None:
    good = case(scenario="throughput", threads=2, batch=4)
    lossy = case(scenario="throughput", threads=2, batch=8)
    frame = load_frame(through_run(tmp_path / "run", {good: 9.0, lossy: 18.0}, cores=2).path)
    (table,) = fmt.tables(frame)
    first, second = (dict(zip(table.header, row, strict=True)) for row in table.rows)
    # 1e9 / 2 ns images a second, with three digits.
    assert (first["Decode/s"], first["Preprocess/s"], first["Compute/s"]) == ("500000000", "1000000000", "167000000")
    assert (first["of sum of parts"], second["of sum of parts"]) == ("100 %", "50 %")
    assert first["Bound by"] == "compute"
    notes = " ".join(table.notes)
    assert "what bounds the rows: compute: pytorch batch 4, pytorch batch 8" in notes
    assert "lost beyond that: pytorch batch 8 (50 %): side by side" in notes
    (brief,) = fmt.tables(frame, brief=True)
    assert "Decode/s" not in brief.header
    assert "of sum of parts" in brief.header


def test_rows_without_parts_need_no_sentence() -> None:
    assert bound_lines([{"bound_by": ""}, {"bound_by": None}]) == ()


def test_rows_are_told_apart_by_what_differs() -> None:
    row = {
        "backend": "openvino",
        "precision": "fp32",
        "pipeline": "turbo",
        "batch": 8,
        "threads": 2,
        "instances": 1,
        "options": "",
        "bound_by": "compute",
        "sum_of_parts_percent": 97.0,
    }
    other = {**row, "options": '{"hint": "throughput"}', "pipeline": "dali", "bound_by": "decode"}
    _, bound = bound_lines([row, other])
    assert (
        bound
        == "what bounds the rows: compute: openvino pipeline turbo; decode: openvino pipeline dali hint=throughput"
    )
