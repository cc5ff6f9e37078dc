"""Do the verdicts hold when the run is repeated and the machine is busy?

    python docs/experiments/verdicts.py [--runs 10] [--budget 20]

1. A/A: SCARLET-C on ONNX Runtime twice as two Cases, while another process keeps one core busy half of the time.
   No run may say faster or slower.
2. PyTorch against ONNX Runtime at batch 1: all runs must say the same.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections import Counter

from common import Prepared, prepared

from bench.analysis.table import load_frame


def burn(share: float, period_seconds: float = 0.1) -> None:
    """Keeps one core busy for a share of the time, for ever."""
    while True:
        started = time.perf_counter()
        while time.perf_counter() - started < share * period_seconds:
            pass
        time.sleep((1 - share) * period_seconds)


def verdicts(model: Prepared, name: str, cases: list, runs: int, budget_seconds: float) -> Counter:  # type: ignore[type-arg]
    """The verdict on the second Case in each run, and prints the ratios."""
    found: Counter[str] = Counter()
    for number in range(runs):
        run = model.measure(f"{name}-{number}", cases, budget_seconds, seed=number)
        row = load_frame(run.path).set_index("case_id").loc[cases[1].case_id]
        print(
            f"{name} {number + 1}: {row['verdict']}, ratio {row['ratio']:.4f} "
            f"({row['ratio_low']:.4f} to {row['ratio_high']:.4f}), {row['n_rounds']:.0f} rounds",
            flush=True,
        )
        found[str(row["verdict"])] += 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--budget", type=float, default=20.0)
    parser.add_argument("--only", choices=("aa", "ab"), help="one of the two")
    wanted = parser.parse_args()
    with prepared() as model:
        aa, ab = Counter[str](), Counter[str]()
        same = [model.case("onnxruntime", options=(("aa", arm),)) for arm in "ab"]
        other = [model.case("pytorch"), model.case("onnxruntime")]
        burner = multiprocessing.Process(target=burn, args=(0.5,), daemon=True)
        if wanted.only != "ab":
            burner.start()
            aa = verdicts(model, "A/A under load", same, wanted.runs, wanted.budget)
            burner.terminate()
        if wanted.only != "aa":
            ab = verdicts(model, "PyTorch against ONNX Runtime", other, wanted.runs, wanted.budget)
    print(f"A/A under load: {dict(aa)}")
    print(f"PyTorch against ONNX Runtime: {dict(ab)}")
    return int(bool(aa["faster"] + aa["slower"]) or len(ab) > 1)


if __name__ == "__main__":
    sys.exit(main())
