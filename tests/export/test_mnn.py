"""MNN's converter, where it is installed."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from bench_fakes import make_graph

from export import mnn, parity
from scarlet.errors import BenchError

pytest.importorskip("MNN")


def test_equal_graphs_give_equal_files_with_the_graphs_logits(tmp_path: Path) -> None:
    graph, files = tmp_path / "graph.onnx", [tmp_path / "one.mnn", tmp_path / "two.mnn"]
    onnx.save(make_graph("batch"), graph)
    for path in files:
        mnn.convert(graph, path)
    assert files[0].read_bytes() == files[1].read_bytes()
    pixels = np.random.default_rng(0).random((3, 3, 224, 224), dtype=np.float32)
    parity.check(parity.compare_logits(parity.graph_logits(graph, [pixels]), mnn.logits(files[0], pixels)))


def test_what_it_cannot_read_is_a_mistake_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "graph.onnx").write_text("no graph")
    with pytest.raises(BenchError, match="made no file") as caught:
        mnn.convert(tmp_path / "graph.onnx", tmp_path / "graph.mnn")
    assert caught.value.stage == "export"
