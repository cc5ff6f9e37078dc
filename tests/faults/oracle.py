"""Judges what became of a fault: by the run that nothing disturbed, and by what was said."""

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.record.case import Status
from bench.record.run_folder import RunFolder
from scarlet.errors import BenchError
from tests.faults.place import Said

# From good to bad. All but the first are faults of ours.
VERDICTS = ("survived", "unclear", "traceback", "orphan", "hang", "wrong", "lost")

# Words that tell a reader not to take the figures as they are.
WARNED = re.compile(r"left out|missing|damaged|digest|changed|does not|do not|cannot|edited|no longer|gone|lost", re.I)


@dataclass(frozen=True)
class Judgement:
    """What became of a fault: one of ``VERDICTS``, and in a few words why."""

    verdict: str = "survived"
    why: str = ""


@dataclass(frozen=True)
class Rows:
    """What a run's folder holds: status and reason of each row, and the data of those that are ok, by Case."""

    status: dict[str, tuple[str, str]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    warned: bool = False

    def ok(self) -> set[str]:
        """The Cases that are ok."""
        return {case_id for case_id, (status, _) in self.status.items() if status == Status.OK.value}


def rows_of(path: Path) -> Rows:
    """Reads a run's folder as the reports do.

    Raises:
        BenchError: it cannot be read.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        folder = RunFolder.open(path)
        status = {result.case.case_id: (result.status.value, result.reason) for result in folder.results()}
        data: dict[str, Any] = {}
        for case_id, part in folder.predictions().groupby("case_id", observed=True):
            columns = [name for name in part.columns if name != "case_id"]
            ordered = part.sort_values("image_id")
            data[str(case_id)] = [tuple(map(str, ordered[name])) for name in columns]
        for case_id, part in folder.samples().groupby("case_id", observed=True):
            data.setdefault(str(case_id), np.unique(part["latency_ns"].to_numpy()))
    return Rows(status, data, bool(caught))


@dataclass(frozen=True)
class Truth:
    """The run that nothing disturbed, and every time that its backend can have taken."""

    rows: Rows
    times: frozenset[int]

    def differs(self, rows: Rows) -> str:
        """The first row that is ok and does not hold what it should; empty where there is none."""
        for case_id in sorted(rows.ok()):
            expected, found = self.rows.data.get(case_id), rows.data.get(case_id)
            if found is None:
                return f"{case_id} is ok without its data"
            if isinstance(expected, np.ndarray):
                if not isinstance(found, np.ndarray) or not self.times.issuperset(found.tolist()):
                    return f"{case_id} holds times that nobody took"
            elif expected != found:
                return f"{case_id} holds other predictions"
        return ""


def said_badly(said: Said) -> Judgement | None:
    """What is wrong with how a command ended, whatever befell it; None where nothing is."""
    if said.code is None:
        return Judgement("hang", said.text[-200:])
    if "Traceback (most recent call last)" in said.text:
        return Judgement("traceback", said.text.strip().splitlines()[-1][:200])
    if said.code == 2 and "error: " not in said.text and "Error" not in said.text:
        return Judgement("unclear", f"exit code 2 without a word: {said.text[-200:]}")
    return None


def judged(truth: Truth, run: Path, finished: set[str], *said: Said, complete: bool) -> Judgement:
    """What became of a run's folder.

    Args:
        truth: the undisturbed run.
        run: the folder.
        finished: Cases whose rows were on disk, ok, when the fault struck.
        said: how all commands ended since, but those that the fault ended.
        complete: whether every row must be there, ok, or with what befell it as its reason.
    """
    for each in said:
        if bad := said_badly(each):
            return bad
    refused = any(each.code == 2 for each in said)
    try:
        rows = rows_of(run)
    except BenchError as mistake:
        if finished and not refused:
            return Judgement("lost", mistake.what)
        return Judgement() if refused else Judgement("unclear", mistake.what)
    warned = rows.warned or refused or any(WARNED.search(each.text) for each in said)
    if missing := finished - rows.ok():
        return Judgement("survived" if warned else "lost", f"{len(missing)} finished rows are gone")
    if (wrong := truth.differs(rows)) and not warned:
        return Judgement("wrong", wrong)
    without = {case_id for case_id, (status, reason) in rows.status.items() if status != "ok" and not reason}
    if without:
        return Judgement("unclear", "a row without a reason")
    if complete and (short := truth.rows.ok() - rows.ok()) and not warned:
        states = {rows.status.get(case_id, ("absent", ""))[0] for case_id in short}
        if not states <= {"crashed"}:
            return Judgement("lost", f"{len(short)} rows are {', '.join(sorted(states))} after --resume")
    left = [path.name for path in run.rglob("*.tmp")]
    return Judgement("unclear", f"left behind: {left}") if complete and left else Judgement()


def fake_times(seed: int, noise: float, base_ns: float, n: int = 100_000) -> frozenset[int]:
    """Every time that the fake backend takes for a call, in nanoseconds, among its first ``n`` calls."""
    factors = np.exp(np.random.default_rng(seed).standard_normal(n) * noise)
    return frozenset(round(base_ns * float(factor)) for factor in factors)
