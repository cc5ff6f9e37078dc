"""Does the action of CI fail a worse and a slower model of somebody's project, and leave a changed document alone?

    python docs/experiments/gate_project.py [--runs 10] [--budget 120] [--images 512]

In a new repository with packages called as ours are and a network of its own (``torch:vision.net:build``), the steps of
action.yml are executed as a runner does, against the commit before:

1. a changed document: every run must say pass or unresolved;
2. a network that takes its planes in the order B, G, R: every run must fail by the accuracy row, and blame the weights;
3. a network that sleeps for 10 % of the shortest median of those before: every run must fail by the latency row alone.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console

from bench.analysis.table import load_frame
from bench.run.images import choose_images
from scarlet import zoo

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "fakes"), str(ROOT / "tests")]
from test_action import Runner  # noqa: E402

NET = """import time
from pathlib import Path

import torch

from vision.network import Scarlet, scarlet


class Net(torch.nn.Module):
    def __init__(self, network: Scarlet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels)


def build() -> Net:
    network = scarlet("scarlet_c")
    network.load_state_dict(torch.load(Path(__file__).with_name("weights.pth"), weights_only=True))
    return Net(network)
"""
CALL = "        return self.network(pixels)\n"
FAULTY = CALL.replace("pixels", "pixels.flip(1)")


def project(home: Path) -> Runner:
    """The repository, and a machine to execute the action on."""
    made = Runner(home, f'exec {sys.executable} -c "import scarlet_bench; scarlet_bench.main()" "$@"')
    made.environment["PYTHONPATH"] = f"{ROOT}:{made.project}"
    for name in ("bench", "export", "models", "vision"):
        (made.project / name).mkdir(parents=True)
        text = "" if name == "vision" else "raise SystemExit('a package of the project was imported')"
        (made.project / name / "__init__.py").write_text(text)
    shutil.copy(ROOT / "scarlet" / "networks.py", made.project / "vision" / "network.py")
    built = zoo.build(zoo.resolve("scarlet_c"), "demo")
    torch.save(built.module.state_dict(), made.project / "vision" / "weights.pth")
    made.git("init", "--quiet")
    (made.project / ".gitignore").write_text("results/\nscarlet-bench-check/\n")
    made.commit("vision/net.py", NET)
    made.git("tag", "base")
    return made


def judged(made: Runner, kind: str, file: str, text: str, inputs: dict[str, str]) -> dict[str, Any]:
    """What the action says of a change of one file; prints a line."""
    made.git("reset", "--hard", "--quiet", "base")
    made.commit(file, text)
    started = time.monotonic()
    done = made.step("check", against="HEAD~1", **inputs)
    code = made.step("verdict").returncode
    answer = made.project / "scarlet-bench-check" / "against.json"
    if not answer.exists():
        print(f"{kind}: {made.outputs['verdict']}\n{done.stdout}\n{done.stderr}", flush=True)
        return {"verdict": "error", "rows": []}
    said: dict[str, Any] = json.loads(answer.read_text())
    rows = "; ".join(f"{row['row']}: {row['verdict']} {row['stage']}: {row['reason']}" for row in said["rows"])
    print(f"{kind}: {said['verdict']} (exit code {code}), {time.monotonic() - started:.0f} s: {rows}", flush=True)
    return {**said, "verdict": said["verdict"] if (code == 1) == (said["verdict"] == "fail") else "error"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--budget", default="120")
    parser.add_argument("--images", default="512")
    parser.add_argument("--lives", default="6")
    parser.add_argument("--tolerance", default="3")
    wanted = parser.parse_args()
    image_set, _ = choose_images(None, None, Console(stderr=True, width=160))
    inputs = {
        "model": "torch:vision.net:build",
        "data": str(image_set.root.resolve()),
        "backends": "pytorch",
        "budget": wanted.budget,
        "tolerance": wanted.tolerance,
        "args": f"--images {wanted.images} --lives {wanted.lives}",
    }
    found: dict[str, Counter[str]] = {kind: Counter() for kind in ("document", "worse", "slower")}
    shortest = math.inf
    with TemporaryDirectory() as folder:
        made = project(Path(folder))
        for number in range(1, wanted.runs + 1):
            said = judged(made, "document", "README.md", f"Sentence {number}.\n", inputs)
            found["document"][said["verdict"]] += 1
            if said.get("run"):
                frame = load_frame(made.project / said["run"])
                shortest = min(shortest, float(frame["latency_ns_p50"].median()) / 1e9)
            sleep = f"        time.sleep({0.1 * shortest!r})\n"
            print(f"planted: {100 * shortest:.3f} ms in every call", flush=True)
            for kind, change in (("worse", FAULTY), ("slower", sleep + CALL)):
                said = judged(made, kind, "vision/net.py", NET.replace(CALL, change), inputs)
                blamed = [(row["verdict"], row["stage"]) for row in said["rows"]]
                is_named = blamed[:1] == [("fail", "weights")] if kind == "worse" else ("fail", "") in blamed[1:]
                found[kind][said["verdict"] if is_named or said["verdict"] != "fail" else "fail by another row"] += 1
    for kind, counts in found.items():
        print(f"{kind}: {dict(counts)}")
    good = set(found["document"]) <= {"pass", "unresolved"}
    return int(not good or {*found["worse"], *found["slower"]} != {"fail"})


if __name__ == "__main__":
    sys.exit(main())
