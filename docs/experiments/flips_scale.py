"""What loading and comparing the predictions of a whole validation set costs.

    python docs/experiments/flips_scale.py [--images 50000] [--cases 8]

Makes a run of seeded predictions, then in a process of its own reads it and compares every pair of its Cases; prints
seconds and that process's peak memory. Exit code 1 when it took 10 s or 1 GB or more, imports included.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult, RunFolder

CLASSES = 1000
MOST_SECONDS, MOST_BYTES = 10.0, 1e9
# Of images that each Case scores differently from the first: from none to what a broken pipeline does.
CHANGED = (0.0, 0.0, 0.001, 0.002, 0.009, 0.03, 0.15, 0.3)


def make_run(path: Path, n_images: int, n_cases: int) -> None:
    """A run whose Cases agree with the first one on all but a share of the images."""
    source = np.random.default_rng(0)
    folder = RunFolder.create(path)
    cases = [
        Case("scarlet_c", "official", "pytorch", scenario="accuracy", options=(("variant", str(number)),))
        for number in range(n_cases)
    ]
    plan = {"cases": [case.to_dict() for case in cases]}
    folder.write_run_info({"plan": plan, "dataset": {"is_demo": False, "n_images": n_images}})
    ids = [f"n{number % CLASSES:08}/ILSVRC2012_val_{number:08}.JPEG" for number in range(n_images)]
    label = source.integers(0, CLASSES, n_images)
    first = source.integers(0, CLASSES, (n_images, 5))
    first[:, 0] = np.where(source.random(n_images) < 0.75, label, first[:, 0])
    margin = source.beta(1.0, 1.0, n_images).astype(np.float32)
    for number, case in enumerate(cases):
        top = first.copy()
        changed = source.random(n_images) < CHANGED[number % len(CHANGED)]
        top[changed] = np.roll(top[changed], 1, axis=1)
        order = source.permutation(n_images) if number % 2 else np.arange(n_images)
        folder.write_predictions_part(
            case.case_id,
            image_id=[ids[place] for place in order],
            label=label[order],
            top=top[order],
            margin=margin[order],
        )
        folder.append_case(CaseResult(case, Status.OK))
    folder.merge_parts()


def compare_all(path: Path) -> None:
    """Reads the run and compares every pair; prints figures as JSON."""
    started = time.perf_counter()
    from bench.analysis.accuracy.flips import compare
    from bench.analysis.accuracy.predictions import ScoredRun
    from bench.host.memory import peak_rss_bytes

    run = ScoredRun.open(path)
    read = time.perf_counter()
    ledgers = [compare(*pair) for pair in itertools.combinations(run.predicted.values(), 2)]
    compared = time.perf_counter()
    figures = {
        "read_seconds": read - started,
        "compare_seconds": compared - read,
        "n_ledgers": len(ledgers),
        "n_flips": sum(ledger.n_flips for ledger in ledgers),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    print(json.dumps(figures))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--of", type=Path, help="compare the Cases of this run, in this process")
    wanted = parser.parse_args()
    if wanted.of:
        compare_all(wanted.of)
        return 0
    with tempfile.TemporaryDirectory() as name:
        make_run(Path(name) / "run", wanted.images, wanted.cases)
        command = [sys.executable, __file__, "--of", str(Path(name) / "run")]
        started = time.perf_counter()
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - started
    figures = json.loads(answer.stdout)
    print(
        f"{figures['n_ledgers']} comparisons of {wanted.images:,} images, {figures['n_flips']:,} flips: "
        f"{seconds:.2f} s in all, {figures['read_seconds']:.2f} s to import and read, "
        f"{figures['compare_seconds']:.2f} s to compare; peak memory {figures['peak_rss_bytes'] / 1e6:.0f} MB"
    )
    return int(seconds >= MOST_SECONDS or figures["peak_rss_bytes"] >= MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
