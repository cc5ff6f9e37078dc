"""The steps of a GPU check: which there are, in which order, and how long each may take."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tests.gpu.acceptance import plans

# A little under eight: a step that has to be ended gets some seconds to write down what it has. The times below are for
# so many minutes; with more, each step may take more.
MINUTES = 7.5

# Share of a step's time that a run measures; the rest is for loading its Cases, which nobody knows beforehand.
MEASURING = 0.25

DOCTOR, TESTS, ACCURACY, GRAPHS = "doctor", "tests", "accuracy", "graphs"
DECODE, THROUGHPUT = "decode", "throughput"
DECODED = "decode.json"
TESTED = "tests.xml"


@dataclass(frozen=True)
class Step:
    """Something to do, in a process of its own.

    Attributes:
        name: of the step; its output goes to ``logs/<name>.log``, and what it makes to ``<name>`` in the folder.
        title: for people.
        argv: arguments of the interpreter. ``{seconds}`` and ``{budget}`` stand for the time that it gets, and for how
            much of that is for measuring.
        least_seconds: with less left it is not begun.
        most_seconds: it is ended after as long.
        plan: of a run; it is written to ``plans/<name>.yaml``.
        stdout: file in the folder that takes its standard output; none where it goes to the log.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    least_seconds: float
    most_seconds: float
    plan: plans.Plan | None = field(default=None, compare=False)
    stdout: str = ""

    def command(self, seconds: float) -> list[str]:
        """The whole command, for a step that gets so many seconds."""
        budget = max(2.0, MEASURING * seconds)
        words = (
            word.replace("{seconds}", f"{seconds:.0f}").replace("{budget}", f"{budget:.0f}")
            for word in self.argv
        )
        return [sys.executable, *words]


def steps(folder: Path, home: Path, quick: bool = False, absent: Sequence[str] = ()) -> tuple[Step, ...]:
    """All steps, the most telling first: what time is short for comes last.

    Args:
        folder: that takes the results.
        home: folder of the project, with its tests.
        quick: fewer images, precisions and batches.
        absent: backends that are not installed.
    """
    precisions = plans.QUICK_PRECISIONS if quick else plans.PRECISIONS
    batches = plans.QUICK_BATCHES if quick else plans.BATCHES
    images = plans.QUICK_IMAGES if quick else plans.IMAGES
    found = (
        Step(
            DOCTOR,
            "what this machine is",
            ("-m", "bench.cli", "doctor", "--json"),
            2,
            30,
            stdout="doctor.json",
        ),
        _tests(folder, home),
        _run(
            folder, ACCURACY, "accuracy of backends and pixels", 30, 130, plans.accuracy(precisions, images)
        ),
        _run(folder, GRAPHS, "batch 1 with and without CUDA graphs", 25, 90, plans.graphs(images)),
        _decode(folder, images),
        _run(folder, THROUGHPUT, "passes from files to top-5", 25, 80, plans.throughput(images)),
        *(_latency(folder, batch, precisions, images) for batch in batches),
    )
    return tuple(
        replace(step, plan=plans.fewer_of(absent, step.plan)) if step.plan is not None else step
        for step in found
    )


def _decode(folder: Path, images: int) -> Step:
    argv = ("-m", "tests.gpu.acceptance.decode", "--out", str(folder / DECODED), "--seconds", "{budget}")
    return Step(DECODE, "images a second of each pipeline", (*argv, "--images", str(images)), 15, 60)


def _latency(folder: Path, batch: int, precisions: Sequence[str], images: int) -> Step:
    plan = plans.latency(batch, precisions, images)
    return _run(folder, f"latency-{batch}", f"latency at batch {batch}", 25, 90, plan)


def _run(
    folder: Path, name: str, title: str, least_seconds: float, most_seconds: float, plan: plans.Plan
) -> Step:
    what = ("-m", "bench.cli", "run", "--plan", str(plan_path(folder, name)), "--out", str(folder / name))
    argv = (*what, "--budget", "{budget}", "--timeout", "{seconds}")
    return Step(name, title, argv, least_seconds, most_seconds, plan)


def _tests(folder: Path, home: Path) -> Step:
    files = tuple(str(path) for path in gpu_tests(home / "tests"))
    # The project's own options need plugins that a machine without network may lack.
    options = ("-m", "pytest", "-o", "addopts=-ra", "-p", "no:cacheprovider", "-m", "gpu")
    argv = (*options, f"--junitxml={folder / TESTED}", f"--rootdir={home}", *files) if files else ()
    return Step(TESTS, "tests that need a GPU", argv, 20, 100)


def gpu_tests(tests: Path) -> Iterator[Path]:
    """The test files that hold tests for a GPU; looking at the others would mean importing them."""
    for path in sorted(tests.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.gpu" in text or "needs_gpu" in text:
            yield path


def plan_path(folder: Path, name: str) -> Path:
    """Where a step's plan file is."""
    return folder / "plans" / f"{name}.yaml"


def allowance(todo: Sequence[Step], left_seconds: float, minutes: float = MINUTES) -> float:
    """How long the first of the steps may take: what it wants, unless those behind it would then not get their least.

    Args:
        todo: the steps that are left, at least one.
        left_seconds: for all of them.
        minutes: of the whole check; above ``MINUTES`` every step may take more.

    Returns:
        seconds; 0 where the step is not to be begun.
    """
    first, *later = todo
    wanted = first.most_seconds * max(1.0, minutes / MINUTES)
    granted = min(wanted, max(left_seconds - sum(step.least_seconds for step in later), first.least_seconds))
    return granted if granted <= left_seconds else 0.0


def finished(records: Sequence[Mapping[str, object]]) -> set[str]:
    """Names of the steps that ended well in an earlier call on the same folder."""
    return {str(record["name"]) for record in records if record.get("status") == "ok"}
