"""Reads checkpoints without running code from them, and says clearly what is wrong with a bad one."""

from __future__ import annotations

import hashlib
import json
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scarlet.errors import BenchError, shown
from scarlet.networks import BLOCK_TABLES, scarlet

StateDict = dict[str, Tensor]

_WRAPPERS = ("model_state", "state_dict")
_SHOWN, _SIGNS = 3, 200  # keys named in an error, of each sort, and of each key
_COPIES_MAX = 4
# Whole numbers are counters and the like; whether they stand where weights belong, the network tells.
_WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64, *_WHOLE)
_REFUSED = re.compile(r"GLOBAL (\S+)")  # in the message of torch.load
_TENSOR_MODULES = ("torch", "collections")


def load_state(path: str | Path) -> StateDict:
    """The tensors of a checkpoint file, on the CPU.

    Reads ``{"model_state": ...}`` (the layout of the published SCARLET checkpoints), ``{"state_dict": ...}``,
    a plain state dict, and ``.safetensors``. The prefix ``module.`` of ``nn.DataParallel`` is taken off.
    Pickles are read with ``weights_only=True``: nothing in the file is executed. What ``torch.save`` writes has a
    checksum of each tensor, which is compared; older files and ``.safetensors`` have none.

    Raises:
        BenchError: the file is missing, is not a checkpoint, is cut off, changed since it was written, holds code, or
            holds values that are not finite or no weights (sparse, complex, without contents).
    """
    path = Path(path)
    if not path.is_file():
        raise BenchError(
            f"checkpoint '{path}' is not a file" if path.exists() else f"checkpoint '{path}' does not exist",
            "Check the path, or leave the checkpoint out to use weights that need no file.",
        )
    state = _state_of(path, _read(path))
    prefix = "module."
    if all(key.startswith(prefix) for key in state):
        state = {key[len(prefix) :]: tensor for key, tensor in state.items()}
    for key, tensor in state.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BenchError(
                f"checkpoint '{path}' holds values that are not finite (first in {key})",
                "Use a checkpoint from a training run that did not diverge.",
            )
    return state


def load_into(module: nn.Module, path: str | Path, model: str) -> None:
    """Loads a checkpoint file into a network: every key, every shape, nothing left over.

    Args:
        module: the network; its tensors are overwritten (values are converted to its dtypes).

    Raises:
        BenchError: as ``load_state``, or the checkpoint belongs to another architecture.
    """
    state = load_state(path)
    mismatch = describe_mismatch(module.state_dict(), state)
    if mismatch:
        raise BenchError(f"checkpoint '{path}' does not fit {model}: {mismatch}", _advice(state, model))
    module.load_state_dict(state, strict=True)


def describe_mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str:
    """Which keys differ, in words: counts and the first few of each sort. Empty where all fit."""
    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    other_shape = [
        f"{key} is {_shape(found[key])} instead of {_shape(tensor)}"
        for key, tensor in expected.items()
        if key in found and found[key].shape != tensor.shape
    ]
    other_type = [
        f"{key} is {_type(found[key])} instead of {_type(tensor)}"
        for key, tensor in expected.items()
        if key in found and found[key].is_floating_point() != tensor.is_floating_point()
    ]
    sorts = (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", other_shape),
        ("of another type", other_type),
    )
    return "; ".join(f"{len(keys)} {sort} ({_first(keys)})" for sort, keys in sorts if keys)


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


def _read(path: Path) -> Any:
    is_pickle = path.suffix.lower() != ".safetensors"
    try:
        if not is_pickle:
            from safetensors.torch import load_file

            return load_file(path)
        _check_archive(path)
        with warnings.catch_warnings():  # of pickle protocols: what matters of them is in our error
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, BenchError):
        raise
    except PermissionError as error:
        raise BenchError(f"checkpoint '{path}' may not be read", "Give yourself the right to read it.") from error
    except Exception as error:  # a damaged pickle can raise anything; each of them means the same to the user
        refused = _refused_global(path, str(error)) if is_pickle else None
        if refused is None:
            raise BenchError(
                f"checkpoint '{path}' cannot be read: it is cut off, or is not a checkpoint",
                "Download or copy it again, and compare its size with the original's.",
            ) from error
        raise BenchError(
            f"checkpoint '{path}' was refused: it holds more than tensors ({refused}), which could run code",
            "If you trust it, save its state dict alone: torch.save(model.state_dict(), file).",
        ) from error


def _check_archive(path: Path) -> None:
    """Compares the checksums of a zip's entries, which PyTorch does not, and refuses packed ones, which it unpacks.

    Raises:
        BenchError: they do not hold, or there are such.
        Exception: what ``zipfile`` raises for a damaged file.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
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


def _refused_global(path: Path, message: str) -> str | None:
    """The first name in the file that is not part of plain tensors, or ``None``. Nothing is executed."""
    found = _REFUSED.search(message)
    if found:
        return found.group(1)
    # torch.load stops at newer pickle protocols before it looks at names, so look at the opcodes ourselves.
    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(path.read_bytes()):
            if opcode.name in ("GLOBAL", "INST"):
                texts = str(argument).split(" ")
            elif isinstance(argument, str):
                texts.append(argument)
            named = opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL") and len(texts) >= 2
            if named and not texts[-2].startswith(_TENSOR_MODULES):
                return ".".join(texts[-2:])
    except ValueError:  # not a pickle, or cut off: what pickletools says of any damage
        return None
    return None


def _state_of(path: Path, loaded: Any) -> StateDict:
    found = type(loaded).__name__
    if isinstance(loaded, Mapping):
        # A key may be anything, also a tuple that would fill memory as text.
        keys = [key if isinstance(key, str) else type(key).__name__ for key in loaded]
        found = f"a dict with {_first(keys)}" if keys else "an empty dict"
        inner = next((loaded[wrapper] for wrapper in _WRAPPERS if wrapper in loaded), loaded)
        if (
            isinstance(inner, Mapping)
            and inner
            and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in inner.items())
        ):
            return _weights(path, inner)
    raise BenchError(
        f"checkpoint '{path}' holds no state dict: found {found}",
        f"Expected tensors by name, alone or under {' or '.join(map(repr, _WRAPPERS))}.",
    )


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
    return dict(tensors)


def _advice(state: StateDict, model: str) -> str:
    for name in BLOCK_TABLES:
        with torch.device("meta"):
            fits = not describe_mismatch(scarlet(name).state_dict(), state)
        if fits:
            return f"It fits {name}: name that model instead."
    return f"Pass a checkpoint of {model}, or none."


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"


def _type(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _first(items: Iterable[str]) -> str:
    items = list(items)
    return ", ".join(item[:_SIGNS] for item in items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")
