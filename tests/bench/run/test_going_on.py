"""A run that a kill, a full disk or another run got in the way of goes on; nothing that was measured is lost."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest
from bench_fakes import HereWorker, Recorder, fake_case, make_graph, run_on, tiny_files
from folders import ROOT
from rich.console import Console

from bench import host
from bench.record import raw_tables
from bench.record.case import Status
from bench.record.lock import Lock
from bench.record.run_folder import CAUSE, MACHINE, CaseResult, RunFolder
from bench.run.runner import Runner, Workers
from bench.run.schedule import by_scenario
from bench.run.session import Session
from bench.run.spec import RunSpec
from bench.worker import channel
from bench.worker.messages import Context
from scarlet.errors import BenchError, MachineError, refusal


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host, "WATCH_SECONDS", 0.0)


def console() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture
def spec(image_folder: Path, tmp_path: Path) -> RunSpec:
    (tmp_path / "deep").mkdir()
    onnx.save(make_graph("batch"), tmp_path / "deep/net.onnx")
    return RunSpec(model="onnx:deep/net.onnx", data=str(image_folder), backends="fake", batches=1)


def test_a_second_run_is_told_who_is_at_work(spec: RunSpec) -> None:
    with Session.open(spec, Path("mine"), console()) as opened:
        for second in (
            lambda: Session.resume(Path("mine"), console()),
            lambda: Session.open(spec, Path("mine"), console()),
        ):
            with pytest.raises(BenchError, match=f"process {os.getpid()} on .* since|already holds a run"):
                second()
    with Session.resume(Path("mine"), console()) as again:
        assert again.images == opened.images
    Lock(Path("mine")).release()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path; from bench.record.lock import Lock\n"
        "lock = Lock(Path(sys.argv[1])); os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment)
    assert done.returncode == -9
    Lock(tmp_path).release()


@pytest.mark.parametrize("ends_by", [MachineError("full", "make room"), BenchError("wrong", "mend it")])
def test_a_finished_part_stays_whatever_ends_the_run(spec: RunSpec, ends_by: BenchError) -> None:
    part = Path("mine/parts/0123456789.predictions.parquet")

    def measure() -> None:
        with Session.open(spec, Path("mine"), console()):
            part.parent.mkdir()
            part.touch()
            raise ends_by

    with pytest.raises(BenchError):
        measure()
    assert part.exists()


def test_a_full_disk_leaves_a_run_that_goes_on(spec: RunSpec) -> None:
    with pytest.raises(MachineError), Session.open(spec, Path("mine"), console()):
        raise MachineError("full", "make room")
    with Session.resume(Path("mine"), console()) as again:
        assert again.spec.backends == ("fake",)


def test_what_a_kill_left_goes_when_the_run_goes_on(spec: RunSpec) -> None:
    with Session.open(spec, Path("mine"), console()) as opened:
        (opened.folder.path / "parts").mkdir()
    left = [Path("mine/.samples.parquet.123.tmp"), Path("mine/parts/.x.samples.parquet.123.tmp")]
    for path in left:
        path.touch()
    with Session.resume(Path("mine"), console()):
        assert not any(path.exists() for path in left)


@pytest.mark.parametrize("lost", ["settings", "dataset"])
def test_a_run_that_was_stopped_before_it_was_described_is_two_lines(spec: RunSpec, lost: str) -> None:
    with Session.open(spec, Path("mine"), console()) as opened:
        info = opened.folder.read_run_info()
        opened.folder.write_run_info({name: value for name, value in info.items() if name != lost})
    with pytest.raises(BenchError, match="does not say what was to be measured"):
        Session.resume(Path("mine"), console())
    Lock(Path("mine")).release()


def run_with(folder: RunFolder, image_folder: Path, fails: Exception | None = None) -> CaseResult:
    """Runs one Case in a worker without a process of its own."""
    context = Context(str(folder.path), str(image_folder), tiny_files())
    workers = Workers(lambda case: HereWorker(fails))
    cases = [fake_case("accuracy")]
    Runner(folder, context, Recorder(), workers=workers, watch=False).execute(cases, by_scenario(cases))
    (result,) = folder.case_results()
    return result


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE])
def test_a_part_that_the_disk_refused_is_written_when_the_run_goes_on(tmp_path, image_folder, monkeypatch, number):
    folder = run_on(tmp_path / "run", image_folder, [fake_case("accuracy")])

    def refuses(*_: object) -> None:
        raise OSError(number, os.strerror(number), "x.parquet")

    with monkeypatch.context() as patched:
        patched.setattr(raw_tables, "_write", refuses)
        result = run_with(folder, image_folder)
    assert result.status is Status.FAILED
    assert result.metrics == {CAUSE: MACHINE}
    assert run_with(folder, image_folder).status is Status.FAILED, "only where the run goes on"
    folder.reopen()
    assert run_with(folder, image_folder).status is Status.OK
    assert len(folder.predictions()) == 8


def test_a_crash_is_measured_again_where_the_user_asks(tmp_path: Path, image_folder: Path) -> None:
    folder = run_on(tmp_path / "run", image_folder, [fake_case("accuracy")])
    crash = channel.WorkerFailed(Status.CRASHED, "the worker was killed by SIGKILL", gone=True)
    assert run_with(folder, image_folder, crash).status is Status.CRASHED
    folder.reopen()
    assert run_with(folder, image_folder).status is Status.CRASHED
    folder.reopen(retry=True)
    assert run_with(folder, image_folder).status is Status.OK


def test_lost_data_are_measured_again_when_the_run_goes_on(tmp_path: Path, image_folder: Path) -> None:
    folder = run_on(tmp_path / "run", image_folder, [fake_case("accuracy")])
    assert run_with(folder, image_folder).status is Status.OK
    folder.merge_parts()
    (folder.path / "predictions.parquet").unlink()
    folder.reopen()
    assert run_with(folder, image_folder).status is Status.OK
    assert len(folder.predictions()) == 8


def test_a_worker_says_in_two_lines_that_a_file_was_refused() -> None:
    def full(message: dict[str, Any]) -> dict[str, Any]:
        raise OSError(errno.ENOSPC, "no space", "/tmp/probe")

    told = channel.reply(full, {})
    assert (told["status"], told["cause"]) == ("failed", MACHINE)
    assert told["do"]
    with pytest.raises(channel.WorkerFailed) as failure:
        channel.checked(told)
    assert failure.value.cause == MACHINE


def test_a_log_that_cannot_be_opened_is_two_lines(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="its folder is gone"):
        channel.LocalWorker(tmp_path / "gone" / "logs" / "x.log", 1)
    assert not (tmp_path / "gone").exists(), "a folder that was renamed does not come into being again"
    (tmp_path / "logs").write_text("")
    with pytest.raises(MachineError):
        channel.LocalWorker(tmp_path / "logs" / "x.log", 1)


def test_a_folder_that_is_gone_does_not_come_back(tmp_path: Path, image_folder: Path) -> None:
    folder = run_on(tmp_path / "run", image_folder)
    folder.path.rename(tmp_path / "elsewhere")
    with pytest.raises(MachineError, match="its folder is gone"):
        folder.append_case(CaseResult(fake_case(), Status.OK))
    with pytest.raises(MachineError, match="its folder is gone"):
        run_with(folder, image_folder)
    assert not folder.path.exists()


def test_what_is_not_there_is_no_refusal_unless_something_was_to_be_written() -> None:
    missing = FileNotFoundError(errno.ENOENT, "no such file", "x")
    assert refusal(missing) is None
    assert refusal(missing, "cannot write x") is not None
    assert refusal(ValueError()) is None
