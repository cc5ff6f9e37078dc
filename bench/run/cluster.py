"""Runs Cases on the workers of a Dask scheduler: accuracy in shards of the images, timed Cases whole on one machine.

Each task is bound to one worker and takes its resource ``machine``; who does what, and what is tried again where, is
decided here and not by the scheduler. There a job's Cases are a run of their own, by the same ``Runner`` and processes
as anywhere; what it wrote travels back. A Case's row is written once all of its shards are there, or one has failed for
good. The first half of this file is called on workers, by name.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import platform
import re
import shutil
import socket
import tempfile
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from bench import host
from bench.backends import package_versions
from bench.backends.base import ModelFiles
from bench.host.disturbance import RoundState
from bench.record.case import MEASURED, Case, Status
from bench.record.files import atomic_file
from bench.record.machine import machine_facts
from bench.record.raw_tables import part_path, scan
from bench.record.run_folder import MACHINE, CaseResult, RunFolder
from bench.run.runner import Limits, Runner
from bench.run.schedule import by_scenario
from bench.run.spec import RunSpec
from bench.worker.channel import own_home
from bench.worker.messages import Context
from export.store import Store, sidecar_of
from pipelines.imagenet.find import find_images
from scarlet.errors import BenchError, MachineError, error_text
from scarlet.files import read_json

CONNECT_SECONDS, POLL_SECONDS = 15, 0.3
ANSWER_SECONDS = 300  # for a model's files to be sent, and for a result to arrive
JOIN_SECONDS = 30.0  # that a run waits where no worker can take what is left: a nanny needs some to start another
TELL_SECONDS = 0.5  # between two events of a Case's progress
RETRIES = 2
SHARD_IMAGES, SHARDS_PER_WORKER = 5000, 2  # at most so many images are lost with a machine
ROUNDS_STEP = 1_000_000  # rounds of two jobs are numbered apart
TOPIC = "scarlet-bench"
# Dask's nanny sets these for NumPy in its own tasks; processes of ours would measure otherwise than without Dask.
NANNY_SETS = ("MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(eq=False)
class Piece:
    """A shard of an accuracy Case, or all timed Cases of a host; ``tried``: addresses of the workers that failed it."""

    cases: tuple[Case, ...]
    start: int
    stop: int
    tried: list[str] = field(default_factory=list)

    @property
    def is_timed(self) -> bool:
        return self.cases[0].scenario != "accuracy"

    def __str__(self) -> str:
        which = f"images {self.start + 1} to {self.stop} of {self.cases[0].label}"
        return f"{len(self.cases)} timed Cases" if self.is_timed else which


@dataclass(frozen=True)
class Job:
    """Cases to run on some images.

    Attributes:
        key: of its Dask task: a job ends where that is no longer wanted.
        planned: all Cases of the run, which say how many comparisons intervals are adjusted for.
        images: id and label.
        context: of the client's run.
        files: digest of the zip of the model's files, and what each is called in there.
        first_round: the number of its first round.
    """

    key: str
    piece: Piece
    planned: Sequence[Case]
    images: Sequence[tuple[str, int]]
    context: Context
    files: tuple[str, Mapping[str, str]]
    limits: Limits
    objections: Mapping[str, str]
    first_round: int


@dataclass(frozen=True)
class Done:
    """What a job left: bytes of the files in its run's folder, by their names there, and what its ``Runner`` knows."""

    files: Mapping[str, bytes]
    results: Sequence[CaseResult]
    rounds: Sequence[RoundState]
    resolves: Mapping[str, Any]
    facts: Mapping[str, Any]


@cache
def versions() -> dict[str, str | None]:
    """By name what decides results besides the machine: packages, Python, and a digest of this project's sources."""
    packages = [own_home() / name for name in ("bench", "export", "pipelines", "scarlet")]
    source = b"".join(path.read_bytes() for package in packages for path in sorted(package.rglob("*.py")))
    python = ".".join(platform.python_version_tuple()[:2])
    return {
        **package_versions(),
        "Python": python,
        "the source of scarlet-bench": hashlib.sha256(source).hexdigest()[:12],
    }


def check_in(
    client: Mapping[str, str | None], settings: Mapping[str, Any], root: str, images: str, archive: str
) -> tuple[str, bool]:
    """The fingerprint of a worker that may take work of a run, and whether the model's files are here.

    Args:
        client: ``versions`` there; ``settings``: of the run's ``RunSpec``.
        images: fingerprint of the set under ``root``.
        archive: digest of the zip of the model's files.

    Raises:
        BenchError: the worker would not measure what the client means.
    """
    own = versions()
    differ = [
        f"{name} is {own.get(name) or 'missing'} there and {client.get(name) or 'missing'} on the client"
        for name in sorted(own.keys() | client.keys())
        if own.get(name) != client.get(name)
    ]
    if differ:
        raise BenchError("; ".join(differ), "Install the same on both.")
    if find_images(Path(root), RunSpec.from_dict(settings).labelling).fingerprint != images:
        raise BenchError(f"the images under {root} there are not those of the client", "Copy or mount the same.")
    return host.fingerprint(host.describe_host()), bool(stored(archive))


def stored(archive: str, content: bytes = b"") -> Path | None:
    """The archive of a model's files in this machine's store, by its digest; None where it is not there.

    Args:
        content: to be taken in where it is not; BenchError where it is another.
    """

    def take_in(target: Path) -> None:
        if not content:
            raise FileNotFoundError(target)
        if hashlib.sha256(content).hexdigest() != archive:
            raise BenchError("the model's files arrived damaged", "Look after the network.")
        target.write_bytes(content)

    with suppress(FileNotFoundError):
        return Store().get_or_make({"artefact": "sent", "sha256": archive}, ".zip", take_in)
    return None


def _teller(key: str) -> Any:
    """A ``Listener`` that tells the client how far Cases are, and ends the job where nobody waits for it."""
    from distributed import get_worker

    worker, told = get_worker(), dict[str, float]()

    def progress(case: Case, fraction: float, detail: str) -> None:
        task, now = worker.state.tasks.get(key), time.monotonic()
        if task is None or task.state != "executing":  # released by the client, or because that is gone
            raise KeyboardInterrupt
        if now - told.get(case.case_id, -TELL_SECONDS) >= TELL_SECONDS:
            told[case.case_id] = now
            worker.log_event(TOPIC, [key, case.case_id, fraction, detail])

    return SimpleNamespace(progress=progress, **dict.fromkeys(("case_started", "case_ended", "note"), str))


def carry_out(job: Job) -> Done:
    """Runs a job's Cases as a run of their own."""
    for name in NANNY_SETS:
        os.environ.pop(name, None)
    cases, (digest, names) = job.piece.cases, job.files
    with tempfile.TemporaryDirectory(prefix="scarlet-bench-") as scratch:
        threads, devices = max(case.threads for case in cases), sorted({case.device for case in cases})
        facts = {
            "name": socket.gethostname(),
            **(machine_facts(package_versions(), devices, threads) if job.piece.is_timed else {}),
        }
        if (archive := stored(digest)) is None:
            raise FileNotFoundError("the model's files are no longer in this machine's store")
        shutil.unpack_archive(archive, f"{scratch}/model")
        folder = RunFolder.create(Path(scratch) / "run", {**facts, "first_round": job.first_round}, job.images)
        files = _moved(job.context.files, {path: f"{scratch}/model/{name}" for path, name in names.items()})
        context = replace(job.context, run=str(folder.path), files=files)
        runner = Runner(folder, context, _teller(job.key), job.limits, watch=job.piece.is_timed)
        with suppress(KeyboardInterrupt):
            runner.execute(cases, by_scenario(job.planned), job.objections)
        for case in cases if not job.piece.is_timed else ():
            folder.end_life(case.case_id, job.piece.start, "predictions")
        left = [path for path in folder.path.glob("*/**/[!.]*") if path.is_file()]
        contents = {str(path.relative_to(folder.path)): path.read_bytes() for path in left}
        return Done(contents, folder.case_results(), runner.rounds, runner.resolves, facts)


def _moved(files: ModelFiles, places: Mapping[str, str]) -> ModelFiles:
    """The same files at other paths."""
    typed = {key: {**one, "path": places[one["path"]]} if "path" in one else one for key, one in files.typed.items()}
    return replace(files, onnx=places.get(files.onnx, ""), state=places.get(files.state or ""), typed=typed)


# --- on the client ------------------------------------------------------------------------------------------------


@contextmanager
def connected(where: str, insecure: bool = False) -> Iterator[Any]:
    """A Dask client of the scheduler at ``tcp://host:port`` or ``tls://host:port``, or of N workers here (``local:N``).

    Args:
        insecure: go on where others may reach the scheduler, and so have this machine run code.

    Raises:
        BenchError: Dask is not installed, the scheduler cannot be reached, or it is open to others.
    """
    parts = re.fullmatch(r"local:(?P<n>[1-9]\d?)|(?P<scheme>tcp|tls)://(?P<host>.+):\d+", where)
    if not parts:
        raise BenchError(f"--cluster is '{where}'", "Write tcp://HOST:PORT, tls://HOST:PORT, or local:N for N workers.")
    if parts["scheme"] == "tcp" and not (insecure or re.fullmatch(r"localhost|127(\.\d+){3}|\[::1\]", parts["host"])):
        what = f"whoever reaches the Dask scheduler at {where} can have its workers and this machine run code"
        raise BenchError(what, "Use TLS (docs/cluster.md), or give --insecure where you trust the network.")
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise BenchError("--cluster needs the package distributed", "Run: pip install distributed") from None
    quiet = {"dashboard_address": "127.0.0.1:0", "silence_logs": logging.ERROR}
    each = {"threads_per_worker": 1, "memory_limit": 0, "resources": {"machine": 1}, "host": "127.0.0.1"}
    own = LocalCluster(int(parts["n"]), **each, **quiet) if parts["n"] else None  # type: ignore[no-untyped-call]
    quick = {"timeout": CONNECT_SECONDS, "set_as_default": False}
    with own or nullcontext():
        try:
            client = Client(own or where, **quick)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, TypeError) as error:  # TypeError: TLS without certificates
            do = "Start it with: dask scheduler; certificates are named in Dask's configuration (docs/cluster.md)."
            raise BenchError(f"no Dask scheduler answers at {where}: {error_text(error)[:300]}", do) from None
        with client:
            yield client


def cut(n: int, size: int, unreadable: Collection[int] = ()) -> list[tuple[int, int]]:
    """Where shards of ``n`` images begin and end.

    Pipelines fill batches with the next readable image. So each shard but the last holds ``size`` readable images, a
    multiple of the batch: its batches are then those of a single pass over all images.
    """
    readable: Sequence[int] = [place for place in range(n) if place not in unreadable] if unreadable else range(n)
    starts = [0, *readable[size::size]]
    return list(zip(starts, [*starts[1:], n], strict=True))


class Spread:
    """Gives Cases to the workers of a cluster; an ``Order`` of a ``Runner`` that has no processes of its own.

    Args:
        client: as ``connected`` gives it.
        images: fingerprint of the set that the run's images are of.
    """

    def __init__(self, client: Any, context: Context, spec: RunSpec, images: str) -> None:
        self._client, self._wanted = client, (spec.to_dict(), context.data, images)
        self._images = [(image.image_id, image.label) for image in context.images()]
        self._context, (self._archive, names) = context, _packed(context.files)
        self._files = hashlib.sha256(self._archive).hexdigest(), names
        self._planned, self._begun = context.run_folder.planned_cases(), set[str]()
        self._pieces: list[Piece] = []
        self._running: dict[str, tuple[Piece | None, Any]] = {}  # by address; no piece: it checks in
        self._ready: dict[str, str] = {}  # by address the fingerprint
        self._refused: dict[str, str] = {}
        self._shards: dict[str, dict[tuple[int, int], CaseResult]] = {}
        self._progress: dict[str, tuple[Piece, float]] = {}  # by the key of what runs

    def __call__(self, runner: Runner, cases: Sequence[Case]) -> None:
        """See ``bench.run.runner.Order``.

        Raises:
            MachineError: the scheduler is gone, or no worker can take what is left; says what is missing.
        """
        self._runner, n, rounds = runner, len(self._images), runner.run.rounds()["round"]
        self._first_round = (int(rounds.max()) // ROUNDS_STEP + 1) * ROUNDS_STEP if len(rounds) else 0
        self._size = min(SHARD_IMAGES, -(-n // (SHARDS_PER_WORKER * max(1, len(self._workers())))))
        for case in cases:
            if case.scenario == "accuracy":
                self._go_on(case)
        for kind in dict.fromkeys(case.host for case in cases):
            if timed := tuple(case for case in cases if case.host == kind and case.scenario != "accuracy"):
                self._pieces.append(Piece(timed, 0, n))
        self._client.subscribe_topic(TOPIC, self._hear)
        idle_since = time.monotonic()
        try:
            while self._pieces or any(piece for piece, _ in self._running.values()):
                self._there = self._workers()
                self._collect()
                self._assign()
                if self._running:
                    idle_since = time.monotonic()
                elif self._pieces and time.monotonic() - idle_since > JOIN_SECONDS:
                    reasons = "; ".join(f"{address}: {reason}" for address, reason in self._refused.items())
                    missing = "; ".join(map(str, self._pieces))
                    what = f"no worker can take what is left ({reasons or 'none is there'}). Missing: {missing}"
                    do = "Mend them, or start others with --resources machine=1, and go on with --resume."
                    raise MachineError(what, do)
                time.sleep(POLL_SECONDS)
        finally:
            for _, future in self._running.values():
                future.cancel()
            self._client.unsubscribe_topic(TOPIC)

    def _workers(self) -> dict[str, dict[str, Any]]:
        """What the scheduler knows of its workers, by their addresses."""
        with suppress(OSError):
            found = self._client.scheduler_info(n_workers=-1)["workers"]
            if self._client.status == "running":
                return dict(found)
        raise MachineError("the Dask scheduler is gone", "Start it, and go on with --resume.")

    def _submit(self, address: str, function: Any, *args: Any, key: str = "") -> Any:
        bound = {"workers": [address], "allow_other_workers": False, "resources": {"machine": 1}, "retries": 0}
        return self._client.submit(function, *args, key=key or f"{function.__name__}-{uuid4().hex}", **bound)

    def _assign(self) -> None:
        """Has new workers check in, and gives idle ones their next piece."""
        there = {address for address, facts in self._there.items() if facts["resources"].get("machine", 0) >= 1}
        self._ready = {address: machine for address, machine in self._ready.items() if address in there}
        for address in sorted(there - self._running.keys() - self._refused.keys()):
            machine = urlsplit(address).hostname
            beside = [piece for other, (piece, _) in self._running.items() if urlsplit(other).hostname == machine]
            if any(piece and piece.is_timed for piece in beside):
                continue
            if address not in self._ready:
                asked = versions(), *self._wanted, self._files[0]
                self._running[address] = (None, self._submit(address, check_in, *asked))
                continue
            suitable = (piece for piece in self._pieces if not (piece.is_timed and beside))
            if piece := next((piece for piece in suitable if self._suits(piece, address)), None):
                self._pieces.remove(piece)
                self._begin(piece, address)

    def _suits(self, piece: Piece, address: str) -> bool:
        kind = piece.cases[0].host
        able = {one for one in self._ready if not kind or self._there[one]["resources"].get(kind)}
        if address not in able or (address in piece.tried and not able <= {*piece.tried}):
            return False
        timed_on = self._runner.run.read_run_info().get("hosts", {}).get(kind) if piece.is_timed else None
        return not timed_on or timed_on["host"]["fingerprint"] == self._ready[address]

    def _admit(self, address: str, fingerprint: str, has_files: bool) -> None:
        if not has_files:
            sent = self._client.scatter(self._archive, workers=[address], hash=False)
            self._submit(address, stored, self._files[0], sent).result(timeout=ANSWER_SECONDS)
        self._ready[address] = fingerprint

    def _begin(self, piece: Piece, address: str) -> None:
        runner, key = self._runner, f"job-{uuid4().hex}"
        for case in piece.cases:
            if case.case_id not in self._begun:
                self._begun.add(case.case_id)
                runner.listener.case_started(case)
        what = self._images[piece.start : piece.stop], self._context, self._files, runner.limits, runner.objections
        job = Job(key, piece, self._planned, *what, self._first_round)
        self._first_round += ROUNDS_STEP if piece.is_timed else 0
        self._progress[key] = (piece, 0.0)
        self._running[address] = (piece, self._submit(address, carry_out, job, key=key))

    def _collect(self) -> None:
        """Takes in what has ended, and what will never end."""
        for address, (piece, future) in list(self._running.items()):
            if address not in self._running or not (future.done() or address not in self._there):
                continue
            del self._running[address]
            self._progress.pop(future.key, None)
            try:
                if not future.done():
                    raise ConnectionError("its worker is gone")
                answer = future.result(timeout=ANSWER_SECONDS)
                self._take(piece, address, answer) if piece else self._admit(address, *answer)
            except MachineError:  # of this machine's disk
                raise
            except Exception as error:  # whatever a task raises is its result
                reason = getattr(error, "what", f"{type(error).__name__}: {error_text(error)[:500]}")
                if piece:
                    self._failed(piece, address, Status.FAILED if address in self._there else Status.CRASHED, reason)
                elif address in self._there:
                    self._refused[address] = reason
                    self._runner.listener.note(f"worker {address} takes no work: {reason}")
            future.cancel()

    def _take(self, piece: Piece, address: str, done: Done) -> None:
        run, name = self._runner.run, done.facts["name"]
        rows = [replace(row, metrics={**row.metrics, "host": name}) for row in done.results]
        for file, content in done.files.items():
            with atomic_file(run.path / file) as stream:
                stream.write(content)
        if piece.is_timed:
            run.write_rounds(done.rounds)
            self._runner.rounds += done.rounds
            self._runner.resolves |= done.resolves
            known, kind = run.read_run_info().get("hosts", {}), piece.cases[0].host
            run.add_run_info(**({} if kind else done.facts), hosts={**known, kind: done.facts})
            for row in rows:
                self._runner.take(row)
            return
        (case,), (row,) = piece.cases, rows
        if row.status is Status.UNSUPPORTED:
            self._end(case, row.status, row.reason)
        elif row.status not in (*MEASURED, Status.INVALID):
            self._failed(piece, address, row.status, f"{row.reason} (on {name})")
        elif scan((part_path(run.path, case.case_id, "predictions", piece.start),), "predictions").digests != {
            case.case_id: (row.digests or {})["predictions"]
        }:
            raise ValueError("its predictions arrived damaged")
        else:
            self._shards[case.case_id][piece.start, piece.stop] = row
            at_work = (one for one, _ in self._running.values() if one)
            if not any(case in other.cases for other in (*self._pieces, *at_work)):
                self._go_on(case)

    def _go_on(self, case: Case) -> None:
        """Plans the shards of a Case that are not there; where all are, writes its row."""
        shards = self._shards.setdefault(case.case_id, {})
        bad = [image for one in sorted(shards) for image in shards[one].bad_images]
        ids = {image["image_id"] for image in bad}
        unreadable = {place for place, (image_id, _) in enumerate(self._images) if image_id in ids} if ids else ()
        ends = cut(len(self._images), -(-self._size // case.batch) * case.batch, unreadable)
        # Unreadable images shift the batches behind them, which a single pass fills with the next images.
        for start, stop in shards.keys() - {*ends}:
            del shards[start, stop]
            part_path(self._runner.run.path, case.case_id, "predictions", start).unlink()
        if left := [one for one in ends if one not in shards]:
            self._pieces += [Piece((case,), *one) for one in left]
            return
        rows = [shards[one] for one in ends]
        totals = {name: sum(row.metrics[name] for row in rows) for name in ("n_bad_images", "n_pipeline_fallbacks")}
        totals["host"] = ", ".join(sorted({row.metrics["host"] for row in rows}))
        if len(rows) > 1:
            totals["input_sha256"] = None  # that of one stream of pixels, which nobody has read whole
        self._runner.lives[case.case_id] = [
            {**vars(row), "metrics": {**row.metrics, **totals}, "bad_images": bad} for row in rows
        ]
        self._runner.conclude(case)

    def _failed(self, piece: Piece, address: str, status: Status, reason: str) -> None:
        piece.tried.append(address)
        if len(piece.tried) <= RETRIES:
            self._runner.listener.note(f"{piece}: {reason}; tried again")
            self._pieces.insert(0, piece)
            return
        missing = "" if piece.is_timed else f"no predictions of images {piece.start + 1} to {piece.stop}: "
        for case in piece.cases:
            self._end(case, status, f"{missing}{reason}; tried {len(piece.tried)} times")

    def _end(self, case: Case, status: Status, reason: str) -> None:
        """Records why a Case has no results, and gives up what is planned and at work for it."""
        self._pieces = [piece for piece in self._pieces if case not in piece.cases]
        for address, (piece, future) in list(self._running.items()):
            if piece and case in piece.cases:
                future.cancel()
                del self._running[address]
        # A lost machine says nothing of the Case: it runs again when the run goes on.
        self._runner.end(case, status, reason, MACHINE if status is Status.CRASHED else "")

    def _hear(self, event: tuple[float, Any]) -> None:
        """Passes a worker's progress on; called by Dask, in a thread of its own."""
        key, case_id, fraction, detail = event[1]
        if key not in self._progress:
            return
        piece = self._progress[key][0]
        case = next(case for case in piece.cases if case.case_id == case_id)
        self._progress[key] = (piece, fraction)
        if not piece.is_timed:
            parts = [share * (one.stop - one.start) for one, share in [*self._progress.values()] if case in one.cases]
            seen = sum(parts) + sum(stop - start for start, stop in [*self._shards[case_id]])
            fraction, detail = seen / len(self._images), f"{round(seen)} images, {len(parts)} workers"
        self._runner.listener.progress(case, fraction, detail)


def _packed(files: ModelFiles) -> tuple[bytes, dict[str, str]]:
    """A zip of all files of a model, with their companions; and by its path what each is called in there."""
    typed, names, content = [graph.get("path") for graph in files.typed.values()], dict[str, str](), io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path in map(Path, dict.fromkeys(filter(None, [files.onnx, files.state, *typed]))):
            sidecar = sidecar_of(path)
            beside = read_json(sidecar).get("companions", {}) if sidecar.is_file() else {}
            for suffix in (path.suffix, *beside):
                entry = zipfile.ZipInfo(f"{len(names)}{suffix}")  # without a time: equal files, equal digests
                archive.writestr(entry, path.with_suffix(suffix).read_bytes())
            names[str(path)] = f"{len(names)}{path.suffix}"
    return content.getvalue(), names
