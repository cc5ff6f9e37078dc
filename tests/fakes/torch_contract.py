"""What our source uses of torch.cuda, found by walking it, against the installed PyTorch (a CPU build will do)."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

# What the calls of these parts of PyTorch must be: of the rest much is defined in C++ and has no signature.
CHECKED = ("torch.cuda", "torch.backends", "torch.version")

# Objects of torch.cuda by the names that our source gives them.
OBJECTS = {
    "stream": "Stream",
    "_stream": "Stream",
    "event": "Event",
    "_events": "Event",
    "graph": "CUDAGraph",
    "captured": "CUDAGraph",
    "properties": "_CudaDeviceProperties",
}
# A source that never says this has no such object: others may bear the name there.
SAID = {
    "Stream": "torch.cuda.Stream",
    "Event": "torch.cuda.Event",
    "CUDAGraph": "torch.cuda.CUDAGraph",
    "_CudaDeviceProperties": "torch.cuda.get_device_properties",
}
# Attributes of objects of ours that bear such a name.
OURS = {"captured": {"graph", "logits"}, "_events": {"append"}, "graph": {"path", "sha256", "facts", "input"}}


def faults(text: str) -> list[str]:
    """What a source uses that PyTorch does not have, each with its line."""
    tree = ast.parse(text)
    kinds = {kind for kind, said in SAID.items() if said in uses(text)}
    return list(_faults(tree, kinds))


def uses(text: str) -> set[str]:
    """Every dotted name under ``CHECKED`` that a source uses."""
    return {name for node in ast.walk(ast.parse(text)) if (name := _dotted(node)).startswith(CHECKED)}


def _faults(tree: ast.AST, kinds: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        name = _dotted(node)
        if name.startswith(CHECKED) and not _exists(name):
            yield f"line {node.lineno}: there is no {name}"  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            called = _dotted(node.func)
            if called.startswith("torch.cuda") and _exists(called):
                yield from (f"line {node.lineno}: {called} {what}" for what in _call_fault(called, node))
        if isinstance(node, ast.Attribute):
            kind = OBJECTS.get(_last_name(node.value), "")
            if (
                kind in kinds
                and node.attr not in OURS.get(_last_name(node.value), ())
                and node.attr not in _members(kind)
            ):
                yield f"line {node.lineno}: {kind} has no {node.attr}"


def _dotted(node: ast.AST) -> str:
    """``torch.cuda.Stream`` of the node that says so; empty for any other."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *parts[::-1]]) if isinstance(node, ast.Name) and node.id == "torch" else ""


def _last_name(node: ast.AST) -> str:
    """The last name of what an attribute is taken of: ``_events`` of ``self._events[0]``."""
    while isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@cache
def _object(name: str) -> Any:
    """What a dotted name means.

    Raises:
        AttributeError, ImportError: nothing.
    """
    found: Any = torch
    path = "torch"
    for part in name.split(".")[1:]:
        path = f"{path}.{part}"
        try:
            found = getattr(found, part)
        except AttributeError:
            found = importlib.import_module(path)
    return found


def _exists(name: str) -> bool:
    try:
        _object(name)
    except (AttributeError, ImportError):
        return False
    return True


def _call_fault(name: str, call: ast.Call) -> Iterator[str]:
    """What is wrong with the arguments of a call, by the function's signature."""
    function = _object(name)
    # The classes of torch.cuda take their arguments in __new__ where they wrap a class of C++.
    if inspect.isclass(function):
        own = next((made for made in ("__new__", "__init__") if made in vars(function)), "__init__")
        parameters = list(inspect.signature(getattr(function, own)).parameters.values())[1:]
    else:
        parameters = list(inspect.signature(function).parameters.values())
    names = {parameter.name for parameter in parameters}
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        yield from (f"has no keyword {word.arg}" for word in call.keywords if word.arg and word.arg not in names)
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(call.args) > len(placed) and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        yield f"takes {len(placed)} arguments, not {len(call.args)}"


@cache
def _members(kind: str) -> frozenset[str]:
    """Names of a class of torch.cuda: of its Python part, and of the C++ part by PyTorch's own type stubs."""
    names = set(dir(getattr(torch.cuda, kind))) if hasattr(torch.cuda, kind) else set()
    stubs = ast.parse((Path(torch.__file__).parent / "_C" / "__init__.pyi").read_text(encoding="utf-8"))
    of = {"Stream": "_CudaStreamBase", "Event": "_CudaEventBase", "CUDAGraph": "_CUDAGraph"}.get(kind, kind)
    for node in stubs.body:
        if isinstance(node, ast.ClassDef) and node.name in (of, "Stream" if kind == "Stream" else of):
            names |= {
                part.target.id
                for part in node.body
                if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
            }
            names |= {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    return frozenset(names)
