"""Do the verdicts hold when the run is repeated, on a quiet machine and on a busy one?

    python docs/experiments/verdicts.py [--runs 10] [--budget 20] [--backends onnxruntime,openvino] [--out FOLDER]

1. A/A: SCARLET-C at batch 1 on a runtime twice as two Cases, quiet, and while another process keeps one core busy half
   of the time. No run may say faster or slower, and few intervals may exclude 1. Of each row the first half of the
   lives is held against the second, in units of what its interval claims: the root mean square of that is 1 where
   intervals are honest.
2. PyTorch against ONNX Runtime at batch 1: all runs must say the same.

``--out`` keeps the samples of the A/A runs, and a table of them.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from common import Prepared, prepared

from bench.analysis.table import load_frame
from bench.analysis.time.verdict import lives_of, round_times
from bench.record.case import Case
from bench.record.run_folder import RunFolder

SHARE = 0.5  # of one core, that another process keeps busy
COLUMNS = (
    "verdict",
    "ratio",
    "ratio_low",
    "ratio_high",
    "n_rounds",
    "n_lives",
    "spread_percent",
    "start_effect_percent",
)


def burn(share: float, period_seconds: float = 0.1) -> None:
    """Keeps one core busy for a share of the time, for ever."""
    while True:
        started = time.perf_counter()
        while time.perf_counter() - started < share * period_seconds:
            pass
        time.sleep((1 - share) * period_seconds)


@contextmanager
def busy(is_busy: bool):  # type: ignore[no-untyped-def]
    """Another process at work, or none."""
    burner = multiprocessing.Process(target=burn, args=(SHARE,), daemon=True)
    if is_busy:
        burner.start()
    yield
    if is_busy:
        burner.terminate()


def halves(run: RunFolder) -> list[float]:
    """Of each row: its p50 over the first half of its lives against the second half, over that difference's error."""
    rows, found = run.case_results(), []
    times = round_times(rows, run.samples())
    for row in rows:
        own = times[row.case.case_id]
        of_life = np.array(lives_of(row, own))
        logs = [math.log(np.median(np.array(list(own.values()))[of_life == life])) for life in np.unique(of_life)]
        half = len(logs) // 2
        if half > 1:
            error = 2.0 * float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
            found.append((float(np.mean(logs[:half])) - float(np.mean(logs[half:]))) / error)
    return found


def measured(model: Prepared, name: str, cases: Sequence[Case], budget: float, seed: int) -> tuple[RunFolder, Any]:
    """A run of two Cases, and the row of the second; says what it found."""
    run = model.measure(name, cases, budget, seed=seed)
    row = load_frame(run.path).set_index("case_id").loc[cases[1].case_id]
    print(
        f"{name}: {row['verdict']}, ratio {row['ratio']:.4f} ({row['ratio_low']:.4f} to {row['ratio_high']:.4f}), "
        f"{row['n_lives']:.0f} lives, {row['n_rounds']:.0f} rounds",
        flush=True,
    )
    return run, row


def keep(out: Path, table: list[dict[str, Any]], samples: list[pd.DataFrame]) -> None:
    """Writes what was measured so far."""
    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(table).to_csv(out / "runs.csv", index=False, float_format="%.6g")
    whole = pd.concat(samples).astype({"run": "category", "case_id": "category", "stage": "category"})
    whole.to_parquet(out / "samples.parquet", compression="zstd", index=False)


def equals(model: Prepared, backends: Sequence[str], runs: int, budget: float, out: Path | None) -> bool:
    """A/A runs of each backend in turn, quiet and busy; whether none says that equals differ."""
    table, samples = [], []
    for number in range(runs):
        for is_busy in (False, True):
            for backend in backends:
                cases = [model.case(backend, options=(("aa", arm),)) for arm in "ab"]
                name = f"{backend}-{'busy' if is_busy else 'quiet'}-{number + 1}"
                with busy(is_busy):
                    run, row = measured(model, name, cases, budget, number)
                table.append({"run": name, "backend": backend, "busy": is_busy, **{key: row[key] for key in COLUMNS}})
                table[-1]["halves"] = " ".join(f"{z:.3f}" for z in halves(run))
                lives = {result.case.case_id: result.metrics["lives"] for result in run.case_results()}
                samples.append(run.samples().assign(run=name))
                table[-1]["first_rounds"] = " ".join(str(life["first_round"]) for life in lives[cases[0].case_id])
        if out is not None:
            keep(out, table, samples)
    frame = pd.DataFrame(table)
    wrong = frame["verdict"].isin(["faster", "slower"])
    frame["excludes 1"] = (frame["ratio_low"] > 1) | (frame["ratio_high"] < 1)
    frame["half width %"] = 100.0 * np.log(frame["ratio_high"] / frame["ratio_low"]) / 2.0
    frame["definite and wrong"] = wrong
    print(frame.groupby(["busy", "backend"])[["excludes 1", "definite and wrong"]].sum().to_string())
    print(
        frame.groupby(["busy", "backend"])[["half width %", "spread_percent", "n_rounds"]].median().round(2).to_string()
    )
    for is_busy, own in frame.groupby("busy"):
        z = np.array([float(each) for text in own["halves"] for each in text.split()])
        print(f"{'busy' if is_busy else 'quiet'}: rms z of halves {np.sqrt(np.mean(z**2)):.2f} of {len(z)} rows")
    return not wrong.any()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--budget", type=float, default=20.0)
    parser.add_argument("--backends", default="onnxruntime,openvino,pytorch", help="of the A/A runs")
    parser.add_argument("--only", choices=("aa", "ab"), help="one of the two")
    parser.add_argument("--out", type=Path, help="folder for the A/A runs' samples and table")
    wanted = parser.parse_args()
    held, ab = True, Counter[str]()
    with prepared() as model:
        if wanted.only != "ab":
            held = equals(model, wanted.backends.split(","), wanted.runs, wanted.budget, wanted.out)
        for number in range(wanted.runs if wanted.only != "aa" else 0):
            other = [model.case("pytorch"), model.case("onnxruntime")]
            ab[
                str(measured(model, f"pytorch-onnxruntime-{number + 1}", other, wanted.budget, number)[1]["verdict"])
            ] += 1
    print(f"PyTorch against ONNX Runtime: {dict(ab)}")
    return int(not held or len(ab) > 1)


if __name__ == "__main__":
    sys.exit(main())
