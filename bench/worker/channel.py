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
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any, NoReturn, Protocol

from bench.backends.base import Unavailable, Unsupported
from bench.host import memory
from bench.record.case import Status
from bench.record.files import disk_errors
from bench.record.run_folder import MACHINE
from export.store import ROOT_VARIABLE, default_root
from pipelines.base import PipelineUnavailable, PipelineUnsupported
from scarlet.errors import BenchError, MachineError, refusal
from scarlet.processes import ending, tied

Message = dict[str, Any]
Answer = Callable[[Message], Message]

# Goes up when a worker of this version would not understand a runner of the one before, or the other way round:
# ``bench.studies.check.revisions`` has runners and workers of different versions talk to each other.
PROTOCOL = 1

PROGRAM = "from bench.worker import main; main()"

# Out of memory has no type of its own in the runtimes: this is how they say it.
OOM_WORDS = (
    *("out of memory", "can't allocate", "failed to allocate memory", "bad_alloc", "memory allocation"),
    *("allocation failed", "alloc_failed", "allocator_failure", "could not be allocated"),  # CUDA's libraries
)

# How long a worker that was asked to go may take before it is killed.
GRACE_SECONDS = 5.0


class WorkerFailed(Exception):
    """A worker gave no answer that can be used: it was too slow, it died, or it refused.

    Attributes:
        status: of the row that it means: ``timeout``; ``crashed`` or ``oom`` for a death; what the worker said of a
            request that it refused.
        do: what to do about it; empty where nobody knows.
        stage: that of a ``BenchError``, where a worker refused with one.
        gone: the process has ended, so that the next request needs another worker.
        cause: for programs: ``machine`` where the machine refused a file, so that the same may do well later.
    """

    def __init__(
        self, status: Status, reason: str, do: str = "", *, stage: str = "", gone: bool = False, cause: str = ""
    ) -> None:
        super().__init__(reason, do)
        self.cause = cause
        self.status, self.reason, self.do, self.stage, self.gone = status, reason, do, stage, gone

    @property
    def is_mistake(self) -> bool:
        """The user can mend it: the worker refused with a ``BenchError``."""
        return bool(self.do) and self.status is Status.FAILED

    @property
    def line(self) -> str:
        """The reason and what to do, on one line."""
        return f"{self.reason}; {self.do[0].lower()}{self.do[1:].rstrip('.')}" if self.do else self.reason


def too_slow(limit_seconds: float) -> WorkerFailed:
    """What a worker means that took longer than it may."""
    reason = f"it took longer than {limit_seconds:g} s"
    return WorkerFailed(Status.TIMEOUT, reason, "Give a larger --timeout.", gone=True)


# With it a worker ends in which a thread found no memory to begin with.
NO_MEMORY = 71


def dead(returncode: int, words: str, out_of_memory: bool = False) -> WorkerFailed:
    """What a worker means whose process ended instead of answering.

    Args:
        returncode: as ``subprocess`` gives it: negative for a signal.
        words: the end of what it wrote to its log, on one line.
        out_of_memory: the system has killed a process for want of memory since this one began.
    """
    if returncode == NO_MEMORY:
        reason = "memory ran out while a thread began"
        return WorkerFailed(Status.OOM, reason, "Use a smaller batch or fewer threads.", gone=True)
    if returncode == -signal.SIGKILL and out_of_memory:
        reason = "the system killed the worker because memory ran out"
        return WorkerFailed(Status.OOM, reason, "Use a smaller batch or fewer workers.", gone=True)
    said = f"; its last words: {words}" if words else ""
    return WorkerFailed(Status.CRASHED, f"the worker {ending(returncode)}{said}", gone=True)


def checked(answer: Message) -> Message:
    """The answer; WorkerFailed where it is a refusal."""
    if answer["ok"]:
        return answer
    status, reason = Status(answer["status"]), str(answer["reason"])
    known = {name: answer.get(name, "") for name in ("do", "stage", "cause")}
    raise WorkerFailed(status, reason, **known)


class WorkerHandle(Protocol):
    """Something that answers requests. ``LocalWorker`` is a process on this machine."""

    @property
    def pid(self) -> int: ...

    def ask(self, request: Message, timeout_seconds: float) -> Message: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


class LocalWorker(AbstractContextManager["LocalWorker"]):
    """A worker process on this machine. A ``with`` block stops it at its end, and kills it where one is raised.

    Args:
        log: file that takes all the process prints.
        threads: upper bound of the thread pools that read the environment at start.
        home: folder with the packages whose code it runs; this process's own where None.
        program: Python text that ends in ``serve``.
    """

    def __init__(self, log: Path, threads: int, home: Path | None = None, program: str = PROGRAM) -> None:
        self._log, self._oom_kills = log, memory.oom_kills()
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
        with disk_errors(log, "start a worker with its log"):
            log.parent.mkdir(exist_ok=True)
            with log.open("ab") as stream:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", tied(program)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    cwd=home,
                    env=environment,
                    # A Ctrl-C at the terminal goes to the runner alone, which then ends its workers in order.
                    start_new_session=True,
                )
        self._unread, self._owes = b"", False

    @property
    def pid(self) -> int:
        return self._process.pid

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.stop() if error is None else self.kill()

    def ask(self, request: Message, timeout_seconds: float) -> Message:
        """Sends a request and waits for its answer.

        Raises:
            WorkerFailed: no answer in time (the worker is killed), none because the process ended, or a refusal.
            ValueError: the answer is no JSON, as where another program than ours answers.
        """
        return checked(self.call(request, timeout_seconds))

    def call(self, request: Message, timeout_seconds: float) -> Message:
        """As ``ask``; gives refusals as they came."""
        assert self._process.stdin is not None
        if self._owes:  # the answer to a request whose asker was interrupted
            self.read(timeout_seconds)
        try:
            self._owes = True
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        answer = self.read(timeout_seconds)
        self._owes = False
        return answer

    def read(self, timeout_seconds: float) -> Message:
        """Waits for a message that answers none; ``ask`` says what may be raised."""
        message: Message = json.loads(self._read_line(timeout_seconds))
        return message

    def _read_line(self, timeout_seconds: float) -> bytes:
        assert self._process.stdout is not None
        deadline = time.monotonic() + timeout_seconds
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
                self.kill()
                raise too_slow(timeout_seconds)
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise self._death()
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _death(self) -> WorkerFailed:
        returncode = self._process.wait()
        self._close_pipes()
        return dead(returncode, last_words(self._log), memory.oom_kills() > self._oom_kills)

    def stop(self) -> None:
        """Asks the process to end, and kills it if it does not."""
        self._close_pipes()
        try:
            self._process.wait(GRACE_SECONDS)
        except BaseException as reason:  # whoever is interrupted here has no other hold of the process
            self.kill()
            if not isinstance(reason, subprocess.TimeoutExpired):
                raise

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


class Renewed(AbstractContextManager["Renewed"]):
    """Workers one after the other: where one has gone, the next request starts another."""

    def __init__(self, start: Callable[[], WorkerHandle]) -> None:
        self._start = start
        self._worker: WorkerHandle | None = None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.kill()
        elif self._worker is not None:
            self._worker.stop()

    def kill(self) -> None:
        """Ends the worker, whatever it is doing."""
        if self._worker is not None:
            self._worker.kill()
            self._worker = None

    def open(self) -> None:
        """Starts a worker, if there is none."""
        self._worker = self._worker or self._start()

    def ask(self, request: Message, timeout_seconds: float) -> Message:
        """As ``LocalWorker.ask``."""
        self.open()
        assert self._worker is not None
        try:
            return self._worker.ask(request, timeout_seconds)
        except WorkerFailed as failure:
            if failure.gone:
                self._worker = None
            raise


def ask_once(request: Message, log: Path, threads: int, timeout_seconds: float, program: str = PROGRAM) -> Message:
    """The answer of a worker that is started for one request; see ``LocalWorker``.

    Raises:
        WorkerFailed: there is none.
    """
    with LocalWorker(log, threads, program=program) as worker:
        return worker.ask(request, timeout_seconds)


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
    said = [line.strip() for line in text.splitlines() if line.strip()]
    return " | ".join(said[-lines:])[-length:]


def serve(answer: Answer) -> NoReturn:
    """The worker's main loop: answers requests until stdin ends, because the other side closed it or is gone."""
    incoming, outgoing = own_channel()
    for line in iter(incoming.readline, b""):
        outgoing.write(json.dumps(reply(answer, json.loads(line))).encode() + b"\n")
        outgoing.flush()
    # Runtimes with threads of their own sometimes hang or crash while the interpreter takes itself apart.
    os._exit(0)


def reply(answer: Answer, request: Message) -> Message:
    """``{"ok": True, ...}``, or, where something is raised, a status and a reason; ``checked`` reads both."""
    try:
        return {"ok": True, **answer(request)}
    except Exception as error:  # whatever is raised is this request's result
        mistake = error if isinstance(error, BenchError) else refusal(error)
        if mistake is None:
            traceback.print_exc()  # into the log
            status, reason = classify(error)
            return {"ok": False, "status": status.value, "reason": reason}
        told = {"status": Status.FAILED.value, "reason": mistake.what, "do": mistake.do, "stage": mistake.stage}
        return {"ok": False, **told, "cause": MACHINE if isinstance(mistake, MachineError) else ""}


def classify(error: BaseException) -> tuple[Status, str]:
    """The status that an exception of a backend or pipeline means, and its reason on one line."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    if isinstance(error, (Unavailable, PipelineUnavailable)):
        return Status.UNAVAILABLE, str(error)
    if isinstance(error, (Unsupported, PipelineUnsupported)):
        return Status.UNSUPPORTED, str(error)
    if isinstance(error, MemoryError) or any(word in reason.lower() for word in OOM_WORDS):
        return Status.OOM, f"{reason}; use a smaller --batches or free memory"
    return Status.FAILED, f"{reason}; its traceback is in the Case's log"


def own_channel() -> tuple[IO[bytes], IO[bytes]]:
    """In the worker: takes stdin and stdout for messages, and sends everything printed from now on to the log."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    threading.Thread(target=_end_with_runner, args=(incoming.fileno(),), daemon=True).start()
    # A function in C: one in Python may find no memory either.
    unraisable: SimpleQueue[Any] = SimpleQueue()
    sys.unraisablehook = unraisable.put
    threading.Thread(target=_end_without_thread, args=(unraisable,), daemon=True).start()
    return incoming, outgoing


def _end_with_runner(incoming: int) -> None:
    """Ends this process, and what it started, if it still works a while after the runner has closed its end.

    Linux does so at once (``scarlet.processes``); elsewhere nobody else would end a process that hangs.
    """
    watched = select.poll()
    watched.register(incoming, 0)  # a hang-up is told always
    watched.poll()
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL) if os.getpgid(0) == os.getpid() else os._exit(1)


def _end_without_thread(unraisable: SimpleQueue[Any]) -> None:
    """Ends this process where a thread could not begin: whoever started it would wait for it for ever."""
    while True:
        raised = unraisable.get()
        if raised.err_msg == "Exception ignored in thread started by":
            os._exit(NO_MEMORY)
        sys.__unraisablehook__(raised)
