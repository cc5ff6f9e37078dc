"""The figures of a comparison, and when it fails."""

import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from torch import nn

from export.parity import TOLERANCE, check, compare_logits, logits_parity
from scarlet.errors import BenchError


def linear_pair(tmp_path, error=0.0):
    """A linear classifier in PyTorch, and as a graph with one weight off by ``error``."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 6)).eval()
    weight = module[1].weight.detach().numpy().copy()
    weight[0, 0] += error
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w", "b"], ["logits"], transB=1),
    ]
    value = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(module[1].bias.detach().numpy(), "b")]
    graph = helper.make_graph(nodes, "g", [value("input", 1, ("n", 3, 2, 2))], [value("logits", 1, ("n", 6))], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "net.onnx")
    return module, tmp_path / "net.onnx"


def batches():
    rng = np.random.default_rng(0)
    for n in (4, 3, 0):
        yield rng.normal(size=(n, 3, 2, 2)).astype(np.float32)


def test_equal_networks_pass(tmp_path):
    parity = logits_parity(*linear_pair(tmp_path), batches())
    assert (parity.n_images, parity.classes, parity.top1_agreement, parity.top5_ordered_agreement) == (7, 6, 1.0, 1.0)
    assert 0.1 < parity.logits_spread < 2
    check(parity)


def test_a_changed_weight_fails_with_the_figures(tmp_path):
    parity = logits_parity(*linear_pair(tmp_path, error=0.01), batches())
    assert parity.max_abs_diff == pytest.approx(
        0.01 * max(abs(b[:, 0, 0, 0]).max() for b in batches() if len(b)), rel=1e-3
    )
    with pytest.raises(BenchError, match="differs from PyTorch") as caught:
        check(parity)
    assert f"{parity.max_abs_diff:.3g}" in caught.value.what
    assert f"{parity.ratio:.3g}" in caught.value.what
    check(parity, tolerance=1.0)


def test_a_network_may_differ_by_some_of_its_own_rounding_errors(tmp_path):
    parity = logits_parity(*linear_pair(tmp_path, error=0.0005), batches())
    assert TOLERANCE < parity.ratio < 1e-2
    assert 0 < parity.rounding < 1e-6
    check(replace(parity, rounding=parity.ratio / 3))
    for other in (parity, replace(parity, ratio=0.02, rounding=1.0)):
        with pytest.raises(BenchError):
            check(other)


def test_figures_by_hand():
    expected = np.array([[3, 2, 1, 0, -1, -2], [0, 1, 2, 3, 4, 5]], np.float32)
    found = expected.copy()
    found[0, 3:5] = found[0, 4:2:-1]  # places four and five change sides
    found[1, 0] += 0.5
    parity = compare_logits(expected, found)
    assert parity.max_abs_diff == 1.0
    assert parity.logits_spread == pytest.approx(expected.std())
    assert parity.ratio == pytest.approx(1.0 / expected.std())
    assert (parity.top1_agreement, parity.top5_ordered_agreement) == (1.0, 0.5)


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        (np.full((2, 3), 4.0), np.full((2, 3), 4.0)),  # no spread: any difference would be huge or nothing
        (np.eye(3), np.full((3, 3), np.nan)),
        (np.full((3, 3), np.inf), np.eye(3)),
    ],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_logits_that_do_not_vary_or_are_not_finite_never_pass(expected, found):
    parity = compare_logits(expected.astype(np.float32), found.astype(np.float32))
    assert parity.ratio == float("inf")
    with pytest.raises(BenchError):
        check(parity, tolerance=1e9)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="cannot be compared"):
        compare_logits(np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32))


def test_no_images_and_no_runtime_are_clear_errors(tmp_path, monkeypatch):
    with pytest.raises(BenchError, match="no images"):
        logits_parity(*linear_pair(tmp_path), [])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BenchError, match="onnxruntime does not import"):
        logits_parity(*linear_pair(tmp_path), batches())
