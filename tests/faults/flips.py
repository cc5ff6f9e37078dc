"""Flips single bits of a run's files and counts what its reader makes of them: `python -m tests.faults.flips`."""

import random
import sys
import tempfile
import warnings
from collections import Counter
from pathlib import Path

import numpy as np

from bench.host.disturbance import RoundState
from bench.record.case import Case, Status
from bench.record.raw_tables import KINDS
from bench.record.run_folder import CASES, IMAGES, RUN_INFO, CaseResult, RunFolder
from scarlet.errors import BenchError

PARQUET = tuple(f"{kind}.parquet" for kind in (*KINDS, "rounds"))
TEXT = (CASES, RUN_INFO, IMAGES)


def make_run(path: Path, images: int = 200, samples: int = 300) -> RunFolder:
    """A merged run of two accuracy and two latency Cases, with rounds."""
    rng = np.random.default_rng(7)
    names = [f"n{place // 5:08d}/val_{place:08d}.JPEG" for place in range(images)]
    cases = [
        Case("scarlet_c", "official", backend, scenario=scenario)
        for scenario in ("accuracy", "latency")
        for backend in ("pytorch", "onnxruntime")
    ]
    info = {"plan": {"cases": [case.to_dict() for case in cases]}, "dataset": {"is_demo": False, "fingerprint": "feed"}}
    folder = RunFolder.create(path, info, [(name, place // 5) for place, name in enumerate(names)])
    folder.write_rounds([RoundState("latency", place, 20_000_000 + place) for place in range(30)])
    for case in cases:
        if case.scenario == "accuracy":
            folder.write_predictions_part(
                case.case_id,
                image_id=names,
                label=np.arange(images) // 5,
                top=rng.integers(0, 1000, (images, 5)),
                margin=rng.random(images, dtype=np.float32),
            )
        else:
            folder.write_samples_part(
                case.case_id,
                round=np.arange(samples) // 10,
                stage="compute",
                images=np.ones(samples, int),
                warmup=np.arange(samples) < 5,
                latency_ns=rng.integers(10**6, 2 * 10**6, samples),
            )
        folder.append_case(CaseResult(case, Status.OK, stage="compute", metrics={"n_warmup": 5}))
    folder.merge_parts()
    return folder


def read(path: Path) -> tuple[bool, list[object]]:
    """Whether the reader noticed anything, and all that it gave."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            folder = RunFolder.open(path)
            rows = [result.to_dict() for result in folder.results()]
            tables = [folder.samples(), folder.predictions(), folder.rounds()]
            content = [rows, folder.planned_cases(), folder.read_images(), *(t.to_dict("list") for t in tables)]
        except BenchError:
            return True, []
    return bool(told) or any(row["status"] != "ok" for row in rows), content


def try_flips(folder: RunFolder, name: str, tries: int, seed: int = 0) -> Counter[str]:
    """Flips one bit of a file at a time; counts ``noticed``, ``harmless`` (all values read as before) and ``wrong``."""
    target, rng, counts = folder.path / name, random.Random(seed), Counter[str]()
    noticed, before = read(folder.path)
    assert not noticed
    whole = target.read_bytes()
    for bit in rng.sample(range(8 * len(whole)), tries):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        target.write_bytes(flipped)
        noticed, after = read(folder.path)
        counts["noticed" if noticed else "harmless" if repr(after) == repr(before) else "wrong"] += 1
    target.write_bytes(whole)
    return counts


if __name__ == "__main__":
    tries = int(sys.argv[1]) if sys.argv[1:] else 300
    with tempfile.TemporaryDirectory() as place:
        run = make_run(Path(place) / "run")
        for name in (*PARQUET, *TEXT):
            print(f"{name}: {tries} bits flipped, {dict(try_flips(run, name, tries))}")
