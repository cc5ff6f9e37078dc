"""Slices of a stream against whole passes of 2,000 images: do they tell the same images/s?

    python docs/experiments/steady_state.py [--backends openvino,onnxruntime] [--rounds 8] [--out results/published/...]

Both forms of each backend take turns in interleaved rounds of one life. Prints the ratio of their rates with
the sign test's interval. Exit code 1 where a ratio is further than 3 % from 1, or its interval lies beyond that.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from common import Prepared, Quiet, prepared

from bench.analysis.stats.intervals import ratio_interval
from bench.analysis.time.verdict import round_times
from bench.backends import package_versions
from bench.host import describe_host
from bench.record.case import Case
from bench.record.run_folder import utc_now
from bench.run import schedule
from bench.run.runner import Limits, Runner

MATERIAL = 0.03
IMAGES = 2000


def measure(model: Prepared, cases: list[Case], rounds: int, seed: int, images: int) -> dict[str, dict[int, float]]:
    """Nanoseconds an image of each Case's rounds, by its id."""
    run = model.folder("steady", cases)
    context = replace(model.context(run), throughput_images=images, time_parts=False)

    def order(runner: Runner, planned: Any) -> None:
        runner.admit(planned, least=len(planned))
        turns = zip(schedule.rounds(planned, seed), schedule.slices(seed), range(rounds), strict=False)
        for members, slice_ns, number in turns:
            for case in members:
                if told := runner.turn(case, number, slice_ns):
                    print(
                        f"round {number + 1:2} of {rounds}: {case.label} {dict(case.options)}: {told.detail}",
                        flush=True,
                    )
        for case in planned:
            runner.finish(case)

    Runner(run, context, Quiet(), Limits(timeout_seconds=3600)).execute(cases, order)
    run.merge_parts()
    return round_times(run.case_results(), run.samples())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scarlet_c")
    parser.add_argument("--backends", default="openvino,onnxruntime")
    parser.add_argument("--pipeline", default="turbo")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--pass-images", type=int, default=IMAGES)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    with prepared(asked.model) as model:
        fields = {"scenario": "throughput", "pipeline": asked.pipeline, "batch": asked.batch}
        streams = [model.case(name, **fields) for name in asked.backends.split(",")]
        whole = [replace(case, options=(("pass", "whole"),)) for case in streams]
        times = measure(model, [*streams, *whole], asked.rounds, asked.seed, asked.pass_images)
    rows: list[dict[str, Any]] = []
    for stream, passes in zip(streams, whole, strict=True):
        own, other = times[stream.case_id], times[passes.case_id]
        common = sorted(own.keys() & other.keys())
        found = ratio_interval([other[number] for number in common], [own[number] for number in common])
        row = {"backend": stream.backend, "ratio": found.ratio, "low": found.low, "high": found.high, "rounds": common}
        rows.append({**row, "stream_ns_per_image": own, "whole_ns_per_image": other})
        print(f"{stream.backend}: stream over whole passes {found.ratio:.3f} ({found.low} to {found.high})")
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        info = {"command": shlex.join(["python", *sys.argv]), "at": utc_now(), "host": describe_host()}
        found_all = {**info, "packages": package_versions(), "pass_images": asked.pass_images, "rows": rows}
        (asked.out / "steady_state.json").write_text(json.dumps(found_all, indent=1) + "\n")
    beyond = [row for row in rows if row["low"] and (row["low"] > 1 + MATERIAL or row["high"] < 1 - MATERIAL)]
    sys.exit(int(bool(beyond or any(abs(row["ratio"] - 1) > MATERIAL for row in rows))))


if __name__ == "__main__":
    main()
