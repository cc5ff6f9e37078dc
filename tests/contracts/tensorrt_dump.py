"""Prints the whole surface of TensorRT's Python bindings as JSON: run by a Python that can import them."""

import inspect
import json
import sys
from typing import Any


def member(owner: type, name: str, classes: dict[str, Any], path: str) -> dict[str, Any]:
    raw = inspect.getattr_static(owner, name)
    if isinstance(raw, property):
        docs = [getattr(raw.fget, "__doc__", None), raw.__doc__]
        return {"kind": "property", "doc": "\n".join(filter(None, docs)), "settable": raw.fset is not None}
    value = getattr(owner, name)
    if inspect.isclass(value):
        nested = f"{path}.{name}"
        describe(value, nested, classes)
        return {"kind": "class", "class": nested}
    if callable(value):
        return {"kind": "method", "doc": value.__doc__ or ""}
    return {"kind": "value", "type": type(value).__qualname__}


def describe(of: type, path: str, classes: dict[str, Any]) -> None:
    if path in classes:
        return
    classes[path] = {}
    names = [name for name in dir(of) if not name.startswith("__") or name == "__init__"]
    classes[path] = {name: member(of, name, classes, path) for name in names}


def dump(module: Any) -> dict[str, Any]:
    names: dict[str, Any] = {"__version__": {"kind": "value", "type": "str"}}
    classes: dict[str, Any] = {}
    for name in dir(module):
        if name.startswith("_"):
            continue
        value = getattr(module, name)
        if inspect.ismodule(value):
            continue
        if inspect.isclass(value):
            describe(value, name, classes)
            names[name] = {"kind": "class", "class": name}
        elif callable(value):
            names[name] = {"kind": "method", "doc": value.__doc__ or ""}
        else:
            names[name] = {"kind": "value", "type": type(value).__qualname__}
    return {"version": module.__version__, "names": names, "classes": classes}


if __name__ == "__main__":
    import importlib

    json.dump(dump(importlib.import_module(sys.argv[1])), sys.stdout)
