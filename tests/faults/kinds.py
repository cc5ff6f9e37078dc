"""The kinds of faults: each strikes a place once, at a moment and in a manner that its seed decides."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.record.run_folder import RunFolder
from tests.faults.oracle import Judgement, Truth, judged, rows_of, said_badly
from tests.faults.place import Place, Said


@dataclass(frozen=True)
class Scene:
    """What a fault is given: a place, the truth, a finished run to damage, and chance.

    Attributes:
        other: gives a finished run of other images' labels and times.
        seconds: that the undisturbed run took.
        calls: how often the undisturbed runner, and each of its workers, opened, wrote, moved or removed a file.
    """

    place: Place
    truth: Truth
    finished: Path
    other: Callable[[], Path]
    seconds: float
    calls: tuple[int, int]
    chance: random.Random


Kind = Callable[[Scene], Judgement]
KINDS: dict[str, Kind] = {}


def kind(name: str) -> Callable[[Kind], Kind]:
    """Adds a kind under its name: its family, and what is done."""

    def add(strike: Kind) -> Kind:
        KINDS[name] = strike
        return strike

    return add


def finished_rows(run: Path) -> set[str]:
    """The Cases whose lines say ok, as far as lines are whole."""
    found = set()
    lines = run / "cases.jsonl"
    for line in lines.read_bytes().splitlines() if lines.is_file() else ():
        with suppress(ValueError, KeyError, TypeError):
            row = json.loads(line)
            if row["status"] == "ok":
                found.add(row["case_id"])
    return found


def resumed(scene: Scene, *before: Said) -> Judgement:
    """Goes on after a fault that is over, and judges the whole; where no run came into being, with a new one."""
    place = scene.place
    place.plant_in_runner = place.plant_in_worker = None
    finished = finished_rows(place.run)
    looked = place.run.exists() and scene.chance.random() < 0.3
    torn = place.command("report", str(place.run)) if looked else Said(0, "")
    said = place.command("run", "--resume", "--out", str(place.run))
    if said.code == 2 and not finished and "holds no" in said.text:
        # Nothing was measured yet. A new run may need another folder, and says so.
        shutil.rmtree(place.run, ignore_errors=True)
        said = place.command(*place.measure())
    whole = judged(scene.truth, place.run, finished, *before, torn, said, complete=True)
    if looked and whole.verdict == "survived" and (verified := place.command("verify", str(place.run))).code:
        return Judgement("unclear", f"verify: {verified.text[-200:]}")
    return whole


def children(pid: int) -> list[int]:
    """The processes that a process has started and that have not ended."""
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def signalled(scene: Scene, of_runner: int | None, of_worker: int | None) -> Judgement:
    place, chance = scene.place, scene.chance
    pid = place.start(*place.measure())
    time.sleep(chance.uniform(0.02, 1.0) * scene.seconds)
    deadline = time.monotonic() + scene.seconds
    workers: list[int] = []
    while of_worker and not workers and time.monotonic() < deadline:
        workers = children(pid)
    if of_worker == signal.SIGSTOP:
        time.sleep(0.3)  # stopped before its first line it cannot ask to end with its runner
    with suppress(ProcessLookupError):
        if of_worker and workers:
            os.kill(chance.choice(workers), of_worker)
        if of_runner:
            os.kill(pid, of_runner)
    said = place.wait(pid)
    if said.code is None:
        return Judgement("hang", "after a signal")
    struck = of_runner is not None
    if struck and "Traceback" in said.text and said.code >= 0:
        return Judgement("traceback", said.text.strip().splitlines()[-1][:200])
    return resumed(scene, *(() if struck else (said,)))


@kind("signals: KILL to the runner")
def _(scene: Scene) -> Judgement:
    return signalled(scene, signal.SIGKILL, None)


@kind("signals: INT, TERM or HUP to the runner")
def _(scene: Scene) -> Judgement:
    return signalled(scene, scene.chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]), None)


@kind("signals: KILL, SEGV, ABRT or STOP to a worker")
def _(scene: Scene) -> Judgement:
    numbers = [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM]
    return signalled(scene, None, scene.chance.choice(numbers))


@kind("signals: KILL to both, the worker stopped")
def _(scene: Scene) -> Judgement:
    return signalled(scene, signal.SIGKILL, scene.chance.choice([signal.SIGKILL, signal.SIGSTOP]))


class Disk:
    """Lets the n-th call that changes a file of a run fail, and from then on a few more, or all.

    Args:
        folder: only its files count; and temporary ones.
        nth: of the calls, from 1; 0 for none.
        number: the error.
        times: how many calls fail.
        tally: takes the count of calls, for ``nth`` 0.
    """

    def __init__(self, folder: Path, nth: int, number: int = 0, times: int = 1, tally: Path | None = None) -> None:
        self.folder, self.nth, self.number, self.times, self.tally = folder, nth, number, times, tally
        self.calls = 0

    def strike(self, path: Any) -> None:
        """Counts a call, and fails it where it is its turn."""
        self.calls += 1
        if self.tally is not None:
            self._note()
        if self.nth and self.nth <= self.calls < self.nth + self.times:
            raise OSError(self.number, os.strerror(self.number), str(path))

    def _note(self) -> None:
        assert self.tally is not None
        descriptor = self._open(self.tally, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(descriptor, b".")
        os.close(descriptor)

    def counts(self, path: Any) -> bool:
        """Whether a path is one of the run's."""
        return isinstance(path, (str, os.PathLike)) and str(path).startswith(str(self.folder))

    def __call__(self) -> None:
        """Changes this process."""
        self._open = os.open
        opens = io.open

        def opened(file: Any, mode: str = "r", *more: Any, **words: Any) -> Any:
            if not self.counts(file) or not {*mode} & {*"wax+"}:
                return opens(file, mode, *more, **words)
            self.strike(file)
            return _File(opens(file, mode, *more, **words), self)

        builtins.open = io.open = opened  # type: ignore[assignment]
        for name in ("mkdir", "unlink", "rename", "replace", "rmdir"):
            self._change(name)
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self.strike(descriptor)
            sync(descriptor)

        os.fsync = fsync

    def _change(self, name: str) -> None:
        call = getattr(os, name)

        def changed(path: Any, *more: Any, **words: Any) -> Any:
            if self.counts(path):
                self.strike(path)
            return call(path, *more, **words)

        setattr(os, name, changed)


class _File:
    """A file whose writing counts."""

    def __init__(self, file: Any, disk: Disk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: Any) -> int:
        self._disk.strike(self._file.name)
        return int(self._file.write(data))

    def __enter__(self) -> _File:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EMFILE, errno.EDQUOT)


def on_disk(scene: Scene, calls: int) -> Disk:
    chance = scene.chance
    nth, times = chance.randint(1, max(1, calls)), chance.choice([1, 3, 10**9])
    return Disk(scene.place.run, nth, chance.choice(ERRORS), times)


@kind("disk: a call of the runner's fails")
def _(scene: Scene) -> Judgement:
    scene.place.plant_in_runner = on_disk(scene, scene.calls[0])
    said = scene.place.command(*scene.place.measure())
    if said.code == 2 and not scene.place.run.exists() and "Case" in said.text and ": ok" in said.text:
        return Judgement("lost", "the run's folder is gone with what was measured")
    return resumed(scene, said)


@kind("disk: a call of a worker's fails")
def _(scene: Scene) -> Judgement:
    scene.place.plant_in_worker = on_disk(scene, scene.calls[1])
    return resumed(scene, scene.place.command(*scene.place.measure()))


def damaged(scene: Scene, damage: Callable[[Path, random.Random], None]) -> Judgement:
    """Damages one file of a finished run; then the commands that read it."""
    place = scene.place
    shutil.copytree(scene.finished, place.run, symlinks=True)
    names = ["run.json", "cases.jsonl", "images.json", "samples.parquet", "predictions.parquet", "rounds.parquet"]
    there = [place.run / name for name in names if (place.run / name).exists()]
    damage(scene.chance.choice(there), scene.chance)
    said = [place.command("report", str(place.run))]
    bad = judged(scene.truth, place.run, finished_rows(place.run), *said, complete=False)
    if bad.verdict != "survived":
        return bad
    said.append(place.command("run", "--resume", "--out", str(place.run)))
    said.append(place.command("verify", str(place.run)))
    said.append(place.command("baseline", str(place.run), "--out", str(place.folder / "baseline.json")))
    return judged(scene.truth, place.run, finished_rows(place.run), *said, complete=False)


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def cut(path: Path, chance: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))] + chance.choice([b"", b"\0" * 100, b"\xff\xfe{"]))


def gone(path: Path, chance: random.Random) -> None:
    path.unlink()
    instead = chance.choice([None, path.mkdir, lambda: path.symlink_to(path), lambda: os.mkfifo(path)])
    if instead is not None:
        instead()


def edited(path: Path, chance: random.Random) -> None:
    """Valid JSON of another type in one place; a Parquet file is emptied instead."""
    if path.suffix == ".parquet":
        path.write_bytes(b"")
        return
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    place = chance.randrange(len(lines))
    whole = json.loads(lines[place])
    spots: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        for key, item in (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        ):
            spots.append((value, key))
            walk(item)

    walk(whole)
    holder, key = chance.choice(spots)
    holder[key] = chance.choice([None, 5, "text", [], {}, [None], -1.5, True])
    lines[place] = json.dumps(whole)
    path.write_text("\n".join(lines) + "\n")


KINDS |= {
    "run folder: a bit flips": partial(damaged, damage=flip),
    "run folder: a file is cut off or overwritten": partial(damaged, damage=cut),
    "run folder: a file is gone, or no file any more": partial(damaged, damage=gone),
    "run folder: JSON of another type": partial(damaged, damage=edited),
}


@kind("run folder: rows or data of another run")
def _(scene: Scene) -> Judgement:
    other = scene.other()

    def foreign(path: Path, chance: random.Random) -> None:
        if path.suffix == ".jsonl" and chance.random() < 0.5:
            with path.open("ab") as file:
                file.write((other / path.name).read_bytes())
        else:
            shutil.copy(other / path.name, path)

    return damaged(scene, foreign)


def with_images(scene: Scene, change: Callable[[Path, random.Random], None]) -> Judgement:
    """Changes one image, and runs: it is read or listed, and no other image's prediction changes."""
    place = scene.place
    data = place.folder / "data"
    data.unlink()
    shutil.copytree(scene.finished.parent / "data", data)
    target = scene.chance.choice(sorted(data.rglob("*.JPEG")))
    change(target, scene.chance)
    said = place.command(*place.measure())
    if bad := said_badly(said):
        return bad
    if any(
        (ord(sign) < 32 and sign not in "\n\t") or 0x7F <= ord(sign) < 0xA0 or sign in "\u202e\u2066"
        for sign in said.text
    ):
        return Judgement("unclear", "a control character on the terminal")
    if said.code == 2:
        return Judgement()
    folder = RunFolder.open(place.run)
    (accuracy,) = (result for result in folder.results() if result.case.scenario == "accuracy")
    if accuracy.status.value != "ok":
        return Judgement("lost", f"the row is {accuracy.status.value}: {accuracy.reason[:150]}")
    changed = target.relative_to(data).as_posix()
    expected = {row[0]: row for row in zip(*scene.truth.rows.data[accuracy.case.case_id], strict=True)}
    found = {row[0]: row for row in zip(*rows_of(place.run).data[accuracy.case.case_id], strict=True)}
    wrong = [name for name, row in expected.items() if name != changed and found.get(name) != row]
    listed = {bad["image_id"] for bad in accuracy.bad_images}
    if wrong:
        return Judgement("wrong", f"the predictions of {len(wrong)} other images changed")
    if changed not in found and changed not in listed and os.path.lexists(target) and not target.is_dir():
        return Judgement("lost", "an image is neither predicted nor listed as bad")
    return Judgement()


def fuzz(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 3, 20])):
        at = chance.randrange(len(data))
        match chance.randrange(5):
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randrange(1, 200)]
            case 2:
                data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 50)))
            case 3:
                data[at : at + 2] = bytes([0xFF, chance.randrange(0xC0, 0x100)])
            case _:
                del data[at:]
                data += chance.choice([b"", b"\xff\xd9"])
        if len(data) < 2:
            break
    path.write_bytes(data)


def special(path: Path, chance: random.Random) -> None:
    path.unlink()
    device = chance.choice(["/dev/zero", "/dev/urandom", "/dev/full", "/proc/kmsg", "/dev/tty", str(path), "/none"])
    chance.choice([lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to(device), lambda: bomb(path)])()


def bomb(path: Path) -> None:
    """An EPS file, or a PNG of 60,000 x 60,000 pixels in some kB."""
    import struct
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10**6))))


def renamed(path: Path, chance: random.Random) -> None:
    names = [
        "\x1b]0;x\x07\x1b[2J",
        "\u202egnp",
        "a\nb",
        "=1+1",
        "-rf",
        "[bold]",
        "a,b;\"'",
        "x" * 240,
        "\x9b31m",
        "%s{0}",
        "...",
    ]
    path.rename(path.with_name(f"{chance.choice(names)}.JPEG"))


KINDS |= {
    "images: a fuzzed JPEG": partial(with_images, change=fuzz),
    "images: a special file or a bomb": partial(with_images, change=special),
    "images: a hostile name": partial(with_images, change=renamed),
}


@kind("models: a fuzzed ONNX file")
def _(scene: Scene) -> Judgement:
    place = scene.place
    fuzz(place.folder / "tiny.onnx", scene.chance)
    said = place.command(*place.measure("--scenarios", "latency", "--batches", "1"))
    return said_badly(said) or Judgement()


@kind("models: a hostile checkpoint")
def _(scene: Scene) -> Judgement:
    from tests.faults.bombs import CHECKPOINTS

    path = scene.place.folder / "x.pth"
    name = scene.chance.choice(sorted(CHECKPOINTS))
    CHECKPOINTS[name](path)
    before = time.monotonic()
    read = f"load_into(torch.nn.Linear(1, 1), {str(path)!r}, 'a network')"
    said = scene.place.call(f"import torch\nfrom scarlet.foreign.checkpoint import load_into\n{read}", 20.0)
    if time.monotonic() - before > 10:
        return Judgement("hang", name)
    bad = said_badly(said)
    return bad or Judgement(*(() if said.code == 2 else ("wrong", f"{name} was taken")))


@kind("YAML: a bomb as plan, recipe or tolerances")
def _(scene: Scene) -> Judgement:
    from tests.faults.bombs import YAML

    path = scene.place.folder / "x.yaml"
    name = scene.chance.choice(sorted(YAML))
    path.write_text(YAML[name])
    calls = {
        "plan": "from bench.run.spec import read_plan\nread_plan(path)",
        "recipe": "from export.precision.recipe import read_recipe\nread_recipe(path)",
        "tolerances": "from bench.studies.check.tolerances import load\nload(path)",
    }
    program = calls[scene.chance.choice(sorted(calls))]
    said = scene.place.call(f"from pathlib import Path\npath = Path({str(path)!r})\n{program}", 20.0)
    if bad := said_badly(said):
        return bad
    if len(said.text) > 2000:
        return Judgement("unclear", f"{name}: a message of {len(said.text)} signs")
    return Judgement(*(() if said.code == 2 else ("wrong", f"{name} was taken")))


@kind("at once: two resumes")
def _(scene: Scene) -> Judgement:
    place = scene.place
    pid = place.start(*place.measure())
    time.sleep(scene.chance.uniform(0.1, 0.9) * scene.seconds)
    os.kill(pid, signal.SIGKILL)
    place.wait(pid)
    finished = finished_rows(place.run)
    pids = [place.start("run", "--resume", "--out", str(place.run)) for _ in range(2)]
    said = [place.wait(each) for each in pids]
    if bad := next(filter(None, map(said_badly, said)), None):
        return bad
    if not finished and all(each.code == 2 and "holds no" in each.text for each in said):
        return Judgement()
    again = resumed(scene)
    lines = (place.run / "cases.jsonl").read_text().count('"status": "ok"')
    twice = lines > len(scene.truth.rows.ok())
    return Judgement("wrong", "a Case was measured twice") if twice else again


@kind("at once: report and resume while a run is at work")
def _(scene: Scene) -> Judgement:
    place = scene.place
    pid = place.start(*place.measure())
    time.sleep(scene.chance.uniform(0.1, 0.9) * scene.seconds)
    said = []
    if (place.run / "run.json").exists():
        said += [place.command("report", str(place.run)), place.command("run", "--resume", "--out", str(place.run))]
    return judged(scene.truth, place.run, set(), place.wait(pid), *said, complete=True)


@kind("terminal: nobody reads, it is full, or closed")
def _(scene: Scene) -> Judgement:
    place = scene.place
    manner = scene.chance.choice(["full", "closed", "pipe"])
    said = place.command(*place.measure(), stdout=manner)
    if bad := said_badly(said):
        return bad
    if not finished_rows(place.run) >= scene.truth.rows.ok():
        return Judgement("lost", f"{manner}: the run stopped when nobody read it")
    return judged(scene.truth, place.run, set(), said, complete=True)
