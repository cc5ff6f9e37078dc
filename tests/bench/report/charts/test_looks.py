"""What rows are called in charts, and that no two of them look the same."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bench.report.charts.looks import MOST_OF_TEXT, MOST_SERIES, clean, looks, names

few = settings(max_examples=60, deadline=None)


def row(**changes: Any) -> dict[str, Any]:
    """What a name is made of."""
    return {
        "case_id": "0" * 10,
        "model": "scarlet_c",
        "weights": "official",
        "backend": "pytorch",
        "device": "cpu",
        "precision": "fp32",
        "pipeline": "dali",
        "batch": 1,
        "threads": 1,
        "instances": 1,
        "options": "",
        **changes,
    }


def test_texts_from_outside_become_one_short_line() -> None:
    assert clean("a\tb\x1b[1m\u202ec\ud800") == "a b [1mc"
    long = clean("onnx:" + "folder/" * 30 + "net.onnx")
    assert len(long) == MOST_OF_TEXT
    assert long.startswith("…")
    assert long.endswith("net.onnx")


def test_names_say_what_varies_and_no_more() -> None:
    assert names([row()]) == ("PyTorch FP32",)
    assert names([row(), row(backend="mine", precision="int8")]) == ("PyTorch FP32", "mine INT8")
    assert names([row(batch=1), row(batch=8)]) == ("PyTorch FP32 batch 1", "PyTorch FP32 batch 8")
    assert names([row(batch=1), row(batch=8)], without=("batch",)) == ("PyTorch FP32",) * 2
    assert names([row(options='{"a": "1"}'), row()]) == ("PyTorch FP32 a=1", "PyTorch FP32")
    cut = names([row(model=f"{letter}{'x' * 50}", case_id=letter * 10) for letter in "ab"])
    assert len(set(cut)) == 2


@few
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["pytorch", "onnxruntime", "tensorrt", "openvino", "fake", "mine"]),
            st.sampled_from(["fp32", "tf32", "fp16", "bf16", "int8"]),
            st.integers(1, 4),
        ),
        min_size=1,
        max_size=MOST_SERIES,
        unique=True,
    )
)
def test_no_two_rows_look_the_same(fields: list[tuple[str, str, int]]) -> None:
    rows = [row(backend=backend, precision=way, threads=threads) for backend, way, threads in fields]
    found = looks(rows)
    assert len(set(found.styles.values())) == len(rows)
    assert found.legend == found.names
    assert not found.by_backend


def test_too_many_rows_are_told_apart_by_backend() -> None:
    rows = [row(backend=backend, threads=threads) for backend in ("pytorch", "a", "b") for threads in range(9)]
    found = looks(rows)
    assert found.by_backend
    assert found.entries == ("PyTorch", "a", "b")
    assert len(set(found.names)) == 27
    assert len({hue for hue, _ in found.styles.values()}) == 3
