"""Every backend by name. A new one is one file in this folder and one line here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Collection, Mapping
from typing import Any

from bench import host
from bench.backends.base import HARNESS_OPTIONS, Backend, Facts, options_fault
from bench.host.machine import PACKAGES
from scarlet.errors import BenchError, unknown_name

REGISTRY: dict[str, str] = {
    "pytorch": "bench.backends.pytorch.backend:PyTorch",
    "onnxruntime": "bench.backends.onnxruntime.backend:OnnxRuntime",
    "openvino": "bench.backends.openvino.backend:OpenVino",
    "tensorrt": "bench.backends.tensorrt.backend:TensorRt",
    "mnn": "bench.backends.mnn:Mnn",
    "fake": "bench.backends.fake:Fake",
}


def facts(name: str) -> Facts:
    """What a backend says of itself; its runtime is not imported.

    Raises:
        BenchError: no backend has this name.
    """
    if name not in REGISTRY:
        raise unknown_name("backend", name, REGISTRY)
    stated: Facts = load_name(REGISTRY[name]).FACTS
    return stated


def display_name(name: str) -> str:
    """What a backend is called in reports; a name that is not registered (of a run made elsewhere) stays."""
    return facts(name).display_name if name in REGISTRY else name


def colour(name: str) -> str:
    """A backend's colour in charts, ``#rrggbb``; empty for a name that is not registered."""
    return facts(name).colour if name in REGISTRY else ""


def runs_module(name: str) -> bool:
    """Whether a backend runs the network itself; the others run the exported graph."""
    return name in REGISTRY and facts(name).graph == "module"


@functools.cache
def runtime_packages() -> tuple[str, ...]:
    """The distributions of all runtimes, whose versions a run writes down; the fake one is in the harness itself."""
    packages = dict.fromkeys(package for name in REGISTRY for package in facts(name).packages.values())
    return tuple(package for package in packages if package != "scarlet-bench")


def package_versions() -> dict[str, str | None]:
    """Installed versions of everything that a result may depend on, runtimes included; None where absent."""
    return host.package_versions((*PACKAGES, *runtime_packages()))


def default_names(devices: Collection[str] = ("cpu",), has_module: bool = True) -> tuple[str, ...]:
    """What `run` compares on these devices when --backends is not given; see ``Facts.default``.

    Args:
        has_module: False for an ONNX file, which leaves nothing to backends that run the network itself.
    """
    return tuple(
        name
        for name in REGISTRY
        if set(devices).intersection(facts(name).devices)
        and (has_module or not runs_module(name))
        and (
            facts(name).default == "always"
            or (facts(name).default == "installed" and importlib.util.find_spec(facts(name).module))
        )
    )


def runs_nowhere(name: str, device: str) -> bool:
    """Whether a backend has no such device at all: a pair that nobody asked for by name need not be a row."""
    return device not in facts(name).devices


def make_backend(name: str) -> Backend:
    """A new, unloaded backend; only now is its module imported.

    Raises:
        BenchError: no backend has this name.
    """
    facts(name)
    backend: Backend = load_name(REGISTRY[name])()
    return backend


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Checks the options meant for one backend before anything slow begins; its runtime is not imported.

    Raises:
        BenchError: no backend has this name, or it has no such option, or the option does not take this value.
    """
    what, do = options_fault(name, facts(name).choices, options)
    if what:
        raise BenchError(f"--option {what}", do)


def option_values(name: str, option: str, text: str) -> tuple[str, ...]:
    """The values that a text gives to one option of a backend.

    A comma parts values, save in options that take any text (a file's name may hold one). An empty value, such as the
    first of ``,default``, stands for the option not being given.
    """
    choices = {**HARNESS_OPTIONS, **facts(name).choices}.get(option)
    if choices == "text" or "," not in text:
        return (text,)
    return tuple(part.strip() for part in text.split(","))


def load_name(name: str) -> Any:
    """What ``<module>:<name>`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)
