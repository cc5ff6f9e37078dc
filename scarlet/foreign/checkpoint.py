"""Reads checkpoints without running code from them, and says clearly what is wrong with a bad one."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scarlet.errors import BenchError, shown
from scarlet.files import HEAD_BYTES, file_of, kind_of
from scarlet.networks import BLOCK_TABLES, scarlet

StateDict = dict[str, Tensor]

_SHOWN, _SIGNS = 3, 200  # keys named in an error, of each sort, and of each key
_COPIES_MAX = 4
_COUNTERS = ("total_ops", "total_params")  # of thop, in every layer that it looked at
_AVERAGES = frozenset({"ema", "teacher", "swa", "averaged"})
# Whole numbers are counters and the like; whether they stand where weights belong, the network tells.
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, *_WHOLE)
_REFUSED = re.compile(r"GLOBAL (\S+)")  # in the message of torch.load
_PROTOCOL_MAX = 3
_LEVELS_MAX = 10_000
_MOST = 0.9  # of the tensors of the best fit, that others must hold to be named


def load_into(module: nn.Module, path: str | Path, model: str) -> tuple[str, ...]:
    """Loads a checkpoint file into a network: every key, every shape, nothing left over.

    Pickles are read with ``weights_only=True``: nothing in the file is executed. What ``torch.save`` writes has a
    checksum of each tensor, which is compared; older files and ``.safetensors`` have none.

    The weights are found by their names, whatever stands before them: ``{"model_state": ...}`` (the published SCARLET
    checkpoints), ``{"state_dict": ...}``, ``model.``, ``module.``, ``_orig_mod.``. Those of an average over training
    (EMA) are taken where they are chosen, as ``FILE#state_dict_ema``, or there are no others.

    Args:
        module: the network; its tensors are overwritten (values are converted to its dtypes).

    Returns:
        sentences on what was taken where there was a choice, and on what was left out.

    Raises:
        BenchError: the file is missing, is not a checkpoint, is cut off, changed since it was written, holds code,
            values that are not finite or no weights (sparse, complex, without contents), or another architecture's.
    """
    path, key = file_of(str(path))
    levels, expected = _levels(path), module.state_dict()
    fits = _fits(levels, expected)
    chosen = [fit for fit in fits if f"{fit[0]}{fit[1]}.".startswith(f"{key.rstrip('.')}.")] if key else fits
    names = [f"{level}{prefix}".rstrip(".") for level, prefix in fits]
    if key and not chosen:
        raise BenchError(
            f"checkpoint '{path}' has no weights of {model} under '{key}'",
            f"Choose from: {', '.join(names) or 'none'}.",
        )
    level, prefix = chosen[0] if chosen else (max(levels, key=lambda level: len(levels[level])), "")
    state = {name[len(prefix) :]: tensor for name, tensor in levels[level].items() if name.startswith(prefix)}
    counters = [name for name in state if name.rpartition(".")[2] in _COUNTERS and name not in expected]
    state = _weights(path, {name: tensor for name, tensor in state.items() if name not in counters})
    # Training alone uses it, and files of other frameworks lack it.
    state |= {name: own for name, own in expected.items() if name.endswith("num_batches_tracked") and name not in state}
    mismatch = describe_mismatch(expected, state)
    if mismatch:
        raise BenchError(f"checkpoint '{path}' does not fit {model}: {mismatch}", _advice(levels, model))
    module.load_state_dict(state, strict=True)
    notes = [f"{len(counters)} keys that profilers left were not used: {_first(counters)}"] if counters else []
    if len(names) > 1 or _is_average(names[0]):
        others = [name or "the top" for name in names if name != f"{level}{prefix}".rstrip(".")]
        more = f", not those under {', '.join(others)} (--checkpoint FILE#{others[0]} takes them)" if others else ""
        notes.append(f"weights are those under {f'{level}{prefix}'.rstrip('.') or 'the top'}{more}")
    return tuple(notes)


def _fits(levels: Mapping[str, StateDict], expected: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Levels with a prefix under which the network's tensors are; those first that hold most, averages after others."""
    counts: dict[tuple[str, str], int] = {}
    for level, tensors in levels.items():
        for name, tensor in tensors.items():
            parts = name.split(".")
            for place in range(len(parts)):
                rest = expected.get(".".join(parts[place:]))
                if rest is not None and rest.shape == tensor.shape:
                    where = (level, "".join(f"{part}." for part in parts[:place]))
                    counts[where] = counts.get(where, 0) + 1
    best = sorted(counts, key=lambda where: (-counts[where], _is_average("".join(where))))
    return [where for where in best if counts[where] >= _MOST * counts[best[0]]]


def _is_average(name: str) -> bool:
    return not _AVERAGES.isdisjoint(re.split(r"[._]", name.lower()))


def describe_mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Which keys differ, in words: counts and the first few of each sort. Empty where all fit."""
    both = [(key, found[key], tensor) for key, tensor in expected.items() if key in found]
    sorts = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "of another shape": [
            f"{key} is {_shape(its)} instead of {_shape(own)}" for key, its, own in both if its.shape != own.shape
        ],
        "of another type": [
            f"{key} is {_type(its)} instead of {_type(own)}"
            for key, its, own in both
            if its.is_floating_point() != own.is_floating_point()
        ],
    }
    return "; ".join(f"{len(keys)} {sort} ({_first(keys)})" for sort, keys in sorts.items() if keys)


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """A digest of names, dtypes, shapes and values: the same for every file format and order of keys."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        header = json.dumps([name, str(tensor.dtype), list(tensor.shape)])
        digest.update(len(header).to_bytes(8, "little") + header.encode())
        # As bytes, because NumPy has no bfloat16; flat, because a scalar cannot be viewed as bytes.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _levels(path: Path) -> dict[str, StateDict]:
    """The tensors of each mapping in a file, by what leads to it: ``""``, ``state_dict.``, ``model.module.``."""
    if not path.is_file():
        raise BenchError(
            f"checkpoint '{path}' is not a file" if path.exists() else f"checkpoint '{path}' does not exist",
            "Check the path, or leave the checkpoint out to use weights that need no file.",
        )
    loaded = _read(path)
    levels: dict[str, StateDict] = {}
    todo = [("", loaded)]
    for level, mapping in todo:  # grows while it is gone through
        if not isinstance(mapping, Mapping) or len(todo) > _LEVELS_MAX:
            continue
        named = {key: value for key, value in mapping.items() if isinstance(key, str)}
        if tensors := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
            levels[level] = tensors
        todo += [(f"{level}{key}.", value) for key, value in named.items() if isinstance(value, Mapping)]
    if levels:
        return levels
    found = type(loaded).__name__
    if isinstance(loaded, Mapping):
        # A key may be anything, also a tuple that would fill memory as text.
        keys = [key if isinstance(key, str) else type(key).__name__ for key in loaded]
        found = f"a dict with {_first(keys)}" if keys else "an empty dict"
    what = f"checkpoint '{path}' holds no state dict: found {found}"
    raise BenchError(what, "Expected tensors by name, alone or under a key such as 'state_dict'.")


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        if kind := kind_of(head):
            raise BenchError(f"checkpoint '{path}' is {kind[0]}", kind[1])
        if head[8:9] == b"{":  # after the length of its header
            from safetensors.torch import load_file

            return load_file(path)
        _check_archive(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_harmless()):
            warnings.simplefilter("ignore")  # of pickle protocols: what matters of them is in our error
            return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, BenchError):
        raise
    except PermissionError as error:
        raise BenchError(f"checkpoint '{path}' may not be read", "Give yourself the right to read it.") from error
    except Exception as error:  # a damaged pickle can raise anything; each of them means the same to the user
        refused, protocol = _REFUSED.search(str(error)), _protocol(path)
        if refused is None and protocol <= _PROTOCOL_MAX:
            raise BenchError(
                f"checkpoint '{path}' cannot be read: it is cut off, or is not a checkpoint",
                "Download or copy it again, and compare its size with the original's.",
            ) from error
        what = (
            f"it holds more than tensors ({refused[1]}), which could run code"
            if refused
            else f"it is a pickle of protocol {protocol}, and PyTorch reads up to {_PROTOCOL_MAX} without running code"
        )
        raise BenchError(
            f"checkpoint '{path}' was refused: {what}",
            "If you trust it, save its state dict alone: torch.save(model.state_dict(), file).",
        ) from error


def _harmless() -> list[Any]:
    """What stands beside weights and runs nothing: NumPy's numbers, such as the best accuracy, and arguments."""
    made_by = (getattr(np, "_core", None) or np.core).multiarray
    names = itertools.product(("core", "_core"), ("scalar", "_reconstruct"))
    makers = [(getattr(made_by, maker), f"numpy.{name}.multiarray.{maker}") for name, maker in names]
    return [*makers, np.ndarray, np.dtype, *{type(np.dtype(code)) for code in "?bhilqBHILQefd"}, argparse.Namespace]


def _check_archive(path: Path) -> None:
    """Compares the checksums of a zip's entries, which PyTorch does not, and refuses packed ones, which it unpacks."""
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.filename.endswith(("/constants.pkl", "/models/model.json")) for entry in entries):
                what = f"checkpoint '{path}' is a whole program (TorchScript or exported), not a checkpoint"
                raise BenchError(what, f"Name it as the model: --model torch:{path.name}.")
            size = sum(entry.file_size for entry in entries)
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
            if packed or size > path.stat().st_size:
                raise BenchError(
                    f"checkpoint '{path}' was refused: it is a packed archive, of {size:,} bytes once unpacked",
                    "Save it by torch.save, which packs nothing.",
                )
            if damaged := archive.testzip():
                raise BenchError(
                    f"checkpoint '{path}' changed since it was written: the checksum of {shown(damaged)} does not hold",
                    "Download or copy it again.",
                )


def _protocol(path: Path) -> int:
    """Of the file's pickle: torch.load stops at newer ones before it looks at anything else."""
    data = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            data = next((archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")), b"")
    return data[1] if data[:1] == pickle.PROTO and len(data) > 1 else 0


def _weights(path: Path, tensors: Mapping[str, Tensor]) -> StateDict:
    for key, tensor in tensors.items():
        plain = tensor.layout is torch.strided and not tensor.is_meta and tensor.dtype in _DTYPES
        if not plain:
            kind = " ".join(str(part).removeprefix("torch.") for part in (tensor.layout, tensor.dtype, tensor.device))
            raise BenchError(
                f"checkpoint '{path}' holds no weights under {shown(key)}: found {kind}",
                "Save the network's state dict on the CPU, in ordinary floating point.",
            )
    # A small storage can be expanded to any shape; weights that two layers share count twice.
    if sum(tensor.nbytes for tensor in tensors.values()) > _COPIES_MAX * path.stat().st_size:
        raise BenchError(
            f"checkpoint '{path}' was refused: its tensors are far larger than the file",
            "Save the network's state dict: torch.save(model.state_dict(), file).",
        )
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BenchError(
                f"checkpoint '{path}' holds values that are not finite (first in {key})",
                "Use a checkpoint from a training run that did not diverge.",
            )
    return dict(tensors)


def _advice(levels: Mapping[str, StateDict], model: str) -> str:
    for name in BLOCK_TABLES:
        with torch.device("meta"):
            expected = scarlet(name).state_dict()
        for level, prefix in _fits(levels, expected)[:1]:
            state = {key.removeprefix(prefix): tensor for key, tensor in levels[level].items()}
            if not describe_mismatch(expected, state):
                return f"It fits {name}: name that model instead."
    return f"Pass a checkpoint of {model}, or none."


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _first(items: Iterable[str]) -> str:
    items = list(items)
    return ", ".join(item[:_SIGNS] for item in items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
