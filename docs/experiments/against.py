"""Does `scarlet-bench against` leave an equal revision alone, and catch one that is 10 % slower?

    python docs/experiments/against.py [--runs 10] [--budget 120]

In a copy of this project, as it is, with a repository of its own:

1. A commit that changes a document only, against the one before it: every run must say pass or unresolved.
2. A commit that lets the ONNX Runtime backend sleep for 10 % of the median that the first part measured, against the
   one before it: every run must say fail.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from bench.analysis.table import load_frame
from bench.run.images import choose_images
from bench.worker import channel

BACKEND = Path("bench/backends/onnxruntime/backend.py")
CALL = "        logits: NDArray[np.float32] = self._session.run("


def git(tree: Path, *words: str) -> str:
    """Runs git as somebody, in the copy."""
    somebody = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", "-C", str(tree), *somebody, *words], capture_output=True, text=True, check=True)
    return done.stdout


def copy_of_project(to: Path) -> None:
    """All files that git does not ignore, changed and new ones included, as the first commit of a new repository."""
    home = channel.own_home()
    for name in git(home, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (home / name).exists():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(home / name, to / name)
    git(to, "init", "--quiet")
    commit(to, "the project as it is")


def commit(tree: Path, message: str) -> None:
    git(tree, "add", "--all")
    git(tree, "commit", "--quiet", "--no-verify", "--message", message)


def change_a_document(tree: Path) -> None:
    with (tree / "README.md").open("a") as readme:
        readme.write("\nA sentence more.\n")
    commit(tree, "Say more")


def plant_a_sleep(tree: Path, seconds: float) -> None:
    source = (tree / BACKEND).read_text()
    assert source.count(CALL) == 1, "the backend has changed: say here where it calls ONNX Runtime"
    slow = source.replace(CALL, f"        time.sleep({seconds!r})\n{CALL}")
    (tree / BACKEND).write_text(slow.replace("\nfrom collections", "\nimport time\nfrom collections", 1))
    commit(tree, "Sleep a little")


def outcomes(tree: Path, name: str, data: str, runs: int, more: list[str]) -> Counter[str]:
    """What each run said; prints a line for each."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found: Counter[str] = Counter()
    for number in range(1, runs + 1):
        out = tree.parent / f"{name}-{number}"
        command = [sys.executable, "-m", "bench.cli", "against", "HEAD~1", "--json", "--data", data, "--out", str(out)]
        started = time.monotonic()
        done = subprocess.run(
            [*command, "--seed", str(number), *more], cwd=tree, env=environment, capture_output=True, text=True
        )
        if done.returncode not in (0, 1, 3):
            print(f"{name} {number}: exit code {done.returncode}\n{done.stderr}", flush=True)
            found["error"] += 1
            continue
        said = json.loads(done.stdout)
        (case,) = said["cases"]
        ratios = " ".join(f"{ratio:.3f}" for ratio in case["lives"])
        ends = [f"{end:.4f}" if end is not None else "?" for end in (case["ratio"], case["low"], case["high"])]
        print(
            f"{name} {number}: {said['outcome']} (exit code {done.returncode}), ratio {ends[0]} ({ends[1]} to "
            f"{ends[2]}), tolerance {said['tolerance']:.3f}, lives {ratios}, {case['n_rounds']} rounds, "
            f"{case['n_disturbed_rounds']} disturbed, {time.monotonic() - started:.0f} s {case['reason']}",
            flush=True,
        )
        found[said["outcome"]] += 1
    return found


def median_seconds(run: Path) -> float:
    """The median over the Cases' medians, of both revisions together."""
    medians = load_frame(run)["latency_ns_p50"].dropna()
    if medians.empty:
        sys.exit(f"no time was measured: {'; '.join(load_frame(run)['reason'].unique())}")
    return float(medians.median()) / 1e9


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--budget", default="120")
    parser.add_argument("--lives", default="6")
    parser.add_argument("--threads", default="", help="all cores where empty")
    wanted = parser.parse_args()
    more = ["--budget", wanted.budget, "--lives", wanted.lives, "--threads", wanted.threads]
    image_set, _ = choose_images(None, None, Console(stderr=True, width=160))
    data = str(image_set.root.resolve())
    with TemporaryDirectory() as folder:
        tree = Path(folder) / "project"
        tree.mkdir()
        copy_of_project(tree)
        change_a_document(tree)
        equal = outcomes(tree, "equal", data, wanted.runs, more)
        slept_for = 0.1 * median_seconds(Path(folder) / "equal-1")
        print(f"planted: {slept_for * 1e3:.3f} ms in every call", flush=True)
        plant_a_sleep(tree, slept_for)
        slow = outcomes(tree, "10 % slower", data, wanted.runs, more)
        assert "bench" not in git(tree, "worktree", "list").split("\n", 1)[1], "a worktree was left behind"
    print(f"equal: {dict(equal)}\n10 % slower: {dict(slow)}")
    return int(not set(equal) <= {"pass", "unresolved"} or set(slow) != {"fail"})


if __name__ == "__main__":
    sys.exit(main())
