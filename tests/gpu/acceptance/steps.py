"""Carries out the steps of ``steps.yaml``: a process for each, a time for each, and a record of each as it ends."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from bench.backends import facts
from bench.record.files import write_text
from bench.worker.channel import last_words

HERE = Path(__file__).resolve().parent
HOME = HERE.parents[2]
RECORDS = "steps.json"

# A little under eight: a step that has to be ended gets some seconds to write down what it has. The times in
# ``steps.yaml`` are for so many minutes; with more, each step may take more.
MINUTES = 7.5
# Share of a step's time that is the run's budget, in which Cases start, warm up and take rounds; before it the model is
# prepared, after it what was measured is written down.
MEASURING = 0.5
# A run that is asked to end records its Cases, merges its samples and writes its report first.
GRACE_SECONDS = 20.0

# What a dry run keeps of a step's plan, and what it puts in the place of the rest.
KEPT = ("model", "checkpoint", "scenarios")
REHEARSAL: Mapping[str, Any] = {
    "devices": ["cpu"], "backends": ["pytorch", "onnxruntime"], "precisions": ["fp32"], "batches": [2],
    "pipeline": ["reference", "turbo", "dali"], "images": 16,
}  # fmt: skip

RUN = "-m bench.cli run --plan {plan} --out {folder}/{name} --budget {budget} --lives 1 --timeout {seconds}"


@dataclass(frozen=True)
class Step:
    """Something to do, in a process of its own.

    Attributes:
        name: of the step; its output goes to ``logs/<name>.log``, and what a run makes to ``<name>`` in the folder.
        title: for people.
        argv: arguments of the interpreter. ``{seconds}`` and ``{budget}`` stand for the time that it gets, and for how
            much of that is for measuring.
        least_seconds: with less left it is not begun.
        most_seconds: it is ended after as long.
        plan: of a run; it is written to ``plans/<name>.yaml``.
        stdout: file in the folder that takes its standard output; none where it goes to the log.
        extra: it takes only time that no other step needs.
    """

    name: str
    title: str
    argv: tuple[str, ...]
    least_seconds: float
    most_seconds: float
    plan: Mapping[str, Any] | None = field(default=None, compare=False)
    stdout: str = ""
    extra: bool = False

    def command(self, seconds: float) -> list[str]:
        """The whole command, for a step that gets so many seconds."""
        budget = max(2.0, MEASURING * seconds)
        times = {"{seconds}": f"{seconds:.0f}", "{budget}": f"{budget:.0f}"}
        return [sys.executable, *(times.get(word, word) for word in self.argv)]


def load_steps(folder: Path, quick: bool = False) -> tuple[Step, ...]:
    """All steps in order.

    Args:
        folder: that takes the results.
        quick: fewer images, precisions and batches.
    """
    described = yaml.safe_load((HERE / "steps.yaml").read_text(encoding="utf-8"))
    changes = described["quick"] if quick else {}
    entries = [entry for entry in described["steps"] if not (quick and entry.get("extra"))]
    return tuple(_step(entry, folder, changes) for entry in entries)


def rehearsed(step: Step) -> Step:
    """The step on the CPU with a few images: it finds what is missing before a GPU's time is spent."""
    budget = tuple(word.replace("{budget}", "4") for word in step.argv)
    plan = None if step.plan is None else {**{name: step.plan[name] for name in KEPT}, **REHEARSAL}
    return replace(step, argv=budget, least_seconds=1.0, most_seconds=120.0, plan=plan)


def _step(entry: Mapping[str, Any], folder: Path, quick: Mapping[str, Any]) -> Step:
    texts = {
        "folder": folder,
        "home": HOME,
        "name": entry["name"],
        "plan": plan_path(folder, entry["name"]),
        "seconds": "{seconds}",
        "budget": "{budget}",
    }
    argv = tuple(word.format(**texts) for word in entry.get("command", RUN).split())
    plan = _plan(entry, quick) if "plan" in entry else None
    more = entry.get("tensorrt", 0) * _is_installed("tensorrt")
    least, most = (seconds + more for seconds in entry["seconds"])
    is_extra = entry.get("extra", False)
    return Step(entry["name"], entry["title"], argv, least, most, plan, entry.get("stdout", ""), is_extra)


def _plan(entry: Mapping[str, Any], quick: Mapping[str, Any]) -> dict[str, Any]:
    """A plan file, perhaps with other batches and precisions; of a backend that is not installed its first one alone.

    One row says that it is missing as well as five, each of which would start a process that imports PyTorch.
    """
    plan: dict[str, Any] = yaml.safe_load((HERE / "plans" / f"{entry['plan']}.yaml").read_text(encoding="utf-8"))
    plan |= {name: entry[name] for name in ("batches", "precisions") if name in entry}
    precisions = [name for name in plan["precisions"] if name in quick.get("precisions", plan["precisions"])]
    plan |= {"images": quick.get("images", plan["images"]), "precisions": precisions}
    absent = [backend for backend in plan["backends"] if not _is_installed(backend)]
    if absent and precisions[1:]:
        plan["exclude"] = [*plan.get("exclude", ()), {"backend": absent, "precision": precisions[1:]}]
    return plan


def _is_installed(backend: str) -> bool:
    return importlib.util.find_spec(facts(backend).module) is not None


def plan_path(folder: Path, name: str) -> Path:
    """Where a step's plan file is."""
    return folder / "plans" / f"{name}.yaml"


def allowance(todo: Sequence[Step], left_seconds: float, minutes: float = MINUTES) -> float:
    """How long the first step may take: its most, unless those behind it would then not get their least.

    Args:
        todo: the steps that are left, at least one.
        left_seconds: for all of them.
        minutes: of the whole check; above ``MINUTES`` every step may take more.

    Returns:
        seconds; 0 where the step is not to be begun.
    """
    first, *later = todo
    most = first.most_seconds * max(1.0, minutes / MINUTES)
    kept = sum(step.least_seconds for step in later if not step.extra)
    granted = min(most, max(left_seconds - kept, first.least_seconds))
    return granted if granted <= left_seconds else 0.0


@dataclass(frozen=True)
class Record:
    """How a step ended.

    Attributes:
        name: of the step.
        status: ``ok``, ``failed``, ``timeout``, ``not run`` or ``interrupted``.
        reason: why, for every status but ``ok``.
        seconds: that it took.
        command: what was run; empty where nothing was.
    """

    name: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    command: tuple[str, ...] = ()


def read_records(folder: Path) -> list[Record]:
    """What earlier calls on this folder recorded; nothing where there were none."""
    try:
        stored: list[dict[str, Any]] = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [Record(**{**record, "command": tuple(record["command"])}) for record in stored]


@dataclass(frozen=True)
class Runner:
    """Carries out steps.

    Attributes:
        folder: that takes the results; it exists.
        minutes: for all steps.
        say: hears what is done.
        after: called when a step has ended or was interrupted, with all records so far.
        clock: seconds.
    """

    folder: Path
    minutes: float
    say: Callable[[str], None]
    after: Callable[[Sequence[Record]], None]
    clock: Callable[[], float] = time.monotonic

    def carry_out(self, steps: Sequence[Step]) -> list[Record]:
        """Carries out all steps that fit into the time; one that fails is recorded, and the rest goes on.

        What an earlier call on the same folder finished is not done again.

        Raises:
            KeyboardInterrupt: after everything has been recorded.
        """
        ends = self.clock() + 60.0 * self.minutes
        records = [record for record in read_records(self.folder) if record.status == "ok"]
        done = {record.name for record in records}
        todo = [step for step in steps if step.name not in done]
        for index, step in enumerate(todo):
            seconds = allowance(todo[index:], ends - self.clock(), self.minutes)
            try:
                record = self._one(step, seconds)
            except KeyboardInterrupt:
                self._keep([*records, Record(step.name, "interrupted", "the check was stopped")])
                raise
            if record.status != "ok":
                self.say(f"{step.title}: {record.status}: {record.reason}")
            records.append(record)
            self._keep(records)
        return records

    def _one(self, step: Step, seconds: float) -> Record:
        if not seconds:
            why = f"the {self.minutes:g} minutes were used up; a second call with the same --out goes on here"
            return Record(step.name, "not run", why)
        self.say(f"{step.title} (at most {seconds:.0f} s)")
        command = step.command(seconds)
        if step.plan is not None:
            path, out = plan_path(self.folder, step.name), self.folder / step.name
            write_text(path, yaml.safe_dump(dict(step.plan), sort_keys=False))
            if (out / "run.json").exists():  # an earlier call left it half done: it goes on as it was planned
                command = [*command[: command.index("--plan")], "--resume", "--out", str(out)]
        return self.run(step, command, seconds)

    def _keep(self, records: Sequence[Record]) -> None:
        write_text(self.folder / RECORDS, json.dumps([asdict(record) for record in records], indent=1) + "\n")
        self.after(records)

    def run(self, step: Step, command: list[str], seconds: float) -> Record:
        """Runs a step in a process group of its own, with its output in the folder."""
        log = self.folder / "logs" / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        paths = filter(None, [str(HOME), os.environ.get("PYTHONPATH", "")])
        started = time.monotonic()
        with (
            log.open("ab") as errors,
            (self.folder / step.stdout).open("wb") if step.stdout else log.open("ab") as output,
        ):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(paths)},
                start_new_session=True,  # a Ctrl-C at the terminal goes to this process alone
            )
            status, reason = _ended(process, seconds)
        if status == "failed":
            reason = f"it ended with {reason}: {last_words(log) or 'it said nothing'}"
        return Record(step.name, status, reason, round(time.monotonic() - started, 1), tuple(command))


def _ended(process: subprocess.Popen[bytes], seconds: float) -> tuple[str, str]:
    """The status of a process that gets so many seconds, and why."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        end(process)
        return "timeout", f"it was ended after {seconds:.0f} s; what it had finished is kept"
    except KeyboardInterrupt:
        end(process)
        raise
    if code == 0:
        return "ok", ""
    return "failed", f"signal {-code}" if code < 0 else f"exit code {code}"


def end(process: subprocess.Popen[bytes], grace_seconds: float = GRACE_SECONDS) -> None:
    """Asks a process to end, and kills it with all it started where it does not."""
    process.terminate()
    try:
        process.wait(grace_seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):  # it ended by itself in this moment
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
