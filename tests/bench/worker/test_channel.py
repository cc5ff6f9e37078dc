"""Processes and pipes: what a worker says, how it ends, what its log keeps."""

import errno
import io
import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from bench_fakes import Recorder, Scripted, fake_case
from rich.console import Console

from bench.backends.base import Unavailable, Unsupported
from bench.host import memory
from bench.record.case import Status
from bench.record.run_folder import CaseResult
from bench.run.progress import BarListener, PlainListener, make_listener
from bench.worker import channel
from bench.worker.serve import Worker
from scarlet.errors import BenchError


def test_a_worker_answers_until_its_pipe_is_closed(tmp_path: Path) -> None:
    worker = channel.LocalWorker(tmp_path / "log", threads=1)
    with pytest.raises(channel.WorkerFailed) as refused:
        worker.ask({"do": "turn"}, timeout_seconds=30)
    assert (refused.value.status, refused.value.gone) == (Status.FAILED, False)
    worker.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)
    assert "Traceback" in (tmp_path / "log").read_text(), "the traceback is kept where a person can find it"


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(tmp_path: Path) -> None:
    program = "from bench.worker.channel import serve; serve(lambda request: request)"
    with channel.LocalWorker(tmp_path / "log", 1, program=program) as worker:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(worker, "read", Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                worker.ask({"n": 1}, 60)
        assert worker.ask({"n": 2}, 60)["n"] == 2


# What CPython tells of a thread that found no memory for its first frame; whoever started it waits on.
STARVED = """
import _thread, time
from bench.worker.channel import own_channel

def begins():
    raise MemoryError

own_channel()
_thread.start_new_thread(begins, ())
time.sleep(600)
"""


def test_a_thread_without_memory_to_begin_with_ends_the_worker_at_once(tmp_path: Path) -> None:
    with channel.LocalWorker(tmp_path / "log", 1, program=STARVED) as worker:
        with pytest.raises(channel.WorkerFailed, match="memory ran out while a thread began") as failed:
            worker.read(60)
        assert (failed.value.status, failed.value.gone) == (Status.OOM, True)


# A runner that starts a worker, which starts a process of its own; both hang. It says who they are.
RUNNER = """
import sys, time
from pathlib import Path
from bench.worker.channel import LocalWorker
worker = LocalWorker(Path(sys.argv[1]), 1, program='''
import subprocess, sys, time
from bench.worker.channel import own_channel
from scarlet.processes import tied
if {before}:
    time.sleep(600)
incoming, outgoing = own_channel()
child = subprocess.Popen([sys.executable, "-c", tied("import time; time.sleep(600)")])
outgoing.write(str(child.pid).encode() + bytes([10]))
outgoing.flush()
while True:
    pass
''')
print(worker.pid, "" if {before} else worker.read(60), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it takes some seconds")
@pytest.mark.parametrize("before", [True, False], ids=["before it is ready", "while it computes"])
def test_no_worker_and_nothing_that_it_started_outlives_a_killed_runner(tmp_path: Path, before: bool) -> None:
    program = [sys.executable, "-c", RUNNER.format(before=before), str(tmp_path / "log")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout is not None
        pids = [int(word) for word in runner.stdout.readline().split()]
        assert len(pids) == (1 if before else 2)
        runner.kill()
    for pid in pids:
        with suppress(ProcessLookupError):
            select.select([os.pidfd_open(pid)], [], [], 30)  # readable once it has ended
        state = Path(f"/proc/{pid}/stat")
        assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
def test_a_log_that_cannot_be_opened_is_a_mistake_in_two_lines(tmp_path, monkeypatch, number):
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BenchError, match="cannot start a worker with its log"):
        channel.LocalWorker(tmp_path / "logs" / "log", 1)


def test_a_worker_that_died_is_noticed_when_it_is_asked(tmp_path: Path) -> None:
    with pytest.raises(channel.WorkerFailed, match="killed by SIGSEGV") as gone:
        channel.ask_once({}, tmp_path / "log", 1, 30, "import os; os.kill(os.getpid(), 11)")
    assert (gone.value.status, gone.value.gone) == (Status.CRASHED, True)


@pytest.mark.parametrize(
    ("ended", "status", "line"),
    [
        (channel.dead(-9, ""), Status.CRASHED, "the worker was killed by SIGKILL"),
        (channel.dead(3, "a | b"), Status.CRASHED, "the worker ended with exit code 3; its last words: a | b"),
        (channel.dead(-200, ""), Status.CRASHED, "the worker was killed by signal 200"),
        (channel.dead(-9, "", out_of_memory=True), Status.OOM, "memory ran out; use a smaller batch"),
        (channel.dead(7, "", out_of_memory=True), Status.CRASHED, "the worker ended with exit code 7"),
        (channel.too_slow(2.5), Status.TIMEOUT, "it took longer than 2.5 s; give a larger --timeout"),
    ],
)
def test_every_end_of_a_worker_has_a_status_and_one_sentence(ended, status, line):
    assert (ended.status, ended.gone, ended.is_mistake) == (status, True, False)
    assert line in ended.line


def test_a_refusal_says_what_the_worker_said() -> None:
    answer = {"ok": True, "figures": 1}
    assert channel.checked(answer) is answer
    refusal = {"ok": False, "status": "failed", "reason": "this is wrong", "do": "Do that.", "stage": "export"}
    with pytest.raises(channel.WorkerFailed) as refused:
        channel.checked(refusal)
    assert (refused.value.is_mistake, refused.value.stage, refused.value.gone) == (True, "export", False)
    assert refused.value.line == "this is wrong; do that"


def test_a_worker_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    worker = channel.LocalWorker(tmp_path / "log", 1, program="import time; time.sleep(60)")
    with pytest.raises(channel.WorkerFailed, match=r"longer than 0\.2 s") as late:
        worker.ask({}, 0.2)
    assert (late.value.status, late.value.gone) == (Status.TIMEOUT, True)
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_an_interrupt_ends_the_worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []

    def ask(self: channel.LocalWorker, *_: Any) -> channel.Message:
        asked.append(self.pid)
        raise KeyboardInterrupt

    monkeypatch.setattr(channel.LocalWorker, "ask", ask)
    with pytest.raises(KeyboardInterrupt):
        channel.ask_once({}, tmp_path / "log", 1, 5, "import time; time.sleep(60)")
    with pytest.raises(ProcessLookupError):
        os.kill(asked[0], 0)


def test_the_next_request_starts_another_worker_where_one_has_gone() -> None:
    ok = {"ok": True}
    refusal = {"ok": False, "status": "failed", "reason": "no"}
    workers = [Scripted([ok, refusal, channel.dead(-9, "")]), Scripted([ok])]
    waiting = list(workers)
    with channel.Renewed(lambda: waiting.pop(0)) as worker:
        worker.ask({}, 1.0)
        for _ in range(2):
            with pytest.raises(channel.WorkerFailed):
                worker.ask({}, 1.0)
        assert len(waiting) == 1, "nobody is started before there is a request"
        worker.ask({}, 1.0)
    assert [each.ended for each in workers] == ["", "stopped"]


def test_a_worker_answers_what_it_reads_and_ends_with_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    outgoing, ended = io.BytesIO(), list[int]()
    monkeypatch.setattr(channel, "own_channel", lambda: (io.BytesIO(b'{"n": 1}\n{}\n'), outgoing))
    monkeypatch.setattr(os, "_exit", ended.append)
    channel.serve(lambda request: {"twice": 2 * request["n"]})
    assert ended == [0]
    first, second = map(json.loads, outgoing.getvalue().splitlines())
    assert first == {"ok": True, "twice": 2}
    assert (second["ok"], second["status"]) == (False, "failed")


def test_last_words_are_the_end_of_the_log_on_one_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert channel.last_words(log) == ""
    log.write_text("x" * 10_000 + "\nfirst\n\nsecond\nthird\n")
    assert channel.last_words(log, lines=2) == "second | third"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable("install it"), Status.UNAVAILABLE),
        (Unsupported("cannot"), Status.UNSUPPORTED),
        (MemoryError(), Status.OOM),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), Status.OOM),
        (RuntimeError("CUDA out of memory. Tried to allocate"), Status.OOM),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Status.OOM),
        (RuntimeError("Requested amount of GPU memory (1024 bytes) could not be allocated"), Status.OOM),
        (RuntimeError("something\nelse"), Status.FAILED),
    ],
)
def test_what_a_runtime_raises_becomes_a_status(error: Exception, status: Status) -> None:
    found, reason = channel.classify(error)
    assert found is status
    assert reason
    assert "\n" not in reason


def test_a_users_mistake_keeps_both_of_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    def mistaken(_: object) -> dict[str, object]:
        raise BenchError("this is wrong", "Do that.")

    worker = Worker()
    monkeypatch.setattr(worker, "_prepare", mistaken)
    assert channel.reply(worker.answer, {"do": "prepare"}) == {
        "ok": False,
        "status": "failed",
        "reason": "this is wrong",
        "do": "Do that.",
        "stage": "",
        "cause": "",
    }


def test_peak_memory_is_read_from_the_process_itself(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t  1024 kB\n")
    assert memory.peak_rss_bytes(status) == 2048 * 1024
    assert memory.peak_rss_bytes(tmp_path / "none") is None
    status.write_text("Name:\tx\n")
    assert memory.peak_rss_bytes(status) is None


def test_threads_are_counted_as_the_system_sees_them(tmp_path: Path) -> None:
    assert memory.thread_count(tmp_path / "none") is None
    for number in (1, 7, 9):
        (tmp_path / str(number)).mkdir()
    assert memory.thread_count(tmp_path) == 3


def test_kills_for_want_of_memory_are_counted_in_both_kinds_of_cgroup(tmp_path: Path) -> None:
    assert memory.oom_kills(tmp_path) == 0
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    assert memory.oom_kills(tmp_path) == 2
    (tmp_path / "memory.events").write_text("low 0\nhigh 0\nmax 4\noom 3\noom_kill 3\n")
    assert memory.oom_kills(tmp_path) == 3


def test_available_memory_is_the_kernels_within_the_groups_limit(tmp_path: Path) -> None:
    proc, cgroup = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    cgroup.mkdir()
    assert memory.available_bytes(proc, cgroup) is None
    assert memory.has_room([], 1, proc, cgroup), "a system that does not say is not held back"
    (proc / "meminfo").write_text("MemTotal: 9000000 kB\nMemAvailable: 4000000 kB\n")
    (cgroup / "memory.max").write_text("max\n")
    (cgroup / "memory.current").write_text("5\n")
    assert memory.available_bytes(proc, cgroup) == 4_000_000 * 1024
    (cgroup / "memory.max").write_text("3000000000\n")
    (cgroup / "memory.current").write_text("1000000000\n")
    assert memory.available_bytes(proc, cgroup) == 2_000_000_000
    assert memory.has_room([], 1, proc, cgroup)
    (proc / "7").mkdir()
    (proc / "7" / "status").write_text("VmHWM: 1500000 kB\n")
    assert memory.has_room([7], 1, proc, cgroup)
    assert not memory.has_room([7], 2, proc, cgroup), "two of 1.5 GB do not fit in 2.0"
    (proc / "8").mkdir()
    (proc / "8" / "status").write_text("VmHWM: 1700000 kB\n")
    assert not memory.has_room([7, 8], 1, proc, cgroup), "1.7 GB and a quarter more do not fit in 2.0"


def test_plain_progress_is_one_line_at_each_end() -> None:
    console = Console(record=True, width=200)
    case = fake_case()
    with PlainListener(console, 2) as listener:
        listener.case_started(case)
        listener.progress(case, 0.5, "half")
        listener.case_ended(CaseResult(case, Status.OK))
        listener.case_started(case)
        listener.case_ended(CaseResult(case, Status.OOM, "too [big]"))
    assert console.export_text().splitlines() == [
        "[1/2] latency fake cpu fp32 batch 1: started",
        "latency fake cpu fp32 batch 1: ok",
        "[2/2] latency fake cpu fp32 batch 1: started",
        "latency fake cpu fp32 batch 1: oom: too [big]",
    ]


def test_a_terminal_gets_bars_and_a_pipe_gets_lines() -> None:
    assert isinstance(make_listener(Console(force_terminal=False), 1), PlainListener)
    terminal = Console(force_terminal=True, record=True, width=200)
    listener = make_listener(terminal, 1)
    assert isinstance(listener, BarListener)
    case = fake_case()
    with listener:
        listener.case_started(case)
        listener.progress(case, 0.5, "half way")
        listener.case_ended(CaseResult(case, Status.CRASHED, "it died"))
        listener.case_ended(CaseResult(fake_case(seed="9"), Status.INTERRUPTED, "never began"))
    assert "crashed: it died" in terminal.export_text()


def test_the_recorder_is_a_listener() -> None:
    """The tests' listener hears what the real ones hear."""
    assert {name for name in dir(Recorder) if not name.startswith("_")} >= {
        name for name in dir(PlainListener) if not name.startswith("_")
    }
