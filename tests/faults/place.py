"""Where faults strike: the real command on a model of some kB and 32 images, in forked processes that start at once."""

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scarlet.processes import tie

# Of one command. Undisturbed it takes two seconds on a busy machine.
LIMIT_SECONDS = 60.0

N_IMAGES = 32

# Faults are planted in a process by these: called in it before it begins.
Plant = Callable[[], None]


@dataclass(frozen=True)
class Said:
    """How a command ended.

    Attributes:
        code: its exit code, negative for a signal; None where it had to be killed.
        text: all that it wrote to the terminal.
    """

    code: int | None
    text: str


class Place:
    """A folder of its own for each fault: data, a model and, once a command has run, results.

    Args:
        folder: empty.
        plant_in_runner: changes the process that runs the command.
        plant_in_worker: changes each of its workers.
    """

    def __init__(
        self, folder: Path, plant_in_runner: Plant | None = None, plant_in_worker: Plant | None = None
    ) -> None:
        self.folder, self.run = folder, folder / "run"
        self.plant_in_runner, self.plant_in_worker = plant_in_runner, plant_in_worker
        self.lives = 1

    def start(self, *words: str, stdout: str = "") -> int:
        """Begins a command; gives its process id. ``stdout``: ``full``, ``closed`` or a ``pipe`` without reader."""
        parent, pid = os.getpid(), os.fork()
        if pid == 0:
            tie(parent)
            self._become(words, stdout)
        return pid

    def wait(self, pid: int, limit_seconds: float = LIMIT_SECONDS) -> Said:
        """How the command ended; it is killed where it takes too long."""
        deadline, code = time.monotonic() + limit_seconds, None
        while time.monotonic() < deadline:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                break
            time.sleep(0.005)
        else:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        log = self._terminal(pid)
        return Said(code, log.read_text(errors="replace") if log.exists() else "")

    def command(self, *words: str, stdout: str = "") -> Said:
        """Runs a command to its end; words as ``start`` takes them, or the text of a program as the only one."""
        return self.wait(self.start(*words, stdout=stdout))

    def call(self, program: str, limit_seconds: float) -> Said:
        """Runs a Python program as a command is run: a ``BenchError`` becomes two lines and exit code 2."""
        return self.wait(self.start(program), limit_seconds)

    def measure(self, *more: str) -> tuple[str, ...]:
        """The words of a run of this place."""
        return (
            *("run", "--model", "onnx:tiny.onnx", "--data", str(self.folder / "data")),
            *("--backends", "fake", "--pipeline", "reference", "--scenarios", "accuracy,latency", "--batches", "1,4"),
            *("--budget", "0.2", "--timeout", "20"),
            *("--option", "fake.noise=0.01", "--lives", str(self.lives), "--out", str(self.run), *more),
        )

    def _terminal(self, pid: int) -> Path:
        return self.folder / f"terminal.{pid}"

    def _become(self, words: tuple[str, ...], stdout: str) -> None:
        """In the forked process: the command, from its first line on."""
        code = 70
        try:
            os.setsid()
            terminal = os.open(self._terminal(os.getpid()), os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(terminal, 2)
            os.dup2(_standard_output(stdout) or terminal, 1)
            if stdout == "closed":
                os.close(1)
            os.chdir(self.folder)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            subprocess.Popen = _Forked  # type: ignore[misc]
            _Forked.plant = self.plant_in_worker
            code = _command(words, self.plant_in_runner, stdout == "closed")
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def _standard_output(manner: str) -> int:
    if manner == "full":
        return os.open("/dev/full", os.O_WRONLY)
    if manner == "pipe":
        reading, writing = os.pipe()
        os.close(reading)
        return writing
    return 0


def _command(words: tuple[str, ...], plant: Plant | None, without_output: bool) -> int:
    from bench import cli, host
    from bench.report.forms import FORMATS

    if words[0] != "report":  # the page costs more than the run, and reads what the others read
        FORMATS["html"] = FORMATS["markdown"]
    host.WATCH_SECONDS = 0.0  # the machine's quiet is not what is looked at
    sys.argv = ["scarlet-bench", *words]
    # As the interpreter begins; None where there is no standard output.
    sys.stdout = None if without_output else os.fdopen(1, "w", encoding="utf-8", closefd=False)  # type: ignore[assignment]
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    if plant is not None:
        plant()
    code: Any = 0
    try:
        if len(words) == 1 and "\n" in words[0]:
            cli.main(lambda: exec(words[0], {}))  # type: ignore[arg-type]
        else:
            cli.main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):  # as the interpreter itself does at its end
        code = 120
    return code if isinstance(code, int) else int(code is not None)


class _Forked(subprocess.Popen[Any]):
    """Forks where a Python program is to be started; other programs begin as ever."""

    plant: Plant | None = None

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, close_fds: Any, *more: Any) -> None:
        program = list(args) if not isinstance(args, str) else []
        if program[:2] != [sys.executable, "-c"]:
            super()._execute_child(args, executable, preexec_fn, close_fds, *more)  # type: ignore[misc]
            return
        _, cwd, environment, _, _, _, stdin, _, _, stdout, _, stderr = more[:12]
        # Python passes over what a signal raises in its own callbacks around a fork; starting a program has none.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
        self.pid = os.fork()
        if self.pid == 0:
            with suppress(BaseException):
                os.setsid()
                for number, descriptor in enumerate((stdin, stdout, stderr)):
                    os.dup2(descriptor, number)
                os.closerange(3, 1024)
                os.chdir(cwd)
                os.environ.update(environment)
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
                if type(self).plant is not None:
                    type(self).plant()
                try:
                    exec(program[2], {"__name__": "__main__"})
                except BaseException:
                    traceback.print_exc()
                    sys.stderr.flush()
            os._exit(1)
        self._child_created = True
        for descriptor in (stdin, stdout):
            os.close(descriptor)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def make(folder: Path, seed: int = 0) -> None:
    """Images and a model of some kB; the same for the same seed."""
    import numpy as np
    import onnx
    from PIL import Image

    from pipelines.imagenet.find import wnids
    from tests.fakes.bench_fakes import make_graph

    source = np.random.default_rng(seed)
    for number in range(N_IMAGES):
        into = folder / "data" / "valid" / wnids()[number % 3]
        into.mkdir(parents=True, exist_ok=True)
        coarse = source.integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((96, 72)).save(into / f"image_{number:02}.JPEG")
    onnx.save(make_graph("batch"), folder / "tiny.onnx")
