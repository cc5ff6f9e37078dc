"""Several builds of one plan: the Cases they are, and what the report says of their differences."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench.analysis.accuracy.predictions import Predicted
from bench.record.case import Case
from bench.report.sentences import build_groups, build_lines, build_options
from scarlet.errors import BenchError

BASE = Case(model="scarlet_c", weights="demo", backend="tensorrt", device="cuda", precision="fp16", batch=8)


def build(number: int, base: Case = BASE, **other: str) -> Case:
    pairs = {"build": str(number), **other}
    return replace(base, options=tuple(sorted(pairs.items())))


def test_a_count_of_builds_is_a_list_of_numbers() -> None:
    assert build_options(1) == ()
    assert build_options(3) == ("tensorrt.build=1,2,3",)
    with pytest.raises(BenchError, match="--builds 0"):
        build_options(0)


def test_only_cases_that_are_alike_but_for_their_build_are_grouped() -> None:
    other = build(1, replace(BASE, batch=1))
    cases = [build(1), BASE, other, build(2), build(1, graph="yes"), build(2, graph="yes")]
    assert build_groups(cases) == [(build(1), build(2)), (build(1, graph="yes"), build(2, graph="yes"))]


def predicted(case: Case, top1: list[int], ids: Any) -> Predicted:
    n = len(top1)
    top = np.full((n, 5), -1, np.int16)
    top[:, 0] = top1
    return Predicted("run", case, "", ids, np.arange(n), np.zeros(n, np.int16), top, np.full(n, 0.5, np.float32))


def test_the_spread_of_latency_and_of_flips_is_told() -> None:
    timed = [build(number) for number in (1, 2, 3)]
    scored = [build(number, replace(BASE, scenario="accuracy")) for number in (1, 2, 3)]
    medians = [1_000_000.0, 1_050_000.0, None]
    rows = [(case.case_id, value) for case, value in zip(timed, medians, strict=True)]
    frame = pd.DataFrame(rows, columns=["case_id", "latency_ns_p50"]).convert_dtypes()
    ids = pd.Index([f"image {number}" for number in range(4)])
    tops = ([0, 1, 2, 3], [0, 1, 2, 4], [5, 1, 2, 3])
    results = [SimpleNamespace(case=case) for case in (*timed, *scored)]
    found = {case.case_id: predicted(case, top, ids) for case, top in zip(scored, tops, strict=True)}
    run: Any = SimpleNamespace(results=results, predicted=found)
    assert build_lines(frame, run) == [
        "tensorrt cuda fp16 batch 8: the medians of 2 builds are 1 to 1.05 ms; the slowest takes 5.0 % longer than "
        "the fastest",
        "tensorrt cuda fp16 batch 8: between any two of 3 builds the top-1 class of at most 2 of 4 images differs",
    ]
    assert build_lines(frame, SimpleNamespace(results=results[:1], predicted={})) == []  # type: ignore[arg-type]
