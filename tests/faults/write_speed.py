"""Times writing, merging and reading 8 times 50,000 predictions: `python -m tests.faults.write_speed`."""

import tempfile
import time
from pathlib import Path

import numpy as np

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder

N, CASES = 50_000, 8

if __name__ == "__main__":
    rng = np.random.default_rng(0)
    names = [f"n{place // 50:08d}/ILSVRC2012_val_{place:08d}.JPEG" for place in range(N)]
    values = [(rng.integers(0, 1000, (N, 5)), rng.random(N, dtype=np.float32)) for _ in range(CASES)]
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder.create(Path(place) / "run")
        marks = [time.perf_counter()]
        for number, (top, margin) in enumerate(values):
            case = Case("m", "official", "pytorch", batch=number + 1, scenario="accuracy")
            folder.write_predictions_part(
                case.case_id, image_id=names, label=np.arange(N) // 50, top=top, margin=margin
            )
            folder.append_case(CaseResult(case, Status.OK))
        marks.append(time.perf_counter())
        folder.merge_parts()
        marks.append(time.perf_counter())
        folder.predictions()
        marks.append(time.perf_counter())
    for what, seconds in zip(("write", "merge", "read"), np.diff(marks), strict=True):
        print(f"{what}: {seconds:.2f} s")
