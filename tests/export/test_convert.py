"""A graph in a runtime's own format: made once, and never handed on unless it computes the same."""

from pathlib import Path

import copying_converter
import numpy as np
import onnx
import pytest
from bench_fakes import make_graph

from export import parity
from export.convert import convert, missing_packages
from export.store import Artefact, Store
from scarlet.errors import BenchError
from scarlet.files import file_sha256

NAME = "copying_converter"
PIXELS = np.random.default_rng(0).random((3, 3, 224, 224), dtype=np.float32)


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(copying_converter, "conversions", [])
    path = tmp_path / "graph.onnx"
    onnx.save(make_graph("batch"), path)
    return path


def converted(graph: Path, store: Store, checked: bool = True) -> Artefact:
    return convert(NAME, graph, file_sha256(graph), store, PIXELS if checked else None)


def test_a_graph_is_converted_once_and_checked(graph: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    made = converted(graph, store)
    assert (made.path.suffix, made.sha256) == (".copy", file_sha256(made.path))
    assert made.facts["parity"]["n_images"] == 3
    assert made.facts["parity"]["top1_agreement"] == 1
    assert set(made.facts["versions"]) == {"numpy"}
    assert converted(graph, store) == made
    assert len(copying_converter.conversions) == 1


def test_a_graph_that_computes_something_else_is_refused(graph, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    monkeypatch.setattr(copying_converter, "error", 1.0)
    for _ in range(2):  # nor does it pass for having been made before
        with pytest.raises(BenchError, match="differs from ONNX Runtime"):
            converted(graph, store)
    monkeypatch.setattr(copying_converter, "error", 0.0)
    assert converted(graph, store).facts["parity"]["ratio"] == 0


def test_without_images_or_onnxruntime_nothing_is_claimed(graph, tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    assert "parity" not in converted(graph, store, checked=False).facts
    monkeypatch.setattr(parity, "can_check", lambda: False)
    assert "parity" not in converted(graph, store).facts


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_packages(NAME) == []
    monkeypatch.setattr(copying_converter, "PACKAGES", ("numpy", "no-such-package"))
    assert missing_packages(NAME) == ["no-such-package"]
