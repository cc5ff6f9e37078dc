"""Every backend by name. A new one is one file in this folder and one line here."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection, Mapping
from typing import Any

from bench.backends.base import HARNESS_OPTIONS, Backend, options_fault
from scarlet.errors import BenchError, unknown_name

REGISTRY: dict[str, str] = {
    "pytorch": "bench.backends.pytorch.backend:PyTorch",
    "onnxruntime": "bench.backends.onnxruntime.backend:OnnxRuntime",
    "openvino": "bench.backends.openvino.backend:OpenVino",
    "tensorrt": "bench.backends.tensorrt.backend:TensorRt",
    "fake": "bench.backends.fake:Fake",
}

# Backends that run on these devices only.
DEVICES_OF: dict[str, tuple[str, ...]] = {"openvino": ("cpu",), "tensorrt": ("cuda",)}

# What `run` compares when --backends is not given, with OpenVINO where it is installed (beside a GPU it is not).
DEFAULT = ("pytorch", "onnxruntime")


def default_names(devices: Collection[str] = ("cpu",)) -> tuple[str, ...]:
    """What `run` compares on these devices when --backends is not given.

    On a GPU TensorRT is among them, installed or not: where it is missing, its rows say how to get it.
    """
    of_gpu = ("tensorrt",) if "cuda" in devices else ()
    of_cpu = ("openvino",) if "cpu" in devices and importlib.util.find_spec("openvino") else ()
    return (*DEFAULT, *of_cpu, *of_gpu)


def runs_nowhere(name: str, device: str) -> bool:
    """Whether a backend has no such device at all: a pair that nobody asked for by name need not be a row."""
    return device not in DEVICES_OF.get(name, (device,))


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


def option_values(name: str, option: str, text: str) -> tuple[str, ...]:
    """The values that a text gives to one option of a backend.

    A comma parts values, save in options that take any text (a file's name may hold one). An empty value, such as the
    first of ``,default``, stands for the option not being given.
    """
    choices = {**HARNESS_OPTIONS, **getattr(_class(name), "OPTIONS", {})}.get(option)
    if choices == "text" or "," not in text:
        return (text,)
    return tuple(part.strip() for part in text.split(","))


def _class(name: str) -> Any:
    if name not in REGISTRY:
        raise unknown_name("backend", name, REGISTRY)
    module, _, attribute = REGISTRY[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
