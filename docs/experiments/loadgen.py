"""LoadGen's scenarios against this project's own: do they tell the same?

    python docs/experiments/loadgen.py [--backend onnxruntime] [--rounds 20] [--seconds 2] [--out results/published/...]

In one run of one life, in interleaved rounds: a latency Case and SingleStream, a throughput Case (a stream from files
to top-5, and every fifth turn its parts alone) and Offline; then two Server Cases that search the same rate in turns.
Prints the ratios. LoadGen's images lie decoded in memory: Offline is to be compared with the part "compute" of the
throughput Case, and its ratio to the whole stream tells what decoding takes. Exit code 1 where SingleStream's median
or Offline's rate is further than 3 % off, or the two Server rates differ by more than 5 %.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from common import Quiet, prepared

from bench.analysis.stats.intervals import ratio_interval
from bench.backends import package_versions
from bench.host import describe_host
from bench.record.run_folder import utc_now
from bench.run import schedule
from bench.run.runner import Limits, Runner

MATERIAL, TWICE = 0.03, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scarlet_c")
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one LoadGen test, at least")
    parser.add_argument("--limit-us", type=int, help="of Server's p99; 3 times the median latency without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    limit = (("limit_us", str(asked.limit_us)),) if asked.limit_us else ()
    with prepared(asked.model) as model:
        fields = {"pipeline": "turbo", "batch": asked.batch}
        latency, single = (model.case(asked.backend, scenario=name) for name in ("latency", "singlestream"))
        stream, offline = (model.case(asked.backend, scenario=name, **fields) for name in ("throughput", "offline"))
        timed = [latency, single, stream, offline]
        server = model.case(asked.backend, scenario="server", **fields)
        servers = [replace(server, options=(("aa", name), *limit)) for name in "ab"]
        run = model.folder("loadgen", [*timed, *servers])

        def order(runner: Runner, planned: Any) -> None:
            runner.admit(timed, least=len(timed))
            turns = zip(
                schedule.rounds(timed, asked.seed), schedule.slices(asked.seed), range(asked.rounds), strict=False
            )
            for members, slice_ns, number in turns:
                for case in members:
                    if told := runner.turn(case, number, slice_ns):
                        print(f"round {number + 1:2} of {asked.rounds}: {case.label}: {told.detail}", flush=True)
            for case in timed:
                runner.finish(case)
            schedule.searches(runner, servers)

        context = replace(model.context(run), load_seconds=asked.seconds)
        Runner(run, context, Quiet(), Limits(timeout_seconds=3600)).execute([*timed, *servers], order)
        run.merge_parts()
        samples, results = run.samples(), {result.case.case_id: result for result in run.case_results()}

    def per_image(case_id: str, stage: str) -> pd.Series:
        """Nanoseconds an image by round: the median of its samples."""
        own = samples[(samples["case_id"] == case_id) & (samples["stage"] == stage) & ~samples["warmup"]]
        return (own["latency_ns"] / own["images"]).groupby(own["round"]).median()

    rows, beyond = [], []
    for name, case, stage, base, base_stage in (
        ("SingleStream's median over latency's", single, "query", latency, "compute"),
        ("Offline's time over the part compute's", offline, "query", stream, "compute"),
        ("Offline's time over the whole stream's", offline, "query", stream, "end_to_end"),
    ):
        times = pd.concat([per_image(case.case_id, stage), per_image(base.case_id, base_stage)], axis=1, join="inner")
        found = ratio_interval(times.iloc[:, 0].tolist(), times.iloc[:, 1].tolist())
        row = {
            "name": name,
            "ratio": found.ratio,
            "low": found.low,
            "high": found.high,
            "rounds": times.values.tolist(),
        }
        rows.append(row)
        beyond += [name] if base_stage == "compute" and abs(found.ratio - 1) > MATERIAL else []
        print(f"{name}: {found.ratio:.3f} ({found.low} to {found.high}), {len(times)} rounds")
    loads = [results[case.case_id].metrics.get("load", {}) for case in servers]
    rates = [load.get("rate") or 0.0 for load in loads]
    twice = rates[1] / rates[0] if all(rates) else None
    said = [f"{rate:.4g}" if rate else "none" for rate in rates]
    print(f"Server's rate, found twice: {said[0]} and {said[1]} queries/s, ratio {twice and round(twice, 3)}")
    beyond += ["Server"] if twice is None or abs(twice - 1) > TWICE else []
    if asked.out:
        asked.out.mkdir(parents=True, exist_ok=True)
        info = {"command": shlex.join(["python", *sys.argv]), "at": utc_now(), "host": describe_host()}
        found_all = {**info, "packages": package_versions(), "rows": rows, "server": loads}
        (asked.out / "loadgen.json").write_text(json.dumps(found_all, indent=1) + "\n")
    print(f"beyond: {', '.join(beyond)}" if beyond else "all within")
    sys.exit(int(bool(beyond)))


if __name__ == "__main__":
    main()
