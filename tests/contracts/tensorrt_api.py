"""The surface of TensorRT's Python bindings, and the real bindings to read it from, without a GPU.

The bindings wheel on the package index needs nine C functions of NVIDIA's libraries to be imported. Stub libraries that
define them are compiled here, so that every class, enum, method and docstring of the real API can be looked at.
"""

import functools
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import pytest

PACKAGE = "tensorrt-cu13-bindings"
# Of each major version one, so that a test means the same tomorrow.
VERSIONS = {"11": "11.4.0.106", "10": "10.16.1.11"}

FUNCTIONS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
LIBRARIES = ("libnvinfer", "libnvinfer_plugin", "libnvonnxparser")
FETCH_SECONDS = 120
DUMPER = Path(__file__).with_name("tensorrt_dump.py")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a signature."""

    name: str
    optional: bool


@dataclass(frozen=True)
class Signature:
    """What a docstring says that a function takes and gives; ``self`` is left out."""

    parameters: tuple[Parameter, ...]
    returns: str
    open: bool = False  # takes *args or **kwargs

    def fault(self, n_positional: int, keywords: list[str]) -> str:
        """What is wrong with a call, or nothing."""
        if self.open:
            return ""
        names = [parameter.name for parameter in self.parameters]
        unknown = [keyword for keyword in keywords if keyword not in names]
        if unknown:
            return f"no keyword {unknown[0]}"
        if n_positional > len(names):
            return f"takes {len(names)} arguments, not {n_positional}"
        given = {*names[:n_positional], *keywords}
        missing = [p.name for p in self.parameters if not p.optional and p.name not in given]
        return f"lacks {missing[0]}" if missing else ""


@dataclass(frozen=True)
class Api:
    """What ``tensorrt_dump.py`` printed."""

    version: str
    names: dict[str, Any]
    classes: dict[str, Any]

    @functools.cached_property
    def words(self) -> frozenset[str]:
        """Every name of a member of a class."""
        return frozenset(name for members in self.classes.values() for name in members)

    def class_in(self, text: str) -> str:
        """The class that a type's text means, or nothing: containers and Python's own types are none."""
        if re.match(r"\s*(list|dict|tuple|typing\.(List|Dict|Tuple|Callable|Sequence))\b", text, re.IGNORECASE):
            return ""
        for found in re.findall(r"(?:\w+\.)*\w+", text):
            parts = found.split(".")
            for start in range(len(parts)):
                if ".".join(parts[start:]) in self.classes:
                    return ".".join(parts[start:])
        return ""


def signatures(doc: str) -> list[Signature]:
    """The signatures in a docstring as pybind11 writes it: the first line, or numbered lines of overloads."""
    found = []
    for line in doc.splitlines():
        match = re.match(r"\s*(?:\d+\. )?(?:\w+)?\((.*)\) -> (.*)$", line)
        if match:
            found.append(_signature(match[1], match[2]))
    return found


def _signature(arguments: str, returns: str) -> Signature:
    parts = [part.strip() for part in _split(arguments) if part.strip()]
    open_ = any(part.startswith("*") and part != "*" for part in parts)
    named = [part for part in parts if not part.startswith(("*", "/")) and not re.match(r"self\b", part)]
    parameters = tuple(Parameter(re.split(r"[:=]", part)[0].strip(), "=" in part) for part in named)
    return Signature(parameters, returns, open_)


def _split(text: str) -> list[str]:
    """A text parted at the commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


class NotHad(Exception):
    """What the real bindings need cannot be had here; the text says what."""


def environment_of(major: str) -> dict[str, str]:
    """Environment of a Python that can import ``tensorrt_bindings`` of one major version.

    Skips the test, with a reason, where wheel or compiler cannot be had.
    """
    found = _environment(major)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@functools.cache
def _environment(major: str) -> dict[str, str] | str:
    """As ``environment_of``, or the reason why not: asked for once, as a network that is not there takes its time."""
    folder = cache_folder() / f"{VERSIONS[major]}-{sys.implementation.cache_tag}"
    try:
        with filelock.FileLock(f"{folder}.lock"):
            libraries = _stub_libraries(folder, major)
            bindings = _bindings(folder, VERSIONS[major])
    except NotHad as reason:
        return str(reason)
    return {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(bindings)}


@functools.cache
def api_of(major: str) -> Api:
    """The API of the real bindings of one major version; skips as ``environment_of`` does."""
    done = subprocess.run(
        [sys.executable, str(DUMPER), "tensorrt_bindings"], env=environment_of(major), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return Api(found["version"], found["names"], found["classes"])


def cache_folder() -> Path:
    """Where wheels and stubs are kept from one run of the tests to the next."""
    cache = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(cache) if cache else Path.home() / ".cache") / "scarlet-bench-tests" / "tensorrt-bindings"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _bindings(folder: Path, version: str) -> Path:
    """A folder that holds the package ``tensorrt_bindings`` of this version: where it is installed, or fetched."""
    try:
        if importlib.metadata.version(PACKAGE) == version:
            return Path(str(importlib.metadata.distribution(PACKAGE).locate_file("")))
    except importlib.metadata.PackageNotFoundError:
        pass  # it is fetched
    unpacked = folder / "package"
    if unpacked.exists():
        return unpacked
    with tempfile.TemporaryDirectory(dir=folder) as work:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary", ":all:", "--timeout", "5", "--retries", "0", "--dest", work]
        try:
            done = subprocess.run(
                [*command, f"{PACKAGE}=={version}"], capture_output=True, text=True, timeout=FETCH_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise NotHad(f"{PACKAGE} {version} could not be fetched in {FETCH_SECONDS} s") from None
        wheels = list(Path(work).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            raise NotHad(f"{PACKAGE} {version} could not be fetched: {reason}")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(Path(work) / "package")
        os.replace(Path(work) / "package", unpacked)
    return unpacked


def _stub_libraries(folder: Path, major: str) -> Path:
    """A folder with libraries of the names that the bindings want, which define what they want and do nothing."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise NotHad("there is no C compiler to make stub libraries with; install gcc")
    target = folder / "stubs"
    target.mkdir(parents=True, exist_ok=True)
    if all((target / f"{library}.so.{major}").exists() for library in LIBRARIES):
        return target
    source = target / "stubs.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for library in LIBRARIES:
        name = f"{library}.so.{major}"
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(target / name), str(source)]
        done = subprocess.run([compiler, *flags], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return target
