"""What the tests of this folder share: a graph of one layer, a listener that remembers, Cases of the fake backend."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench.record.case import Case
from bench.record.run_folder import CaseResult

WNIDS = ("n01440764", "n01443537", "n01484850")  # the first three of the sorted 1000


def make_graph(batch: str | int, classes: int = 1000, size: int = 224) -> onnx.ModelProto:
    """A graph from ``(batch, 3, size, size)`` to ``(batch, classes)``."""
    weight = np.random.default_rng(1).standard_normal((3, classes)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["logits"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, classes])],
        [numpy_helper.from_array(weight, "weight")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


class Recorder:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.started: list[Case] = []
        self.ended: list[CaseResult] = []
        self.turns: list[str] = []

    def case_started(self, case: Case) -> None:
        self.started.append(case)

    def progress(self, case: Case, fraction: float, detail: str) -> None:
        self.turns.append(case.case_id)

    def case_ended(self, result: CaseResult) -> None:
        self.ended.append(result)


def fake_case(scenario: str = "latency", batch: int = 1, **options: str) -> Case:
    """A Case of the fake backend with these options."""
    return Case(
        model="onnx:tiny.onnx",
        weights="user",
        backend="fake",
        pipeline="reference",
        batch=batch,
        scenario=scenario,
        options=tuple(sorted(options.items())),
    )
