"""Carries out the steps of a GPU check: a process for each, a time for each, and a record of each as it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.record.files import write_text
from bench.worker.channel import last_words, own_home
from tests.gpu.acceptance.steps import Step, allowance, finished, plan_path

RECORDS = "steps.json"

# A run that is asked to end records its Cases, merges its samples and writes its report first.
GRACE_SECONDS = 20.0


@dataclass(frozen=True)
class Record:
    """How a step ended.

    Attributes:
        name: of the step.
        title: of the step.
        status: ``ok``, ``failed``, ``timeout``, ``not run`` or ``interrupted``.
        reason: why, for every status but ``ok``.
        seconds: that it took.
        command: what was run; empty where nothing was.
    """

    name: str
    title: str
    status: str
    reason: str = ""
    seconds: float = 0.0
    command: tuple[str, ...] = ()


Run = Callable[[Step, list[str], float], Record]


def carry_out(
    steps: Sequence[Step],
    folder: Path,
    minutes: float,
    say: Callable[[str], None],
    after: Callable[[Sequence[Record]], None],
    run: Run | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> list[Record]:
    """Carries out all steps that fit into the time; one that fails is recorded, and the rest goes on.

    What an earlier call on the same folder finished is not done again.

    Args:
        steps: in order.
        folder: that takes the results; it exists.
        minutes: for all of them.
        say: hears what is done.
        after: called when a step has ended or was interrupted, with all records so far.
        run: carries out one step: the step, its command, its seconds.
        clock: seconds.

    Raises:
        KeyboardInterrupt: after everything has been recorded.
    """
    run = run or _in_process(folder)
    ends = clock() + 60.0 * minutes
    records = read_records(folder)
    done = finished([asdict(record) for record in records])
    todo = [step for step in steps if step.name not in done]
    records = [record for record in records if record.name in done]
    while todo:
        step = todo[0]
        seconds = allowance(todo, ends - clock(), minutes)
        del todo[0]
        if not step.argv:
            record = Record(step.name, step.title, "not run", "there is nothing here to run for it")
        elif not seconds:
            why = f"the {minutes:g} minutes were used up; a second call with the same --out goes on here"
            record = Record(step.name, step.title, "not run", why)
        else:
            say(f"{step.title} (at most {seconds:.0f} s)")
            _write_plan(step, folder)
            try:
                record = run(step, step.command(seconds), seconds)
            except KeyboardInterrupt:
                records.append(Record(step.name, step.title, "interrupted", "the check was stopped"))
                _keep(records, folder, after)
                raise
        if record.status != "ok":
            say(f"{step.title}: {record.status}: {record.reason}")
        records.append(record)
        _keep(records, folder, after)
    return records


def _keep(records: Sequence[Record], folder: Path, after: Callable[[Sequence[Record]], None]) -> None:
    write_text(folder / RECORDS, json.dumps([asdict(record) for record in records], indent=1) + "\n")
    after(records)


def read_records(folder: Path) -> list[Record]:
    """What earlier calls on this folder recorded; nothing where there were none."""
    try:
        stored: list[dict[str, Any]] = json.loads((folder / RECORDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [Record(**{**record, "command": tuple(record["command"])}) for record in stored]


def _write_plan(step: Step, folder: Path) -> None:
    if step.plan is not None:
        write_text(plan_path(folder, step.name), yaml.safe_dump(dict(step.plan), sort_keys=False))


def _in_process(folder: Path) -> Run:
    """Runs a step in a process group of its own, with its output in the folder."""
    home = own_home()
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH", "")])),
    }

    def run(step: Step, command: list[str], seconds: float) -> Record:
        log = folder / "logs" / f"{step.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = _going_on(step, command, folder)
        started = time.monotonic()
        with (
            log.open("ab") as errors,
            _output(step, folder, log).open("wb" if step.stdout else "ab") as output,
        ):
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=environment,
                start_new_session=True,  # a Ctrl-C at the terminal goes to this process alone
            )
            status, reason = _ended(process, seconds)
        if status == "failed":
            reason = f"it ended with {reason}: {last_words(log) or 'it said nothing'}"
        taken = time.monotonic() - started
        return Record(step.name, step.title, status, reason, round(taken, 1), tuple(command))

    return run


def _output(step: Step, folder: Path, log: Path) -> Path:
    return folder / step.stdout if step.stdout else log


def _going_on(step: Step, command: list[str], folder: Path) -> list[str]:
    """A run that an earlier call left half done is gone on with, as it was planned."""
    out = folder / step.name
    if step.plan is None or not (out / "run.json").exists():
        return command
    return [*command[: command.index("--plan")], "--resume", "--out", str(out)]


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
