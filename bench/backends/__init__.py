"""Every backend by name. A new one is one file in this folder and one line here."""

from __future__ import annotations

import importlib

from bench.backends.base import Backend
from models.errors import unknown_name

REGISTRY: dict[str, str] = {
    "pytorch": "bench.backends.pytorch:PyTorch",
    "onnxruntime": "bench.backends.onnxruntime:OnnxRuntime",
    "fake": "bench.backends.fake:Fake",
}

# What `run` compares when --backends is not given: the real ones.
DEFAULT = tuple(name for name in REGISTRY if name != "fake")


def make_backend(name: str) -> Backend:
    """A new, unloaded backend; only now is its module imported.

    Raises:
        BenchError: no backend has this name.
    """
    if name not in REGISTRY:
        raise unknown_name("backend", name, REGISTRY)
    module, _, attribute = REGISTRY[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend
