"""The store: made once, whole or not at all, remade when damaged."""

import json
import multiprocessing
import os

import pytest

from export.store import Store, artefact_key, default_root, recorded_sha256, sidecar_of
from scarlet.errors import BenchError
from scarlet.files import file_sha256

PARTS = {"artefact": "test", "weights": "abc"}


class Maker:
    """Writes its content and counts how often it was asked to."""

    def __init__(self, content=b"content"):
        self.content = content
        self.calls = 0

    def __call__(self, path):
        self.calls += 1
        path.write_bytes(self.content)


def files(root):
    return sorted(path.name for path in root.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_made_once_then_found(tmp_path):
    maker, store = Maker(), Store(tmp_path / "new" / "root")
    path = store.get_or_make(PARTS, ".bin", maker)
    assert store.get_or_make(dict(reversed(PARTS.items())), ".bin", maker) == path
    assert maker.calls == 1
    assert path.read_bytes() == b"content"
    assert path.name == artefact_key(PARTS) + ".bin"
    assert files(store.root) == [path.name, path.name + ".json"]
    sidecar = json.loads(sidecar_of(path).read_text())
    assert sidecar == {"key_parts": PARTS, "sha256": file_sha256(path), "bytes": 7}
    assert recorded_sha256(path) == file_sha256(path)


def test_other_parts_other_file(tmp_path):
    store = Store(tmp_path)
    first = store.get_or_make(PARTS, ".bin", Maker())
    assert store.get_or_make({**PARTS, "weights": "abd"}, ".bin", Maker(b"other")) != first
    assert first.read_bytes() == b"content"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"con"),  # cut off
        lambda path: path.write_bytes(b"cOntent"),  # same length
        lambda path: path.unlink(),
        lambda path: sidecar_of(path).unlink(),
        lambda path: sidecar_of(path).write_text("{"),
        lambda path: sidecar_of(path).write_text("{}"),
        lambda path: sidecar_of(path).write_text("[]"),
    ],
)
def test_damaged_artefacts_are_made_again(tmp_path, damage):
    maker, store = Maker(), Store(tmp_path)
    damage(store.get_or_make(PARTS, ".bin", maker))
    path = store.get_or_make(PARTS, ".bin", maker)
    assert maker.calls == 2
    assert path.read_bytes() == b"content"
    assert store.get_or_make(PARTS, ".bin", maker) == path
    assert maker.calls == 2


def test_a_maker_that_raises_leaves_nothing(tmp_path):
    def half(path):
        path.write_bytes(b"hal")
        raise ValueError("no")

    store = Store(tmp_path)
    with pytest.raises(ValueError, match="no"):
        store.get_or_make(PARTS, ".bin", half)
    assert files(tmp_path) == []
    assert store.get_or_make(PARTS, ".bin", Maker()).read_bytes() == b"content"


def test_what_a_killed_process_left_is_cleared(tmp_path):
    path = Store(tmp_path).get_or_make(PARTS, ".bin", Maker())
    path.unlink()
    stale = path.with_name(f".{path.name}.12345.bin")
    stale.write_bytes(b"half")
    Store(tmp_path).get_or_make(PARTS, ".bin", Maker())
    assert not stale.exists()


def test_a_real_full_device(tmp_path):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")

    def full(path):
        path.symlink_to("/dev/full")
        path.write_bytes(b"x" * 100_000)

    with pytest.raises(BenchError, match="the disk is full") as caught:
        Store(tmp_path).get_or_make(PARTS, ".bin", full)
    assert "SCARLET_BENCH_STORE" in caught.value.do
    assert files(tmp_path) == []


def test_a_root_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BenchError, match="cannot be used"):
            Store(root).get_or_make(PARTS, ".bin", Maker())


def test_an_os_error_of_the_maker_that_is_not_the_stores(tmp_path):
    def absent(path):
        (tmp_path / "absent").read_bytes()

    with pytest.raises(FileNotFoundError):
        Store(tmp_path).get_or_make(PARTS, ".bin", absent)


def test_a_whole_artefact_is_served_without_writing(tmp_path, monkeypatch):
    path = Store(tmp_path).get_or_make(PARTS, ".bin", Maker())

    def refuse(*_, **__):
        raise AssertionError("locked")

    monkeypatch.setattr("filelock.FileLock", refuse)
    assert Store(tmp_path).get_or_make(PARTS, ".bin", refuse) == path


def _ask(root, barrier, results):
    def make(path):
        with (root / "calls").open("a") as calls:
            calls.write("x")
        # Written piece by piece, so that a reader without a lock would see half of it.
        with path.open("wb") as file:
            for _ in range(200):
                file.write(bytes(10_000))
                file.flush()

    barrier.wait()
    path = Store(root).get_or_make(PARTS, ".bin", make)
    results.put((str(path), file_sha256(path)))


def test_processes_at_once_make_one_good_file(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3), context.Queue()
    workers = [context.Process(target=_ask, args=(tmp_path, barrier, results)) for _ in range(3)]
    for worker in workers:
        worker.start()
    answers = {results.get(timeout=60) for _ in workers}
    for worker in workers:
        worker.join(60)
    assert (tmp_path / "calls").read_text() == "x"
    ((path, digest),) = answers
    assert os.path.getsize(path) == 2_000_000
    assert digest == recorded_sha256(Store(tmp_path).get_or_make(PARTS, ".bin", Maker()))


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("SCARLET_BENCH_STORE", str(tmp_path / "a"))
    assert Store().root == default_root() == tmp_path / "a"
    monkeypatch.delenv("SCARLET_BENCH_STORE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert default_root() == tmp_path / "b" / "scarlet-bench"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_root() == tmp_path / ".cache" / "scarlet-bench"


def _pair(path):
    path.write_bytes(b"main")
    path.with_suffix(".bin").write_bytes(b"weights")


def test_an_artefact_of_several_files(tmp_path):
    path = Store(tmp_path).get_or_make(PARTS, ".xml", _pair, [".bin"])
    assert path.with_suffix(".bin").read_bytes() == b"weights"
    assert files(tmp_path) == sorted([path.name, path.with_suffix(".bin").name, path.name + ".json"])
    assert json.loads(sidecar_of(path).read_text())["companions"][".bin"]["bytes"] == 7
    assert Store(tmp_path).get_or_make(PARTS, ".xml", None, [".bin"]) == path


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"weighty")])
def test_a_damaged_companion_has_the_artefact_made_again(tmp_path, damage):
    path = Store(tmp_path).get_or_make(PARTS, ".xml", _pair, [".bin"])
    damage(path.with_suffix(".bin"))
    Store(tmp_path).get_or_make(PARTS, ".xml", _pair, [".bin"])
    assert path.with_suffix(".bin").read_bytes() == b"weights"


def test_a_missing_companion_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        Store(tmp_path).get_or_make(PARTS, ".xml", lambda path: path.write_bytes(b"main"), [".bin"])
    assert files(tmp_path) == []
    _ = Store(tmp_path).get_or_make(PARTS, ".xml", _pair, [".bin"])
