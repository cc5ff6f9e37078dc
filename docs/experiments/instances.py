"""One copy of a backend on all cores against copies that share them, bound to cores of their own or not.

    python docs/experiments/instances.py [--batch 8] [--budget 120] [--backends onnxruntime,openvino,pytorch]

Latency Cases in interleaved rounds. One call works on a batch for each copy, so times are taken per image. Prints how
many times as fast each way is as one copy on all cores, and which cores the threads were bound to. On a machine that
others use too, copies of one thread won by much (perhaps because the threads of one copy wait for each other wherever
one is kept off its core; that was not tested).
"""

from __future__ import annotations

import argparse
import sys

from common import Prepared, prepared

from bench import host
from bench.analysis.stats import intervals
from bench.analysis.time import verdict
from bench.record.case import Case, Status


def ways(model: Prepared, backend: str, batch: int) -> dict[str, Case]:
    """The Cases of one backend by their names; the first is what the others are compared with."""
    cores = host.allowed_cores()

    def case(threads: int, instances: int, **options: str) -> Case:
        return model.case(
            backend, batch=batch, threads=threads, instances=instances, options=tuple(sorted(options.items()))
        )

    return {
        f"1 copy of {cores} threads": case(cores, 1),
        f"{cores} copies of 1 thread": case(1, cores),
        f"{cores} copies of 1 thread, pin=no": case(1, cores, pin="no"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="scarlet_c")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for each backend")
    parser.add_argument("--backends", default="onnxruntime,openvino,pytorch")
    wanted = parser.parse_args()
    with prepared(wanted.model) as model:
        for backend in wanted.backends.split(","):
            named = ways(model, backend, wanted.batch)
            run = model.measure(backend, list(named.values()), wanted.budget)
            results = {result.case: result for result in run.case_results()}
            times = verdict.round_times(list(results.values()), run.samples())
            first, *others = named
            for name in others:
                result = results[named[name]]
                if result.status is not Status.OK:
                    print(f"{backend}, {name}: {result.status.value}: {result.reason}", flush=True)
                    continue
                one, other = (times[named[each].case_id] for each in (first, name))
                rounds = sorted(one.keys() & other.keys())
                ratio = intervals.ratio_interval([one[k] for k in rounds], [other[k] for k in rounds])
                interval = "too few rounds for an interval"
                if ratio.low is not None and ratio.high is not None:
                    interval = f"{ratio.low:.3f} to {ratio.high:.3f}"
                print(
                    f"{backend}, batch {wanted.batch}, {name}: {ratio.ratio:.3f} times as fast as {first} "
                    f"({interval}; {len(rounds)} rounds); pinning: {result.proof['pinning']}; threads by cores: "
                    f"{result.proof['threads_by_cores']}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
