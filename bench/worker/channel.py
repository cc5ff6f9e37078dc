"""How the runner and a worker speak: one JSON object a line, over the worker's own stdin and stdout.

Only Cases and small results travel here. Images, samples and predictions stay in files.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from export.store import ROOT_VARIABLE, default_root

Message = dict[str, Any]

# Goes up when a worker of this version would not understand a runner of the one before, or the other way round:
# ``bench.studies.against.revision_worker`` has runners and workers of different versions talk to each other.
PROTOCOL = 1

PROGRAM = "from bench.worker import main; main()"

# How long a worker that was asked to go may take before it is killed.
GRACE_SECONDS = 5.0


class WorkerTimeout(Exception):
    """The worker did not answer in time. It has been killed."""


class WorkerDied(Exception):
    """The worker's process ended instead of answering.

    Attributes:
        returncode: as of ``subprocess``: negative for a signal.
        last_words: the end of what it wrote to its log, on one line.
    """

    def __init__(self, returncode: int, last_words: str) -> None:
        super().__init__(f"exit code {returncode}: {last_words}")
        self.returncode = returncode
        self.last_words = last_words

    @property
    def cause(self) -> str:
        """``killed by SIGKILL`` or ``ended with exit code 7``."""
        if self.returncode < 0:
            try:
                return f"killed by {signal.Signals(-self.returncode).name}"
            except ValueError:
                return f"killed by signal {-self.returncode}"
        return f"ended with exit code {self.returncode}"


class LocalWorker:
    """A worker process on this machine.

    Args:
        log: file that takes all the process prints.
        threads: upper bound of the thread pools that read the environment at start.
        home: folder with the packages whose code it runs; this process's own where None.
        program: Python text that ends in the main loop of ``bench.worker.serve``.
    """

    def __init__(self, log: Path, threads: int, home: Path | None = None, program: str = PROGRAM) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # The packages have common names ("bench", "export"): started from their parent folder, the process finds
        # ours whatever lies in the user's current folder.
        home = home or own_home()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONUNBUFFERED": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH", "")])),
            # A relative path means another folder to a process that starts elsewhere.
            ROOT_VARIABLE: str(default_root().absolute()),
        }
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                cwd=home,
                env=environment,
                # A Ctrl-C at the terminal goes to the runner alone, which then ends its workers in order.
                start_new_session=True,
            )
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, message: Message, timeout_seconds: float) -> Message:
        """Sends one message and waits for its answer.

        Raises:
            WorkerTimeout: no answer in time; the worker is killed.
            WorkerDied: the process ended first.
            ValueError: the answer is no JSON, as where another program than ours answers.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        return self.read(timeout_seconds)

    def read(self, timeout_seconds: float) -> Message:
        """Waits for a message that answers none; ``call`` says what may be raised."""
        message: Message = json.loads(self._read_line(time.monotonic() + timeout_seconds))
        return message

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
                self.kill()
                raise WorkerTimeout
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise self._death()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _death(self) -> WorkerDied:
        returncode = self._process.wait()
        self._close_pipes()
        return WorkerDied(returncode, last_words(self._log))

    def stop(self) -> None:
        """Asks the process to end, and kills it if it does not."""
        self._close_pipes()
        try:
            self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends the process and everything it started."""
        with suppress(ProcessLookupError):  # it ended by itself in this moment
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # unsent bytes to a process that is gone
                    stream.close()


def own_home() -> Path:
    """The folder that holds the packages of this process."""
    return Path(__file__).resolve().parents[2]


def last_words(log: Path, lines: int = 3, length: int = 300) -> str:
    """The last lines of a log, joined into one."""
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - 4096))
        text = stream.read().decode(errors="replace")
    kept = [line.strip() for line in text.splitlines() if line.strip()][-lines:]
    return " | ".join(kept)[-length:]


def own_channel() -> tuple[IO[bytes], IO[bytes]]:
    """In the worker: takes stdin and stdout for messages, and sends everything printed from now on to the log."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return incoming, outgoing
