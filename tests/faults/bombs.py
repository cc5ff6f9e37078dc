"""Checkpoints and YAML that no reader may take: what makes much of little, runs code, or is no weights."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class _Runs:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def _saved(value: Callable[[], Any], **how: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value(), path, **how)


def _packed(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", bytes(50_000_000))


def _flipped(path: Path) -> None:
    torch.save({"a": torch.arange(1000.0)}, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    "code": lambda path: path.write_bytes(pickle.dumps(_Runs())),
    "code in an archive": _saved(lambda: {"a": _Runs()}),
    "a packed archive": _packed,
    "a flipped bit": _flipped,
    "sparse": _saved(lambda: {"a": torch.eye(3).to_sparse()}),
    "meta": _saved(lambda: {"a": torch.empty(3, device="meta")}),
    "complex": _saved(lambda: {"a": torch.ones(3, dtype=torch.complex64)}),
    "an expanded storage": _saved(lambda: {"a": torch.ones(1).expand(10**6, 10**6)}),
    "infinite": _saved(lambda: {"a": torch.tensor([float("inf")])}),
    "a list": _saved(lambda: [torch.ones(3)]),
    "an older form, cut off": lambda path: path.write_bytes(
        pickle.dumps(torch.serialization.MAGIC_NUMBER, protocol=2) + b"\x80"
    ),
    "a FIFO": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path),
    "text": lambda path: path.write_text("no checkpoint"),
    "nothing": Path.touch,
}

YAML = {
    "aliases": "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 40))]),
    "depth": "a: " + "[" * 5000,
    "depth of mappings": "{a: " * 5000,
    "digits": "seed: " + "9" * 5000,
    "base sixty": "seed: " + ":".join(["59"] * 3000),
    "a date that is none": "seed: 2001-13-45",
    "code": "model: !!python/object/apply:os.system [true]",
    "a tag that does not fit": "seed: !!int model",
    "size": "model: " + "x" * 10**6,
    "a zero byte": 'model: "\\0"',
    "a control character": "model: \x1b[2J",
    "twice": "seed: 1\nseed: 2",
    "nothing": "",
}
