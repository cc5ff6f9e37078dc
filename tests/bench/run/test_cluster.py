"""Runs on a Dask scheduler's workers: the same predictions as on one machine, and what befalls workers."""

import hashlib
import io
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from bench_fakes import Recorder, fake_case, make_graph, tiny_files
from rich.console import Console

from bench import host
from bench.record.case import Case, Status
from bench.record.run_folder import CaseResult
from bench.run import cluster
from bench.run.cluster import Spread, connected, cut, stored
from bench.run.runner import Limits, Runner
from bench.run.schedule import by_scenario
from bench.run.session import Session
from bench.run.spec import RunSpec
from export.store import ROOT_VARIABLE
from scarlet.errors import BenchError, MachineError

pytest.importorskip("distributed")
LIMITS = Limits(budget_seconds=1, lives=1)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Two workers on this machine, of which one may be killed or stopped: another takes its place."""
    import dask

    quick = {"distributed.scheduler.worker-ttl": "3s", "distributed.admin.tick.limit": "1h"}
    with dask.config.set(quick), connected("local:2") as client:
        yield client


@pytest.fixture(autouse=True)
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(host, "WATCH_SECONDS", 0.0)
    monkeypatch.setattr(cluster, "POLL_SECONDS", 0.05)


@pytest.fixture
def opened(client: Any, image_folder: Path, tmp_path: Path) -> Iterator[Session]:
    """A new run of nine images, of which one cannot be read."""
    shutil.copytree(image_folder, tmp_path / "data")
    (next((tmp_path / "data/valid").iterdir()) / "image_3b.JPEG").write_bytes(b"no JPEG")
    onnx.save(make_graph("batch"), tmp_path / "net.onnx")
    spec = RunSpec(model="onnx:net.onnx", data=str(tmp_path / "data"), backends="fake", batches=1)
    with Session.open(spec, tmp_path / "run", Console(file=io.StringIO())) as opened:
        yield Session(**{**vars(opened), "cluster": client, "is_new": False, "lock": None})


def spread(opened: Session, *cases: Case) -> tuple[dict[str, CaseResult], Recorder]:
    """What became of the Cases on the cluster."""
    heard = Recorder()
    opened.write(plan={"cases": [case.to_dict() for case in cases]})
    context = opened.context(tiny_files(Path("net.onnx").resolve()))
    runner = Runner(opened.folder, context, heard, LIMITS, watch=False)
    order = Spread(opened.cluster, context, opened.spec, opened.image_set.fingerprint)
    runner.execute(cases, order, {})
    return {result.case.case_id: result for result in opened.folder.case_results()}, heard


def alone(opened: Session, path: Path, *cases: Case) -> Session:
    """The same Cases as a run of this machine alone."""
    with Session.open(opened.spec, path, opened.console) as other:
        context = other.context(tiny_files(Path("net.onnx").resolve()))
        Runner(other.folder, context, Recorder(), LIMITS).execute(cases, by_scenario(cases))
        return other


def rows(opened: Session) -> list[Any]:
    return [list(row) for row in opened.folder.predictions().astype({"case_id": str, "image_id": str}).values]


def at_first_job(monkeypatch: pytest.MonkeyPatch, strike: Callable[[Any, str], None], times: int = 1) -> None:
    """Has something befall the worker that gets a job, so many times."""
    begin, left = Spread._begin, [strike] * times

    def begin_and_strike(own: Spread, piece: Any, address: str) -> None:
        begin(own, piece, address)
        if left:
            left.pop()(own._client, address)

    monkeypatch.setattr(Spread, "_begin", begin_and_strike)


def sent(number: int) -> Callable[[Any, str], None]:
    def strike(client: Any, address: str) -> None:
        (pid,) = client.run(os.getpid, workers=[address]).values()
        os.kill(pid, number)

    return strike


# What differs between two runs on one machine, and what a cluster alone knows or nobody does.
UNCOMPARED = ("host", "input_sha256", "load_ns", "peak_rss_bytes", "energy_joules_per_image", "cores")


def test_shards_give_what_one_machine_gives(opened, tmp_path):
    cases = [fake_case("accuracy", batch=2), fake_case("accuracy", batch=1, flip="0.5")]
    found, heard = spread(opened, *cases)
    other = alone(opened, tmp_path / "alone", *cases)
    assert rows(opened) == rows(other)
    assert len(rows(opened)) == 16
    for single in other.folder.case_results():
        result = found[single.case.case_id]
        assert (result.status, result.digests) == (Status.OK, single.digests)
        assert (result.bad_images, result.reason, result.stage) == (single.bad_images, single.reason, single.stage)
        expected = {name: value for name, value in single.metrics.items() if name not in UNCOMPARED}
        assert {name: value for name, value in result.metrics.items() if name not in UNCOMPARED} == expected
        assert result.metrics["host"] == os.uname().nodename
    assert [case.case_id for case in heard.started] == [case.case_id for case in cases]
    opened.folder.merge_parts()
    assert rows(opened) == rows(other)
    assert not (opened.folder.path / "parts").exists()


@pytest.mark.parametrize(
    ("n", "size", "unreadable", "ends"),
    [
        (9, 4, (), [(0, 4), (4, 8), (8, 9)]),
        (8, 4, (), [(0, 4), (4, 8)]),
        (3, 4, (), [(0, 3)]),
        (9, 4, {1, 8}, [(0, 5), (5, 9)]),
        (9, 4, {4}, [(0, 5), (5, 9)]),
    ],
)
def test_shards_hold_whole_batches_of_readable_images(n, size, unreadable, ends):
    assert cut(n, size, unreadable) == ends


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_a_dead_or_silent_worker_had_is_done_elsewhere(opened, tmp_path, monkeypatch, number):
    at_first_job(monkeypatch, sent(number))
    case = fake_case("accuracy", batch=2)
    found, heard = spread(opened, case)
    assert found[case.case_id].status is Status.OK
    assert any("its worker is gone; tried again" in note for note in heard.notes)
    assert rows(opened) == rows(alone(opened, tmp_path / "alone", case))


def test_a_shard_that_fails_everywhere_says_which_images_are_missing(opened):
    broken, whole = fake_case("accuracy", batch=9, fault="raise"), fake_case("accuracy", batch=9)
    found, heard = spread(opened, broken, whole)
    assert found[broken.case_id].status is Status.FAILED
    assert found[broken.case_id].reason.startswith("no predictions of images 1 to 9: ")
    assert "told to raise" in found[broken.case_id].reason
    assert found[broken.case_id].reason.endswith("; tried 3 times")
    assert len([note for note in heard.notes if "tried again" in note]) == 2
    assert found[whole.case_id].status is Status.OK
    assert {row[0] for row in rows(opened)} == {whole.case_id}


def test_a_case_that_loses_three_workers_runs_again_when_the_run_goes_on(opened, monkeypatch):
    at_first_job(monkeypatch, sent(signal.SIGKILL), times=3)
    case = fake_case("accuracy", batch=9)
    found, _ = spread(opened, case)
    assert found[case.case_id].status is Status.CRASHED
    assert found[case.case_id].reason.startswith("no predictions of images 1 to 9: ")
    opened.folder.reopen()
    assert spread(opened, case)[0][case.case_id].status is Status.OK


def test_timed_cases_take_turns_on_one_machine(opened):
    first = [fake_case("latency"), fake_case("latency", latency_ns="2000000")]
    found, _ = spread(opened, *first)
    assert [found[case.case_id].status for case in first] == [Status.OK, Status.OK]
    info, samples = opened.folder.read_run_info(), opened.folder.samples()
    assert info["hosts"][""]["host"] == info["host"]
    counted = samples[~samples["warmup"]].groupby("case_id", observed=True)["round"].agg(["min", "max"])
    assert counted["min"].tolist() == [0, 0]
    assert set(opened.folder.rounds()["round"]) == set(range(counted["max"].max() + 1))
    later = fake_case("latency", latency_ns="3000000")
    spread(opened, *first, later)
    samples = opened.folder.samples()
    assert samples[(samples["case_id"] == later.case_id) & ~samples["warmup"]]["round"].min() == 1_000_000


def test_who_stops_the_run_finds_it_resumable(opened, tmp_path, monkeypatch):
    cases = [fake_case("accuracy", batch=9), fake_case("accuracy", batch=9, flip="0.5")]

    def stop(client: Any, address: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        at_first_job(patched, stop)
        with pytest.raises(KeyboardInterrupt):
            spread(opened, *cases)
    assert {row.status for row in opened.folder.case_results()} == {Status.INTERRUPTED}
    assert {row.status for row in spread(opened, *cases)[0].values()} == {Status.OK}
    assert rows(opened) == rows(alone(opened, tmp_path / "alone", *cases))


def test_workers_that_are_not_alike_take_no_work(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "JOIN_SECONDS", 0.0)
    case, own = fake_case("accuracy", batch=9), cluster.versions()
    with monkeypatch.context() as patched:
        patched.setattr(cluster, "versions", lambda: {**own, "numpy": "0.1"})
        with pytest.raises(MachineError) as refused:
            spread(opened, case)
    assert f"numpy is {own['numpy']} there and 0.1 on the client" in refused.value.what
    assert refused.value.what.endswith(f"Missing: images 1 to 9 of {case.label}")
    (tmp_path / "data/valid/n01440764/further.JPEG").write_bytes(b"JPEG")
    with pytest.raises(MachineError, match="there are not those of the client"):
        spread(opened, case)


def test_a_machine_takes_work_where_it_declares_itself(opened, client, monkeypatch):
    monkeypatch.setattr(cluster, "JOIN_SECONDS", 0.0)
    found = Spread._workers
    monkeypatch.setattr(
        Spread, "_workers", lambda own: {name: {**facts, "resources": {}} for name, facts in found(own).items()}
    )
    with pytest.raises(MachineError, match="none is there"):
        spread(opened, fake_case("accuracy"))


def test_model_files_are_stored_by_their_content(tmp_path, monkeypatch):
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "store"))
    digest = hashlib.sha256(b"files").hexdigest()
    assert stored(digest) is None
    with pytest.raises(BenchError, match="arrived damaged"):
        stored(digest, b"other files")
    path = stored(digest, b"files")
    assert path is not None
    assert stored(digest) == path
    path.write_bytes(b"damaged")
    assert stored(digest) is None
    assert stored(digest, b"files") == path
    assert path.read_bytes() == b"files"


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("local:0", "--cluster is 'local:0'"),
        ("10.0.0.1:8786", "--cluster is"),
        ("tcp://10.0.0.1:8786", "run code"),
        ("tcp://127.evil.example:8786", "run code"),
        ("tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("tls://127.0.0.1:9", "no Dask scheduler answers at tls://127.0.0.1:9"),
    ],
)
def test_no_cluster(where, what, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(BenchError) as refused, connected(where):
        pass
    assert what in refused.value.what
