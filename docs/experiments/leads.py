"""How far does the lead of the first class move where nothing is wrong? A table of docs/accuracy.md.

    python docs/experiments/leads.py RUN [RUN ...] [--write]

A RUN is a folder with ``predictions.parquet`` and ``table.csv``, as under results/published. Its accuracy rows are
compared pairwise on the same images: in FP32 with other threads, on another backend, with another pipeline's pixels;
and rows of a lower precision with FP32 on the same backend and pipeline. The limit is that of the class ``identity``.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import marks
import numpy as np
import pandas as pd
from gate_error import table
from numpy.typing import NDArray

from bench.record.case import Case
from bench.studies.check.rules import Comparison, compare
from bench.studies.check.snapshot import Row
from bench.studies.check.tolerances import load

IDENTITY = load().of("fp32")[1]


@dataclass(frozen=True)
class Scored:
    """A row of a run, its images sorted by id."""

    row: Row
    ids: tuple[str, ...]
    labels: NDArray[np.int16]


def rows_of(run: Path) -> list[Scored]:
    """The accuracy rows of a run."""
    predictions = pd.read_parquet(run / "predictions.parquet").astype({"case_id": str, "image_id": str})
    cases = pd.read_csv(run / "table.csv").set_index("case_id")
    found = []
    for case_id, rows in predictions.sort_values("image_id").groupby("case_id"):
        facts = cases.loc[case_id]
        names = ("model", "weights", "backend", "device", "precision", "pipeline")
        case = Case(*(facts[name] for name in names), threads=int(facts["threads"]), scenario="accuracy")
        row = Row(case, top1=rows["top1"].to_numpy(), margin=rows["margin"].to_numpy())
        found.append(Scored(row, tuple(rows["image_id"]), rows["label"].to_numpy()))
    return found


def pairs(rows: list[Scored]) -> Iterator[tuple[str, Scored, Scored]]:
    """What differs, and the two rows, FP32 first."""
    for one, two in itertools.combinations(rows, 2):
        first, second = sorted((one, two), key=lambda each: each.row.case.precision != "fp32")
        a, b = first.row.case, second.row.case
        if first.ids != second.ids or a.precision != "fp32":
            continue
        if b.precision != "fp32":
            if (a.backend, a.pipeline) == (b.backend, b.pipeline):
                yield f"FP32 and {b.precision.upper()}, {b.backend}", first, second
        elif a.pipeline != b.pipeline:
            if (a.backend, a.threads) == (b.backend, b.threads):
                yield "FP32, another pipeline's pixels", first, second
        else:
            yield (f"FP32, another {'backend' if a.backend != b.backend else 'number of threads'}", first, second)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    asked = parser.parse_args()
    found: dict[str, list[Comparison]] = defaultdict(list)
    medians: dict[str, list[float]] = defaultdict(list)
    for run in asked.runs:
        for what, first, second in pairs(rows_of(run)):
            compared = compare(first.row, second.row, first.labels, IDENTITY)
            assert compared is not None
            assert first.row.margin is not None
            found[what].append(compared)
            medians[what].append(float(np.median(np.abs(first.row.margin - second.row.margin))))
    lines = [
        [
            what,
            str(len(each)),
            f"{sum(one.n for one in each):,}",
            str(max(one.changed for one in each)),
            f"{max(medians[what]):.1g}",
            f"{max(one.largest_move for one in each):.1g}",
            f"{min(one.moved or 0 for one in each):,} to {max(one.moved or 0 for one in each):,}",
        ]
        for what, each in sorted(found.items(), key=lambda item: max(one.largest_move for one in item[1]))
    ]
    titles = ["what differs", "pairs", "images of all", "flips", "median move", "largest", "moved beyond the limit"]
    text = table(titles, lines, words=1)
    print(text)
    if asked.write:
        marks.put("leads", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
