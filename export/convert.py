"""The ONNX graph in a runtime's own format: made once, kept in the store, checked against ONNX Runtime."""

from __future__ import annotations

import importlib
import json
import sys
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from export import parity
from export.store import Artefact, Store, recorded_sha256
from scarlet.files import file_sha256


class Converter(Protocol):
    """What the file of a format in ``export`` has: one file for each format, which imports its packages when called.

    Attributes:
        SUFFIX: of the format's files, with its dot.
        PACKAGES: whose versions decide the bytes.
    """

    SUFFIX: str
    PACKAGES: tuple[str, ...]

    def convert(self, onnx_path: Path, path: Path) -> None:
        """Writes the graph in the format, weights in float32.

        Raises:
            BenchError: the format cannot express the graph.
            ImportError: a package is not installed.
        """
        ...

    def logits(self, path: Path, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """What a converted graph answers, ``(n, classes)``."""
        ...


def missing_packages(name: str) -> list[str]:
    """The packages that a converter needs and that are not installed."""
    converter: Converter = importlib.import_module(name)
    missing = []
    for package in converter.PACKAGES:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            missing.append(package)
    return missing


def convert(name: str, onnx_path: Path, onnx_sha256: str, store: Store, pixels: NDArray[np.float32] | None) -> Artefact:
    """Converts a graph and compares its logits with ONNX Runtime's; or finds all that in the store.

    Facts: ``converter``, ``source_sha256``, ``versions``, and ``parity`` (``export.parity.Parity`` as a dict) where it
    was checked.

    Args:
        name: of the converter's module.
        onnx_path: the FP32 graph; one image input, one output.
        pixels: the images to compare on, ``(n, 3, size, size)``; None leaves the check out, as does a machine without
            ONNX Runtime.

    Raises:
        BenchError: the format cannot express the graph, or its logits differ by more than ``parity.TOLERANCE`` of
            their spread.
        ImportError: a package is not installed.
    """
    converter: Converter = importlib.import_module(name)
    facts: dict[str, Any] = {
        "converter": name,
        "source_sha256": onnx_sha256,
        "versions": {package: metadata.version(package) for package in converter.PACKAGES},
    }
    code = file_sha256(Path(str(sys.modules[name].__file__)))
    key_parts = {"artefact": "converted", "code": code, "facts": json.dumps(facts, sort_keys=True)}
    path = store.get_or_make(key_parts, converter.SUFFIX, lambda path: converter.convert(onnx_path, path))
    sha256 = recorded_sha256(path)
    if pixels is not None and parity.can_check():

        def compared() -> parity.Parity:
            expected = parity.graph_logits(onnx_path, [pixels])
            return parity.compare_logits(expected, converter.logits(path, pixels))

        what = {"what": f"the graph in the format of {name}", "reference": "ONNX Runtime"}
        facts["parity"] = parity.stored_check(store, {"converted_sha256": sha256}, compared, **what)
    return Artefact(path, sha256, facts)
