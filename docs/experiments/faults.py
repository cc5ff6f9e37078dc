"""Does a check catch the faults that real pipelines have had, with the right rows and the right stage?

    python docs/experiments/faults.py [--only NAME ...] [--folder FOLDER] [--write]

Makes a small demo set and baselines of the code as it is; then plants one fault after the other (``planted.py``) and
has `scarlet-bench check` run and judge, as a user would. Two more checks are of the code without a fault, one of them
on another number of threads. Prints a table, and with --write puts it into docs/accuracy.md. Exit code 1 when a fault
was missed or not named rightly, or a check without a fault did not pass. About half a minute a fault.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import marks

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "fakes"))
import planted

# Not a multiple of the batch of 32: the last batch is a smaller one.
IMAGES = 144
BACKENDS = "pytorch,onnxruntime"

# Characters of a sentence in the table.
LONGEST = 280


@dataclass(frozen=True)
class Fault:
    """What is planted and what a check has to say.

    Attributes:
        name: in ``planted.FAULTS``; empty for the code as it is.
        what: for people.
        where: likewise.
        stage: that has to be named.
        rows: which have to fail and no others: a pipeline, a backend, or ``all``; ``none``.
        pipelines: of the baseline.
        own_store: the fault makes other files of the model, or has to be there when they are made.
        threads: another number of threads than the baseline's.
    """

    name: str
    what: str
    where: str
    stage: str
    rows: str
    pipelines: str = "reference,dali"
    own_store: bool = False
    threads: int = 0


def _pixels(pipeline: str, where: str) -> list[Fault]:
    rows = pipeline if pipeline != "all" else "all"
    pipelines = "reference,turbo" if pipeline == "turbo" else "reference,dali"
    return [
        # The mean is in the files that a store keeps.
        Fault(f"{pipeline}-{name}", what, where, stage, rows, pipelines, own_store=name == "mean")
        for name, what, stage in (
            ("bgr", "channels in BGR order", "decode"),
            ("exif", "EXIF orientation applied", "decode"),
            ("bicubic", "bicubic resize", "resize"),
            ("floor-crop", "crop offset floored", "crop"),
            ("mean", "wrong mean", "normalise"),
        )
    ]


FAULTS = [
    Fault("", "none", "", "", "none"),
    Fault("", "none, 1 thread", "", "", "none", threads=1),
    *_pixels("dali", "pipeline dali"),
    *_pixels("turbo", "pipeline turbo"),
    *_pixels("all", "what all pipelines share"),
    Fault("relu6", "ReLU6 in place of h-swish", "export to ONNX", "export", "all", own_store=True),
    Fault(
        "relu6-unchecked",
        "the same, and the export's own check accepts it",
        "export to ONNX",
        "export",
        "onnxruntime",
        own_store=True,
    ),
    Fault("permuted", "two channels of a weight exchanged", "loader", "weights", "all", own_store=True),
    Fault(
        "permuted-later", "the same, after the weights' digest was taken", "loader", "weights", "all", own_store=True
    ),
    Fault("leak", "logits 3 % closer together: no prediction changes", "ONNX Runtime", "backend", "onnxruntime"),
    Fault("shuffled", "batches in another order", "accuracy task", "order", "all"),
    Fault("shuffled-pipeline", "batches in another order", "what pipelines share", "order", "all"),
    Fault("folder-rank", "labels by the folder's rank", "finding images", "labels", "all"),
    Fault("last-dropped", "last batch dropped", "accuracy task", "order", "all"),
    Fault("last-dropped-pipeline", "last batch dropped", "what pipelines share", "order", "all"),
    Fault("twice", "an image counted twice", "accuracy task", "order", "all"),
    Fault("twice-off-by-one", "the same, with the right number of images", "accuracy task", "order", "all"),
]


@dataclass(frozen=True)
class Found:
    """What a check said.

    Attributes:
        verdict: of the whole.
        exit_code: of the command.
        failed: pipeline and backend of each row that failed.
        n_rows: of the baseline.
        stages: of the rows that failed, each once.
        sentence: what it says is at fault.
        seconds: that the command took.
    """

    verdict: str
    exit_code: int
    failed: tuple[tuple[str, str], ...]
    n_rows: int
    stages: tuple[str, ...]
    sentence: str
    seconds: float

    @property
    def rows(self) -> str:
        """The rows that failed, in words."""
        if not self.failed:
            return "none"
        if len(self.failed) == self.n_rows:
            return "all"
        for place in (0, 1):
            names = {row[place] for row in self.failed}
            if len(names) == 1 and len(self.failed) * 2 == self.n_rows:
                return names.pop()
        return ", ".join(" ".join(row) for row in self.failed)


class Bench:
    """Runs commands on the small demo set, in a folder that holds all that they write."""

    def __init__(self, folder: Path) -> None:
        from pipelines.demo.make import make_demo

        self._folder = folder
        self._data = folder / "data"
        make_demo(self._data, IMAGES)

    def _command(self, words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bench.cli", *words],
            cwd=self._folder,
            env={"SCARLET_BENCH_STORE": str(self._folder / "store"), **environment},
            capture_output=True,
            text=True,
        )

    def _run(self, pipelines: str, out: Path, *more: str) -> None:
        words = ["run", "--scenarios", "accuracy", "--data", str(self._data), "--images", "all"]
        words += ["--backends", BACKENDS, "--pipeline", pipelines, "--out", str(out), *more]
        ended = self._command(words, dict(os.environ))
        if ended.returncode:
            raise SystemExit(f"the run without a fault failed:\n{ended.stdout}\n{ended.stderr}")

    def baseline(self, pipelines: str) -> Path:
        """A baseline of the code as it is, made once."""
        name = pipelines.replace(",", "-")
        path = self._folder / f"{name}.json"
        if not path.exists():
            self._run(pipelines, self._folder / f"clean-{name}")
            words = ["baseline", "--run", str(self._folder / f"clean-{name}"), "--out", str(path)]
            ended = self._command(words, dict(os.environ))
            if ended.returncode:
                raise SystemExit(f"no baseline could be made:\n{ended.stdout}\n{ended.stderr}")
        return path

    def check(self, fault: Fault) -> Found:
        """What a check says of the code with this fault."""
        baseline = self.baseline(fault.pipelines)
        environment = dict(os.environ)
        if fault.name:
            environment = planted.plant(self._folder / "planted", fault.name, environment)
        words = ["check", "--baseline", str(baseline), "--data", str(self._data), "--json"]
        with tempfile.TemporaryDirectory() as name:
            if fault.own_store:
                environment["SCARLET_BENCH_STORE"] = name
            if fault.threads:
                run = Path(name) / "run"
                self._run(fault.pipelines, run, "--threads", str(fault.threads))
                words += ["--current", str(run)]
            started = time.perf_counter()
            ended = self._command(words, environment)
        seconds = time.perf_counter() - started
        try:
            report = json.loads(ended.stdout)
        except ValueError:
            return Found("none", ended.returncode, (), 0, (), ended.stderr.strip()[-500:], seconds)
        return _found(report, ended.returncode, seconds)


def _found(report: dict[str, Any], exit_code: int, seconds: float) -> Found:
    failed = [row for row in report["rows"] if row["verdict"] == "fail"]
    # "accuracy dali pytorch cpu fp32 batch 32"
    rows = tuple((row["row"].split()[1], row["row"].split()[2]) for row in failed)
    stages = tuple(dict.fromkeys(row["stage"] for row in failed))
    texts = [item["text"] for item in report["findings"]] or [row["reason"] for row in report["rows"]][:1]
    sentence = textwrap.shorten("; ".join(texts), LONGEST, placeholder=" …")
    return Found(report["verdict"], exit_code, rows, len(report["rows"]), stages, sentence, seconds)


def as_it_should(fault: Fault, found: Found) -> bool:
    """Whether the verdict, the rows that failed and the stage are right."""
    if fault.rows == "none":
        return found.verdict == "pass" and found.exit_code == 0
    verdict = found.verdict == "fail" and found.exit_code == 1
    return verdict and found.rows == fault.rows and found.stages == (fault.stage,)


def table(found: list[tuple[Fault, Found]]) -> str:
    """Faults against verdicts, as Markdown."""
    lines = ["| Fault | Where it was planted | Verdict | Rows that fail | Stage | What the check says |"]
    lines += ["| --- | --- | --- | --- | --- | --- |"]
    for fault, what in found:
        verdict = what.verdict if as_it_should(fault, what) else f"**{what.verdict}** (wrong)"
        stages = ", ".join(stage or "unknown" for stage in what.stages)
        cells = [fault.what, fault.where, verdict, what.rows, stages, what.sentence]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", help="names of planted.FAULTS, or 'none'")
    parser.add_argument("--folder", type=Path, help="kept; what was judged there before is not judged again")
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = (wanted.folder or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder)
        judged = []
        for fault in FAULTS:
            own = fault.name or "none"
            kept = folder / f"judged-{own}-{fault.threads}.json"
            if wanted.only and own not in wanted.only and not kept.exists():
                continue
            if (wanted.only and own in wanted.only) or not kept.exists():
                found = bench.check(fault)
                kept.write_text(json.dumps(asdict(found)))
            stored = json.loads(kept.read_text())
            stored |= {"failed": tuple(map(tuple, stored["failed"])), "stages": tuple(stored["stages"])}
            judged.append((fault, Found(**stored)))
            right = "right" if as_it_should(*judged[-1]) else "WRONG"
            print(
                f"{right}: {own}: {judged[-1][1].verdict}, exit code {judged[-1][1].exit_code}, rows "
                f"{judged[-1][1].rows}, stage {judged[-1][1].stages}, {judged[-1][1].seconds:.0f} s: "
                f"{judged[-1][1].sentence}",
                file=sys.stderr,
                flush=True,
            )
    print(table(judged))
    if wanted.write:
        marks.put("faults", table(judged))
    return int(not all(as_it_should(*pair) for pair in judged))


if __name__ == "__main__":
    sys.exit(main())
