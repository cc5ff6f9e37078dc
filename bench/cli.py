"""The command line: `scarlet-bench`. Thin: commands read options, call the library and turn errors into exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from types import FrameType
from typing import Annotated, Any, TextIO, cast

import typer
from typer.core import TyperGroup

from bench.commands import (
    against,
    baseline,
    best,
    bisect,
    check,
    compare,
    demo,
    doctor,
    export,
    history,
    models,
    parity,
    profile,
    quantize,
    report,
    reproduce,
    run,
    schema,
    table,
    verify,
)
from bench.commands.show import INTERRUPTED, PASS_ON, USER_ERROR
from bench.host import package_versions
from bench.record.files import DamagedRunWarning
from scarlet.errors import BenchError, error_text, refusal, visible
from scarlet.processes import Terminated


class Grouped(TyperGroup):
    """Lists its commands by what people want to do."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes a section for each group of commands."""
        width = max(map(len, self.commands))
        for title, names in GROUPS.items():
            rows = [(name, self.commands[name].get_short_help_str(formatter.width - 6 - width)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows, col_max=width)


app = typer.Typer(
    name="scarlet-bench", cls=Grouped, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None
)


def _tell(asked: bool) -> None:
    if asked:
        typer.echo(f"scarlet-bench {package_versions(['scarlet-bench'])['scarlet-bench']}")
        raise typer.Exit


@app.callback()
def front(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Compare the accuracy and latency of an image classifier across inference runtimes."""


# In the order of --help. What a module imports at its top is loaded by every command: nothing heavy.
GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "Measure": {
        "run": run.run,
        "plan": run.plan,
        "table": table.table,
        "reproduce": reproduce.reproduce,
        "report": report.report,
    },
    "Compare": {
        "compare": compare.compare,
        "against": against.against,
        "baseline": baseline.baseline,
        "check": check.check,
        "history": history.history,
    },
    "Investigate": {
        "profile": profile.profile,
        "parity": parity.parity,
        "bisect": bisect.bisect,
        "noise": run.measure_noise,
    },
    "Improve": {"best": best.best, "quantize": quantize.quantize, "export": export.export},
    "Manage": {
        "doctor": doctor.doctor,
        "verify": verify.verify,
        "demo": demo.demo,
        "models": models.models,
        "schema": schema.schema,
    },
}
# These hand their options on to another command.
PASSING_ON = ("plan", "noise")

for commands in GROUPS.values():
    for name, command in commands.items():
        app.command(name, context_settings=PASS_ON if name in PASSING_ON else None)(command)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Terminated


class Patient:
    """A stream that may fill up, or lose its reader: what is written from then on goes nowhere, and the work goes on.

    Attributes:
        error: why, once it has come to that.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As a stream does."""
        with self._patience():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As a stream does."""
        with self._patience():
            self._stream.flush()

    @contextmanager
    def _patience(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = error
            # What is still in its buffer would be written at the interpreter's end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())


def main(program: typer.Typer = app) -> None:
    """Entry point: a `BenchError` becomes two lines and exit code 2; Ctrl-C and SIGTERM become 130."""
    signal.signal(signal.SIGTERM, _interrupt)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by the shell: no file of a run must get its number
            os.open(os.devnull, os.O_RDWR)
    streams = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    for stream in streams:
        if isinstance(stream, TextIOWrapper):  # a name need not fit the terminal's encoding
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = (cast("TextIO", Patient(stream)) for stream in streams)
    try:
        _run(program)
    finally:
        said = sys.stdout
        sys.stdout, sys.stderr = streams
        if isinstance(said, Patient):
            said.flush()
            if said.error is not None and said.error.errno != errno.EPIPE:  # a reader who has gone has read enough
                sys.stderr.write(
                    f"error: standard output cannot be written: {said.error.strerror}\n"
                    "       What was measured is kept; `scarlet-bench report` shows it.\n"
                )
                sys.exit(USER_ERROR)


_FORMAT = warnings.formatwarning


def _worded(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning of ours in one line; others as ever."""
    if issubclass(category, DamagedRunWarning):
        return f"warning: {visible(error_text(message))}\n"
    return _FORMAT(message, category, filename, lineno, line)


def _run(program: typer.Typer) -> None:
    warnings.formatwarning = _worded
    try:
        if not _here():
            raise BenchError("the current folder is gone", "Change to a folder that is there.")
        program()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(INTERRUPTED)
    except (BenchError, OSError) as error:
        mistake = error if isinstance(error, BenchError) else refusal(error)
        if mistake is None:
            raise
        what, do = (visible(error_text(text)) for text in (mistake.what, mistake.do))
        sys.stderr.write(f"error: {what}\n       {do}\n")
        sys.exit(USER_ERROR)


def _here() -> bool:
    """Whether the current folder is still there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    main()
