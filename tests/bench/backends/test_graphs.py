"""Which Case needs which graph, and what a backend is told where there is none."""

from typing import Any

import pytest

from bench.backends.base import Unavailable, Unsupported
from bench.backends.graphs import TypedGraph, Wanted, graph_for, needed, wanted_by
from bench.record.case import Case
from scarlet.errors import BenchError


def case(backend: str, precision: str, **options: str) -> Case:
    return Case("m", "demo", backend, precision=precision, options=tuple(sorted(options.items())))


def made(dialect: str, precision: str = "int8") -> dict[str, Any]:
    facts = {"recipe": {"precision": precision, "dialect": dialect}}
    return {"path": f"/store/{dialect}", "sha256": "ab", "facts": facts}


@pytest.mark.parametrize(
    ("asking", "key"),
    [
        (case("onnxruntime", "int8"), "int8/ort"),
        (case("onnxruntime", "int8", dialect="symmetric"), "int8/symmetric"),
        (case("onnxruntime", "fp16"), "fp16"),
        (case("openvino", "int8"), "int8/nncf"),
        (case("tensorrt", "int8"), "int8/symmetric"),
        (case("tensorrt", "bf16"), "bf16"),
        (case("onnxruntime", "int8", recipe="a/b.yaml"), "int8@a/b.yaml"),
    ],
)
def test_each_backend_has_its_dialect(asking: Case, key: str) -> None:
    wanted = wanted_by(asking)
    assert wanted.key == key


@pytest.mark.parametrize(
    "asking",
    [
        case("onnxruntime", "fp32"),
        case("openvino", "bf16"),
        case("pytorch", "int8"),
        case("tensorrt", "tf32"),
        case("fake", "int8"),
    ],
)
def test_others_run_on_the_fp32_files(asking: Case) -> None:
    assert wanted_by(asking) is None
    assert graph_for(asking, {}) is None


def test_a_matrix_needs_each_graph_once() -> None:
    backends = ("pytorch", "onnxruntime", "openvino", "tensorrt")
    cases = [
        Case("m", "demo", backend, precision=precision, batch=batch)
        for backend in backends
        for precision in ("fp32", "fp16", "int8")
        for batch in (1, 8)
    ]
    cases.append(case("tensorrt", "int8", dialect="ort"))  # refused when it is run
    assert [wanted.key for wanted in needed(cases)] == ["fp16", "int8/nncf", "int8/ort", "int8/symmetric"]
    assert needed([case("onnxruntime", "int8", recipe="r.yaml")]) == (Wanted("int8@r.yaml", "int8", "", "r.yaml"),)


def test_a_case_gets_its_graph() -> None:
    typed = {"int8/ort": made("ort")}
    graph = graph_for(case("onnxruntime", "int8"), typed)
    assert isinstance(graph, TypedGraph)
    assert (graph.path, graph.sha256) == ("/store/ort", "ab")


def test_what_could_not_be_made_is_that_cases_reason() -> None:
    typed = {
        "int8/nncf": {"status": "unavailable", "reason": "the package nncf is not installed"},
        "int8/ort": {"status": "failed", "reason": "nothing to quantise", "do": "Measure fp32."},
        "int8@r.yaml": made("nncf"),
        "int8@h.yaml": made("", "fp16"),
    }
    with pytest.raises(Unavailable, match="nncf is not installed"):
        graph_for(case("openvino", "int8"), typed)
    with pytest.raises(BenchError, match="the int8/ort graph could not be made: nothing to quantise"):
        graph_for(case("onnxruntime", "int8"), typed)
    with pytest.raises(Unavailable, match="was not prepared"):
        graph_for(case("tensorrt", "int8"), typed)
    with pytest.raises(Unsupported, match="takes no int8 graph of dialect 'ort'"):
        graph_for(case("tensorrt", "int8", dialect="ort"), typed)
    with pytest.raises(Unsupported, match="takes no int8 graph of dialect 'nncf'"):
        graph_for(case("onnxruntime", "int8", recipe="r.yaml"), typed)
    with pytest.raises(Unsupported, match="of precision fp16"):
        graph_for(case("onnxruntime", "int8", recipe="h.yaml"), typed)
