"""A content-addressed store of artefacts: same inputs, same key, same file; locked; atomic."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock

from scarlet.errors import MachineError, refusal
from scarlet.files import file_sha256, sync

# Suffix of the file that holds an artefact's facts.
FACTS = ".facts.json"
ROOT_VARIABLE = "SCARLET_BENCH_STORE"


def default_root() -> Path:
    """``$SCARLET_BENCH_STORE``, or ``scarlet-bench`` in the user's cache folder (XDG base directories)."""
    chosen = os.environ.get(ROOT_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "scarlet-bench"


def artefact_key(key_parts: Mapping[str, str]) -> str:
    """sha256 of the parts as canonical JSON: the order of the parts does not matter."""
    text = json.dumps(dict(key_parts), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def sidecar_of(path: Path) -> Path:
    """Where an artefact's key parts, size and digest are written."""
    return path.with_name(path.name + ".json")


def recorded_sha256(path: Path) -> str:
    """The digest that the store wrote down for an artefact that ``get_or_make`` returned."""
    return str(json.loads(sidecar_of(path).read_text())["sha256"])


@dataclass(frozen=True)
class Artefact:
    """A file in the store; ``facts``: how it was made and what it holds, as JSON types."""

    path: Path
    sha256: str
    facts: Mapping[str, Any]


class Store:
    """A folder of artefacts. Any number of processes may use it at once.

    An artefact is ``<root>/<2 digits>/<key><suffix>``; beside it lie a sidecar (``.json``) and a lock
    (``.lock``), and its companions where it consists of several files. The sidecar is written last: an artefact
    without a fitting one is made again.
    """

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else default_root()

    def get_or_make(
        self, key_parts: Mapping[str, str], suffix: str, make: Callable[[Path], None], companions: Sequence[str] = ()
    ) -> Path:
        """The artefact's path; it is made first if it is not there, or no longer what it was.

        Args:
            suffix: of the file's name, with its dot.
            make: writes the artefact to the path it is given. Where several processes ask at once, one calls it
                and the others wait.
            companions: suffixes of further files of the artefact. ``make`` writes each to its path with that
                suffix instead (``path.with_suffix(".bin")``), and there they are found beside the artefact.

        Raises:
            BenchError: the folder cannot be written, or the disk is full.
            Exception: what ``make`` raises; nothing is left behind then.
        """
        key = artefact_key(key_parts)
        path = self.root / key[:2] / f"{key}{suffix}"
        try:
            if is_whole(path, companions):  # without the lock, so that a read-only store serves what it has
                return path
            path.parent.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(path.with_name(path.name + ".lock")):
                if not is_whole(path, companions):
                    _make(path, dict(key_parts), make, companions)
        except OSError as error:
            refused = refusal(error, f"the artefact store '{self.root}' cannot be used")
            if refused is None or isinstance(error, FileNotFoundError):  # something that ``make`` looked for
                raise
            where = f" ({error.filename})" if error.filename else ""
            do = f"Free some space, or name another folder with {ROOT_VARIABLE}."
            raise MachineError(f"{refused.what}{where}", do) from error
        return path

    def with_facts(
        self,
        key_parts: Mapping[str, str],
        suffix: str,
        make: Callable[[Path], Mapping[str, Any]],
        companions: Sequence[str] = (),
    ) -> Artefact:
        """As ``get_or_make``, of a file whose maker gives facts (JSON types), which are kept with it."""

        def written(path: Path) -> None:
            facts = json.dumps(make(path), sort_keys=True, indent=1)
            path.with_suffix(FACTS).write_text(facts, encoding="utf-8")

        path = self.get_or_make(key_parts, suffix, written, (FACTS, *companions))
        facts = json.loads(path.with_suffix(FACTS).read_text(encoding="utf-8"))
        return Artefact(path, recorded_sha256(path), facts)


def is_whole(path: Path, companions: Sequence[str] = ()) -> bool:
    """Whether an artefact is there, and is what the store wrote."""
    try:
        recorded: dict[str, Any] = json.loads(sidecar_of(path).read_text())
        beside = recorded.get("companions", {})
        return set(beside) == set(companions) and all(
            file.stat().st_size == noted["bytes"] and file_sha256(file) == noted["sha256"]
            for file, noted in [
                (path, recorded),
                *((path.with_suffix(suffix), noted) for suffix, noted in beside.items()),
            ]
        )
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (ValueError, KeyError, TypeError, AttributeError):  # a damaged sidecar vouches for nothing
        return False


def _make(path: Path, key_parts: dict[str, str], make: Callable[[Path], None], companions: Sequence[str]) -> None:
    # We hold the lock, so any temporary file of this key is from a process that was killed.
    for stale in path.parent.glob(f".{path.name}.*"):
        stale.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}{path.suffix}")
    # Companions first: one that stands alone is replaced, an artefact without them would not be whole.
    files = [(temporary.with_suffix(suffix), path.with_suffix(suffix)) for suffix in companions]
    files.append((temporary, path))
    try:
        make(temporary)
        for made, _ in files:
            sync(made)
        sidecar: dict[str, Any] = {"key_parts": key_parts, **_described(temporary)}
        if companions:
            sidecar["companions"] = {
                suffix: _described(made) for suffix, (made, _) in zip(companions, files, strict=False)
            }
        sidecar_of(path).unlink(missing_ok=True)  # an old sidecar must not stand beside the new artefact
        for made, final in files:
            os.replace(made, final)
    finally:
        for made, _ in files:
            made.unlink(missing_ok=True)
    noted = path.with_name(f".{path.name}.{os.getpid()}.json")
    try:
        noted.write_text(json.dumps(sidecar, sort_keys=True, indent=1))
        sync(noted)
        os.replace(noted, sidecar_of(path))
    finally:
        noted.unlink(missing_ok=True)
    sync(path.parent)


def _described(path: Path) -> dict[str, Any]:
    return {"sha256": file_sha256(path), "bytes": path.stat().st_size}
