"""Writing files so that a crash or a full disk never leaves half of one under its name."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

from scarlet.errors import BenchError

_NO_SPACE = "Free some space and go on with --resume, or name another --out."
_NO_ACCESS = "Name another --out, or make the folder writable."
_DISK_ERRORS = {
    errno.ENOSPC: ("the disk is full", _NO_SPACE),
    errno.EDQUOT: ("the disk quota is used up", _NO_SPACE),
    errno.EFBIG: ("the file may not grow any larger", _NO_SPACE),
    errno.EACCES: ("permission denied", _NO_ACCESS),
    errno.EPERM: ("operation not permitted", _NO_ACCESS),
    errno.EROFS: ("the file system is read-only", _NO_ACCESS),
    errno.ENOTDIR: ("a part of the path is a file", _NO_ACCESS),
    errno.EEXIST: ("a file of that name is in the way", _NO_ACCESS),
    errno.EISDIR: ("a folder of that name is in the way", _NO_ACCESS),
    errno.ENAMETOOLONG: ("the name is too long", _NO_ACCESS),
}


class DamagedRunWarning(UserWarning):
    """Something in a run's folder could not be read and was left out."""


def warn_damaged(message: str) -> None:
    """Tells the reader that something was left out."""
    warnings.warn(message, DamagedRunWarning, stacklevel=3)


def plain(value: Any) -> Any:
    """The value in JSON types: dataclasses, enums, paths and numpy scalars unpacked, no NaN or infinity."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def file_name(model: str) -> str:
    """A model's name as that of a file: ``onnx:some/folder/net.onnx`` becomes ``net.onnx``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", re.split(r"[:/\\]", model)[-1]).strip("._") or "model"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turns the system's refusal to write into a ``BenchError`` that names the file."""
    try:
        yield
    except OSError as error:
        known = _DISK_ERRORS.get(error.errno or 0)
        if known is None:
            raise
        raise BenchError(f"cannot write {path}: {known[0]}", known[1]) from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under its name only once it is complete and on disk; after an error, not at all.

    Raises:
        BenchError: the disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> None:
    """Writes a text file, UTF-8, in one step; what UTF-8 cannot hold is escaped."""
    with atomic_file(path) as stream:
        stream.write(encodable(text).encode())


def encodable(text: str) -> str:
    """The text with what UTF-8 cannot hold escaped (names of files need not be valid)."""
    return text.encode("utf-8", "backslashreplace").decode()
