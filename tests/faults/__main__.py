"""Strikes the real command with faults of all kinds and counts what became of it: `make faults ARGS="--count 1000"`."""

import argparse
import ctypes
import importlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from scarlet.processes import tie
from tests.faults import place
from tests.faults.kinds import KINDS, Disk, Scene, children
from tests.faults.oracle import VERDICTS, WARNED, Judgement, Truth, fake_times, rows_of
from tests.faults.place import Place

PR_SET_CHILD_SUBREAPER = 36

# Of the run that is damaged, and of a quarter of those that are disturbed; others have one, which takes less time.
LIVES = 4

# Orphans get so long to end by themselves.
ORPHAN_SECONDS = 2.0


class Stage:
    """What all faults of a process have in common: the undisturbed run, and every library imported.

    Args:
        folder: empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["SCARLET_BENCH_STORE"] = str(folder / "store")
        first = folder / "undisturbed"
        first.mkdir()
        place.make(first)
        imported, counted = folder / "imported", [folder / "runner", folder / "worker"]
        noting = Place(first, _noting(imported), _noting(imported))
        noting.lives = LIVES
        self._undisturbed(noting)
        for name in sorted(set(imported.read_text().split())):
            with suppress(Exception):
                importlib.import_module(name)
        _one_thread()
        again = self.place("again")
        disks = [Disk(again.run, 0, tally=tally) for tally in counted]
        again.plant_in_runner, again.plant_in_worker = disks
        before = time.monotonic()
        self._undisturbed(again)
        self.seconds = time.monotonic() - before
        n_workers = len(list((again.run / "logs").iterdir()))
        self.calls = (counted[0].stat().st_size, counted[1].stat().st_size // n_workers + 1)
        times = fake_times(0, 0.01, 1e6)
        self.truth = Truth(rows_of(first / "run"), times)
        self.finished = first / "run"
        if wrong := self.truth.differs(rows_of(again.run)):
            raise SystemExit(f"two undisturbed runs differ: {wrong}")
        self._other: Path | None = None

    def other(self) -> Path:
        """A finished run of the same Cases on other pixels, which gives other predictions."""
        if self._other is None:
            at = self.place("other")
            (at.folder / "data").unlink()
            place.make(at.folder, seed=1)
            self._undisturbed(at)
            self._other = at.run
        return self._other

    def _undisturbed(self, at: Place) -> None:
        said = at.command(*at.measure())
        if said.code or WARNED.search(said.text):
            raise SystemExit(f"the undisturbed run ended with {said.code}:\n{said.text}")

    def place(self, name: str) -> Place:
        """A new place with the same data and model."""
        folder = self.folder / name
        folder.mkdir()
        (folder / "data").symlink_to(self.folder / "undisturbed" / "data")
        shutil.copy(self.folder / "undisturbed" / "tiny.onnx", folder)
        return Place(folder)

    def strike(self, name: str, seed: int) -> Judgement:
        """One fault of a kind, and what became of it."""
        at = self.place(f"{seed}-{zlib.crc32(name.encode()):08x}")
        at.lives = LIVES if zlib.crc32(f"{name} {seed}".encode()) % 4 == 0 else 1
        scene = Scene(
            at, self.truth, self.finished, self.other, self.seconds, self.calls, random.Random(f"{name} {seed}")
        )
        try:
            judgement = KINDS[name](scene)
        except Exception:
            judgement = Judgement("unclear", f"the oracle cannot tell: {traceback.format_exc()[-300:]}")
        if _orphans() and judgement.verdict == "survived":
            judgement = Judgement("orphan", "a process is left")
        if judgement.verdict == "survived":
            shutil.rmtree(at.folder, ignore_errors=True)
        return judgement


def _noting(imported: Path) -> Any:
    """Has a process write down, when it ends, what it imported."""

    def plant() -> None:
        ends = os._exit

        def end(code: int) -> None:
            with imported.open("a") as file:
                file.write("\n".join([*sys.modules, ""]))
            ends(code)

        os._exit = end  # type: ignore[assignment]

    return plant


def _one_thread() -> None:
    """No threads of a library's own: a forked process does not have them, and would wait for them."""
    import pyarrow
    import torch

    torch.set_num_threads(1)
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)


def _orphans() -> int:
    """Ends what a fault has left behind, which is this process's child by now; gives how many there were."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while time.monotonic() < deadline:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not children(os.getpid()):
            return 0
        time.sleep(0.01)
    left = children(os.getpid())
    for pid in left:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)
    return len(left)


def strike_all(folder: Path, faults: list[tuple[str, int]], found: Path) -> None:
    """Strikes with each fault, one after the other; what became of it is a line of JSON."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    stage = Stage(folder)
    for name, seed in faults:
        before = time.monotonic()
        judgement = stage.strike(name, seed)
        if judgement.verdict != "survived":
            print(f"{name}, seed {seed}: {judgement.verdict}: {judgement.why}", file=sys.stderr, flush=True)
        seconds = round(time.monotonic() - before, 2)
        line = {"kind": name, "seed": seed, "verdict": judgement.verdict, "why": judgement.why, "seconds": seconds}
        with found.open("a") as file:
            file.write(json.dumps(line) + "\n")


def table(found: list[dict[str, Any]]) -> str:
    """The counts by kind, as Markdown."""
    counts = Counter((each["kind"], each["verdict"]) for each in found)
    lines = [f"| kind | faults | {' | '.join(VERDICTS)} |", f"|---|---:|{'---:|' * len(VERDICTS)}"]
    for name in [*dict.fromkeys(each["kind"] for each in found), ""]:
        numbers = [
            sum(n for (of, is_), n in counts.items() if (not name or of == name) and is_ == verdict)
            for verdict in VERDICTS
        ]
        lines.append(f"| {name or 'all'} | {sum(numbers)} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="how many faults, of all kinds in turn")
    parser.add_argument("--seed", type=int, default=0, help="the first one's; each next fault has the next")
    parser.add_argument("--kind", default="", help="only kinds whose name begins so")
    parser.add_argument("--jobs", type=int, default=2, help="how many strike at the same time")
    parser.add_argument("--json", type=Path, help="write what became of each fault here")
    parser.add_argument(
        "--keep", type=Path, help="a new folder, which stays with the places of faults that broke something"
    )
    asked = parser.parse_args()
    names = [name for name in KINDS if name.startswith(asked.kind)]
    faults = [(names[place_ % len(names)], asked.seed + place_ // len(names)) for place_ in range(asked.count)]
    folder = asked.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    pids, parent = [], os.getpid()
    for job in range(asked.jobs):
        part = folder / str(job)
        part.mkdir(parents=True)
        pids.append(os.fork())
        if pids[-1] == 0:
            tie(parent)
            with suppress(KeyboardInterrupt):
                strike_all(part, faults[job :: asked.jobs], part / "found.jsonl")
            os._exit(0)
    for pid in pids:
        with suppress(KeyboardInterrupt):  # the table is of what was done until then
            os.waitpid(pid, 0)
    lines = [line for found in folder.glob("*/found.jsonl") for line in found.read_text().splitlines()]
    everything = list(map(json.loads, lines))
    everything.sort(key=lambda each: [*KINDS].index(each["kind"]))
    if asked.json:
        asked.json.write_text(json.dumps(everything, indent=1))
    if not asked.keep:
        shutil.rmtree(folder, ignore_errors=True)
    print(table(everything))
    return int(any(each["verdict"] != "survived" for each in everything) or len(everything) < asked.count)


if __name__ == "__main__":
    sys.exit(main())
