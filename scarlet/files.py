"""Reads files that people give as data: only regular ones, only so much of each, and YAML without its traps."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import stat
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from scarlet.errors import BenchError, error_text

# Lists of labels are the longest text that is read; a plan, a recipe or tolerances are a page or two.
TEXT_BYTES_MAX, YAML_BYTES_MAX = 16 * 2**20, 128 * 2**10
# A run's rows list each image that could not be read.
RUN_BYTES_MAX = 2**30
YAML_DEPTH_MAX = 16
# Of a number, a date or another value that is no text.
SIGNS_MAX = 64

_TEXT_TAG = "tag:yaml.org,2002:str"


def read_bytes(path: Path, bytes_max: int) -> bytes:
    """The contents of a regular file; a link is followed to one. Never waits, as a FIFO would make a reader.

    Raises:
        OSError: it cannot be opened, is no regular file, or is longer than ``bytes_max``.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ENXIO, "not a regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(min(found.st_size or bytes_max, bytes_max) + 1)
    finally:
        os.close(descriptor)
    if len(data) > bytes_max:
        raise OSError(errno.EFBIG, f"more than {bytes_max >> 10:,} KiB", str(path))
    return data


def sync(path: Path) -> None:
    """Has a file's contents, or a folder's names, on disk when it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: Path) -> str:
    """Hex digest of a file's bytes, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def read_text(path: Path, bytes_max: int = TEXT_BYTES_MAX) -> str:
    """As ``read_bytes``, of UTF-8 with or without its mark at the beginning.

    Raises:
        OSError: as ``read_bytes``; also where it is no such text.
    """
    try:
        return read_bytes(path, bytes_max).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, "it is not UTF-8 text", str(path)) from error


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        OSError: as ``read_text``.
        ValueError: it is no JSON, or nested deeper than Python follows.
    """
    try:
        return json.loads(read_text(path, RUN_BYTES_MAX))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


HEAD_BYTES = 512


def kind_of(head: bytes) -> tuple[str, str] | None:
    """What a file is that is taken for a model's, and what to do; None for none of what comes in place of one.

    Args:
        head: its first ``HEAD_BYTES``.
    """
    again = "Download it again by its direct address"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself", "Fetch it: git lfs pull."
    if re.match(rb"\s*<(!doctype|html|\?xml)", head, re.IGNORECASE):
        return "a web page", f"{again}, signed in where that is needed."
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "a packed file (gzip or the like)", "Unpack it, and name what was in it."
    if head[257:262] == b"ustar":
        return "a tar archive", "Unpack it, and name the checkpoint that was in it."
    return None if head else ("empty", f"{again}.")


def file_of(checkpoint: str) -> tuple[Path, str]:
    """The file of a checkpoint as a user names it, and which of its weights: ``FILE`` or ``FILE#state_dict_ema``."""
    name, hash_, key = checkpoint.rpartition("#")
    return (Path(name), key) if hash_ and not Path(checkpoint).exists() else (Path(checkpoint), "")


def read_yaml(path: Path, kind: str, do: str, example: str) -> dict[Any, Any]:
    """The mapping that a YAML file holds: no code, no aliases, no key twice, nothing deep or endless.

    Args:
        kind: what it is to be, for errors: ``the plan``.
        do: what to do where it cannot be read.
        example: a line of such a file.

    Raises:
        BenchError: it cannot be read, or holds something else.
    """
    try:
        data = yaml.load(read_text(path, YAML_BYTES_MAX), Loader=_Careful)
    except OSError as error:
        raise BenchError(f"{kind} {path} cannot be read: {error.strerror}", do) from None
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        # All but the first come from values that are not what their tag says, such as a 13th month.
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error_text(error)
        what = f"{path}{where}: {problem}"
        raise BenchError(what, f"Mend the YAML: a key and a value a line, such as {example}.") from None
    if not isinstance(data, dict):
        what = f"{path} holds {'nothing' if data is None else 'no mapping of keys to values'}"
        raise BenchError(what, f"Write for example: {example}.")
    return data


class _Careful(yaml.SafeLoader):
    """The safe loader, which runs no code, without what makes much of little; a key given twice is a mistake."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise self._refused("aliases are not read: write the value again")
        if self.depth == YAML_DEPTH_MAX:
            raise self._refused(f"more than {YAML_DEPTH_MAX} levels")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refused(self, problem: str) -> Exception:
        return _refused(problem, self.peek_event())  # type: ignore[no-untyped-call, unused-ignore]

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if node.tag != _TEXT_TAG and len(value) > SIGNS_MAX:
            raise _refused(f"a value of {len(value):,} signs that is no text", node)
        if "\0" in value:
            raise _refused("a text with a zero byte", node)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):
                if key in seen:
                    raise _refused(f"the key '{key}' is given twice", key_node)
                seen.add(key)
        return super().construct_mapping(node, deep)


def _refused(problem: str, at: Any) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, at.start_mark)
