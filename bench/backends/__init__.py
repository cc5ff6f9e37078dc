"""Every backend by name. A new one is one file in this folder and one line here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from typing import Any

from bench.backends.base import Backend, options_fault
from models.errors import BenchError, unknown_name

REGISTRY: dict[str, str] = {
    "pytorch": "bench.backends.pytorch:PyTorch",
    "onnxruntime": "bench.backends.onnxruntime:OnnxRuntime",
    "openvino": "bench.backends.openvino:OpenVino",
    "fake": "bench.backends.fake:Fake",
}

# What `run` compares when --backends is not given, with OpenVINO where it is installed (beside a GPU it is not).
DEFAULT = ("pytorch", "onnxruntime")


def default_names() -> tuple[str, ...]:
    """What `run` compares when --backends is not given."""
    return (*DEFAULT, "openvino") if importlib.util.find_spec("openvino") else DEFAULT


def make_backend(name: str) -> Backend:
    """A new, unloaded backend; only now is its module imported.

    Raises:
        BenchError: no backend has this name.
    """
    backend: Backend = _class(name)()
    return backend


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Checks the options meant for one backend before anything slow begins; its runtime is not imported.

    Raises:
        BenchError: no backend has this name, or it has no such option, or the option does not take this value.
    """
    what, do = options_fault(name, getattr(_class(name), "OPTIONS", {}), options)
    if what:
        raise BenchError(f"--option {what}", do)


def _class(name: str) -> Any:
    if name not in REGISTRY:
        raise unknown_name("backend", name, REGISTRY)
    module, _, attribute = REGISTRY[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
