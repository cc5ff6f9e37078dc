"""Writing files so that a crash or a full disk never leaves half of one under its name."""

from __future__ import annotations

import contextlib
import math
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from enum import Enum
from pathlib import Path
from typing import IO, Any

from scarlet.errors import refusal, visible
from scarlet.files import sync


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
def disk_errors(path: Path, doing: str = "write") -> Iterator[None]:
    """Turns the system's refusal of a file into a ``MachineError`` that names it."""
    try:
        yield
    except OSError as error:
        raise (refusal(error, f"cannot {doing} {path}") or error) from error


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
            sync(path.parent)  # so that no later file is there without this one
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def fits(value: Any, shape: Any, name: str = "it") -> None:
    """Makes sure that data have the types that readers count on.

    Args:
        shape: a type; a dictionary of shapes, of the items that must fit where they are there; a list of one shape, of
            all items; or a pair of a shape and None, where the value may be null.

    Raises:
        TypeError: they have not.
    """
    if isinstance(shape, tuple):
        if value is None:
            return
        shape = shape[0]
    kind: type = shape if isinstance(shape, type) else type(shape)
    found = type(value).__name__
    if found != kind.__name__:
        raise TypeError(f"'{name}' is {found}, not {kind.__name__}")
    if isinstance(shape, dict):
        for key in shape.keys() & value.keys():
            fits(value[key], shape[key], key)
    elif isinstance(shape, list):
        for item in value:
            fits(item, shape[0], name)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, UTF-8, in one step, with nothing in it that is not ``visible``."""
    with atomic_file(path) as stream:
        stream.write(visible(text).encode())


def encodable(text: str) -> str:
    """The text with what UTF-8 cannot hold escaped (names of files need not be valid)."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
