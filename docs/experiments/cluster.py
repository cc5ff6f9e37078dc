"""Measures runs on a Dask cluster of this machine's processes: `python docs/experiments/cluster.py equal|cost|memory`.

equal   2,000 demo images in four shards on two workers, and on this machine alone: are predictions and table.csv equal?
cost    an accuracy run on one and on two workers of one thread each: what does the second save? Needs two quiet cores.
memory  the client's largest resident memory with 2,000 and with 20,000 images.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pandas as pd

from bench.analysis.columns import PREDICTIONS, REGISTRY, SAMPLES
from bench.record.run_folder import RunFolder
from pipelines.demo.make import make_demo

# The command, which tells its own peak when it ends: that of its workers is another matter.
COMMAND = (
    "import atexit, re, sys\n"
    "from pathlib import Path\n"
    "from bench.cli import main\n"
    "def tell():\n"
    "    peak = re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1]\n"
    "    print('peak of the client:', peak, 'kB', file=sys.stderr)\n"
    "atexit.register(tell)\n"
    "main()\n"
)
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@contextmanager
def scheduler(workers: int, port: int = 18786) -> Iterator[str]:
    """A scheduler and so many workers of one thread, started as docs/cluster.md shows."""
    where, dask = f"tcp://127.0.0.1:{port}", [sys.executable, "-m", "dask"]
    begun = [subprocess.Popen([*dask, "scheduler", "--host", where, "--no-dashboard", "--no-jupyter"], **QUIET)]
    one = [*dask, "worker", where, "--nthreads", "1", "--resources", "machine=1", "--no-dashboard"]
    begun += [subprocess.Popen(one, **QUIET) for _ in range(workers)]
    try:
        from distributed import Client

        with Client(where, timeout=60) as client:
            client.wait_for_workers(workers, timeout=60)
        yield where
    finally:
        for process in reversed(begun):
            process.terminate()
        for process in begun:
            process.wait(60)


def run(out: Path, data: Path, *words: str) -> int:
    """A run into a new folder; gives the client's peak in kB."""
    common = ["run", "--data", str(data), "--images", "all", "--threads", "1", "--batches", "1", "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *common, *words], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    if done.returncode:
        raise SystemExit(f"the run ended with {done.returncode}:\n{done.stderr}")
    return int(done.stderr.split("peak of the client: ")[1].split()[0])


def images(folder: Path, n: int, source: int = 2000) -> Path:
    """A data folder of so many demo images; of more than ``source``, links to those."""
    made = folder / f"demo-{min(n, source)}"
    make_demo(made, min(n, source))
    if n <= source:
        return made
    many = folder / f"links-{n}"
    files = sorted(made.rglob("*.JPEG"))
    for number in range(n):
        file = files[number % source]
        target = many / "valid" / file.parent.name / f"{number // source}-{file.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            os.link(file, target)
    return many


def seconds(out: Path) -> float:
    """From the start of the accuracy Case to its row."""
    (row,) = RunFolder.open(out).case_results()
    return (datetime.fromisoformat(row.ended_at) - datetime.fromisoformat(row.started_at)).total_seconds()


def equal(folder: Path) -> None:
    data = images(folder, 2000)
    words = ["--scenarios", "accuracy,latency", "--backends", "onnxruntime,openvino", "--budget", "20"]
    run(folder / "alone", data, *words)
    with scheduler(2) as where:
        run(folder / "spread", data, *words, "--cluster", where)
    alone, spread = (pd.read_parquet(folder / name / "predictions.parquet") for name in ("alone", "spread"))
    columns = [f"{name} {list(alone[name]) == list(spread[name])}" for name in alone]
    print(f"{len(alone)} predictions; equal: {', '.join(columns)}")
    digests = [[row.digests for row in RunFolder.open(folder / name).case_results()] for name in ("alone", "spread")]
    print(f"digests of the accuracy rows equal: {digests[0][:2] == digests[1][:2]}")
    tables = [pd.read_csv(folder / name / "table.csv").astype(str) for name in ("alone", "spread")]
    differ = [name for name in tables[0] if list(tables[0][name]) != list(tables[1][name])]
    timed = {name for name, column in REGISTRY.items() if column.source == SAMPLES}
    print(f"columns of table.csv that differ: {', '.join(differ)}")
    print(f"of these of predictions: {[name for name in differ if REGISTRY[name].source == PREDICTIONS]}")
    print(f"of these not of timed samples: {[name for name in differ if name not in timed]}")


def cost(folder: Path, n: int) -> None:
    data = images(folder, n)
    words = ["--scenarios", "accuracy", "--backends", "onnxruntime"]
    found = {}
    for name, workers in (("one", 1), ("two", 2), ("one again", 1), ("two again", 2)):
        with scheduler(workers) as where:
            before = time.monotonic()
            run(folder / name, data, *words, "--cluster", where)
            whole = time.monotonic() - before
        found[name] = {"case_seconds": round(seconds(folder / name), 2), "command_seconds": round(whole, 2)}
        print(json.dumps({name: found[name]}), flush=True)
    run(folder / "alone", data, *words)
    print(json.dumps({"without a cluster": {"case_seconds": round(seconds(folder / "alone"), 2)}}))
    one, two = (sum(found[each]["case_seconds"] for each in (name, f"{name} again")) for name in ("one", "two"))
    print(f"{n} images: two workers take {two / (one / 2):.3f} times half of one worker's time")


def memory(folder: Path) -> None:
    peaks = {}
    with scheduler(2) as where:
        for n in (2000, 20000):
            words = ["--scenarios", "accuracy", "--backends", "fake", "--cluster", where]
            peaks[n] = run(folder / f"memory-{n}", images(folder, n), *words)
            print(f"{n} images: the client's peak is {peaks[n] / 1024:.1f} MiB", flush=True)
    print(f"ratio {peaks[20000] / peaks[2000]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("equal", "cost", "memory"))
    parser.add_argument("--folder", type=Path, required=True, help="for images and runs; new, or with images of before")
    parser.add_argument("--images", type=int, default=10_000, help="of cost")
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    {"equal": lambda: equal(folder), "cost": lambda: cost(folder, asked.images), "memory": lambda: memory(folder)}[
        asked.what
    ]()


if __name__ == "__main__":
    main()
