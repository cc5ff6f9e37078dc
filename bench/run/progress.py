"""Tells a person how the run goes: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult
from bench.report.terminal import printer


class PlainListener(AbstractContextManager["PlainListener"]):
    """One line when a Case begins and one when it ends; for logs and pipes."""

    def __init__(self, console: Console, cases: int) -> None:
        self.note = printer(console)
        self._cases, self._begun = cases, 0

    def __exit__(self, *raised: object) -> None:
        return

    def case_started(self, case: Case) -> None:
        self._begun += 1
        self.note(f"[{self._begun}/{self._cases}] {case.label}: started")

    def progress(self, case: Case, fraction: float, detail: str) -> None:
        """Nothing: a log wants no bars."""

    def case_ended(self, result: CaseResult) -> None:
        self.note(f"{result.case.label}: {ending(result)}")


class BarListener:
    """A bar for every Case that has begun."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=console,
        )
        self.note = printer(console)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> BarListener:
        self._bars.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bars.stop()

    def case_started(self, case: Case) -> None:
        self._tasks[case.case_id] = self._bars.add_task(case.label, total=1.0, detail="loading")

    def progress(self, case: Case, fraction: float, detail: str) -> None:
        self._bars.update(self._tasks[case.case_id], completed=fraction, detail=detail)

    def case_ended(self, result: CaseResult) -> None:
        task = self._tasks.get(result.case.case_id)
        if task is not None:
            self._bars.update(task, completed=1.0, detail=ending(result))
            self._bars.stop_task(task)


def ending(result: CaseResult) -> str:
    """``ok``, or the status and its reason."""
    return "ok" if result.status is Status.OK else f"{result.status.value}: {result.reason}"


def make_listener(console: Console, cases: int) -> PlainListener | BarListener:
    """Bars where somebody watches, lines where nobody does."""
    return BarListener(console) if console.is_terminal else PlainListener(console, cases)
