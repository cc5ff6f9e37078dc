"""Runs the commands of a set-up, shows one line a step, and says what went wrong. Standard library only."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

TAIL_LINES, LINE_WIDTH = 15, 160


class SetupError(Exception):
    """A set-up that cannot go on: one line of what is wrong, one of what to do, and what the failed command printed."""

    def __init__(self, what: str, do: str, printed: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.do = do
        self.printed = printed


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit status, its standard output, and both outputs together for people."""

    status: int
    stdout: str = ""
    text: str = ""


Run = Callable[[Sequence[str]], Result]
Say = Callable[[str], None]

# The first pattern found in a failed command's output decides what the user is told.
CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device|Errno 28",
        "the disk is full",
        "Free some space (about 3 GB without a GPU, 10 GB with one), then run the same command again.",
    ),
    (
        r"Permission denied|Errno 13",
        "a file or folder may not be written",
        "See above for which; a .venv that belongs to you can be removed with `make clean`.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED|SSLError",
        "the package index's certificate was not accepted",
        "Behind a company proxy, name its certificate (PIP_CERT=/path/to/ca.pem), then run the same command again.",
    ),
    (
        r"NewConnectionError|Temporary failure in name resolution|Name or service not known|ConnectTimeout|"
        r"ReadTimeout|Read timed out|Network is unreachable|Connection refused|Connection reset|ProxyError|"
        r"NameResolutionError|Max retries exceeded|IncompleteRead|RemoteDisconnected",
        "the package index cannot be reached",
        "Check the network or the proxy settings (HTTPS_PROXY, pip.conf), then run the same command again.",
    ),
    (
        r"No matching distribution found|Could not find a version",
        "a pinned package has no build for this Python or this machine",
        "See above for which; another Python may have one: make setup PYTHON=python3.12",
    ),
)


def diagnosis(output: str) -> SetupError:
    """An error that names the cause, as far as a failed command's output tells it."""
    for pattern, what, do in CAUSES:
        if re.search(pattern, output):
            return SetupError(what, do, output)
    return SetupError("a command failed", "See above, or all of it in .venv/setup.log.", output)


def checked(result: Result) -> Result:
    """The result, unless the command failed.

    Raises:
        SetupError: it failed; the error says why as far as the output tells.
    """
    if result.status:
        raise diagnosis(result.text)
    return result


def complain(error: SetupError) -> None:
    """Prints the end of the failed command's output, then what is wrong and what to do."""
    for line in error.printed.strip().splitlines()[-TAIL_LINES:]:
        print(f"  | {line[:LINE_WIDTH]}", file=sys.stderr)
    print(f"error: set-up: {error.what}\n       {error.do}", file=sys.stderr)


class Shell:
    """Runs commands away from the terminal and keeps what they print in a log, once the log's folder is there."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._label = ""
        self._noted = False

    def __call__(self, command: Sequence[str]) -> Result:
        """Runs one command to its end; a program that does not exist is status 127."""
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=_clean_variables(),
            )
        except OSError as error:
            return Result(127, "", str(error))
        try:
            stdout, stderr = self._outputs(process)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        if self.log.parent.is_dir():
            with self.log.open("a") as log:
                log.write(f"$ {' '.join(command)}\n{stdout}{stderr}[exit {process.returncode}]\n\n")
        return Result(process.returncode, stdout, stdout + stderr)

    def _outputs(self, process: subprocess.Popen[str]) -> tuple[str, str]:
        started = time.monotonic()
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=1)
            if sys.stdout.isatty():
                print(f"\r{self._label} {time.monotonic() - started:.0f} s", end="", flush=True)

    def note(self, text: str) -> None:
        """Prints a line of its own, also in the middle of a step."""
        print(f"\n  note: {text}" if self._label else f"  note: {text}", flush=True)
        self._noted = True

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Callable[[str], None]]:
        """One line of progress: the name at once, the outcome and the seconds when the step ends."""
        outcome: list[str] = []
        self._label = f"set-up: {name} ..."
        self._noted = False
        started = time.monotonic()
        print(self._label, end="", flush=True)
        try:
            yield outcome.append
        except BaseException:
            print(" failed", flush=True)
            raise
        restart = f"\r\033[K{self._label}" if sys.stdout.isatty() else self._label if self._noted else ""
        print(f"{restart} {', '.join([*outcome, f'{time.monotonic() - started:.0f} s'])}", flush=True)
        self._label = ""


def _clean_variables() -> dict[str, str]:
    """The environment for pip: no questions, no bars, and nothing that mixes other packages into the .venv."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    ours = {
        "PIP_PROGRESS_BAR": "off",
        "PIP_NO_INPUT": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_USER": "0",
    }
    return {**kept, **ours}
