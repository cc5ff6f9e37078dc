"""What a demo set's folder says about itself: its marker files and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

MARKER = ".scarlet-demo.json"
UNFINISHED = ".scarlet-demo.unfinished.json"


@dataclass(frozen=True)
class DemoSet:
    """What a demo set's folder holds; also the content of its marker file.

    Attributes:
        revision: of the generator.
        split: ``val``, ``train`` (small pictures), ``tune`` (for training, sizes as in val) or ``calib``.
        seed: which the images were made from.
        images: how many.
        fingerprint: SHA-256 over every file's place and SHA-256, in the order of making; "" while unfinished.
        verdict: ``as published``, ``not published`` (no fingerprint is known for this set) or ``differs``
            (from the published one, and the caller accepted that).
        pillow: version the files were made with.
        numpy: version the files were made with.
    """

    revision: int
    split: str
    seed: int
    images: int
    fingerprint: str
    verdict: str
    pillow: str
    numpy: str


def read_marker(out: Path) -> DemoSet | None:
    """The set that a folder says it holds, or None if it is not a finished demo set."""
    return read_set(out / MARKER)


def fingerprint_of(out: Path, paths: Sequence[str]) -> str:
    """SHA-256 over the lines "path, SHA-256 of the file" of ``paths``, which are relative to ``out``.

    Raises:
        OSError: a file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{path} {hashlib.sha256((out / path).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def read_set(path: Path) -> DemoSet | None:
    """A marker's content; None if the file is missing or is not one of ours."""
    try:
        return DemoSet(**json.loads(path.read_text("utf-8")))
    except (FileNotFoundError, TypeError, ValueError):
        return None


def write_set(path: Path, demo_set: DemoSet) -> None:
    """Writes a marker, whole or not at all."""
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(asdict(demo_set), indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)
