"""Users' ONNX files of all kinds: what backends are given answers as the plain graph does."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from document_tables import check_table
from onnx import TensorProto, helper, numpy_helper

from export.intake import take_in
from export.precision import int8
from export.precision.audit import precision_of
from export.precision.recipe import Recipe
from export.store import Store
from scarlet.errors import BenchError

SIZE, CLASSES = 8, 5
LEVELS = np.random.default_rng(0).integers(0, 256, (3, 3, SIZE, SIZE)).astype(np.float32)


def network(
    dims: tuple[Any, ...] = ("N", 3, SIZE, SIZE),
    type_: int = TensorProto.FLOAT,
    out: tuple[Any, ...] = ("N", CLASSES),
    before: tuple[Any, ...] = (),
    behind: tuple[Any, ...] = (),
    opset: int = 17,
    shape: tuple[int, ...] = (),
) -> Any:
    """Convolution, mean, classes; ``before`` leads from ``image`` to ``x``, ``behind`` from ``y`` to ``scores``."""
    rng = np.random.default_rng(1)
    weights = {"w": rng.standard_normal((CLASSES, 3, 3, 3)), "b": rng.standard_normal(CLASSES)}
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    initializers += [numpy_helper.from_array(np.array(shape, np.int64), "shape")] if shape else []
    first, last = "x" if before else "image", "y" if behind else "scores"
    nodes = [
        *before,
        helper.make_node("Conv", [first, "w", "b"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], [last]),
        *behind,
    ]
    inputs = [helper.make_tensor_value_info("image", type_, dims)]
    out_type = TensorProto.FLOAT16 if behind and behind[-1].op_type == "Cast" else TensorProto.FLOAT
    outputs = [helper.make_tensor_value_info("scores", out_type, out)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def answers(path: Path, pixels: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    (entry,) = session.get_inputs()
    (logits,) = session.run(None, {entry.name: pixels})
    return logits


def node(kind: str, source: str, target: str, *more: str, **attributes: Any) -> Any:
    return helper.make_node(kind, [source, *more], [target], **attributes)


def old(model: Any) -> Any:
    """Of an exporter of 2017: weights are inputs as well, IR version 3."""
    model.ir_version = 3
    model.graph.input.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in model.graph.initializer
    )
    return model


NHWC, HALF = ("N", SIZE, SIZE, 3), TensorProto.FLOAT16
TURNED = {"perm": [0, 3, 1, 2]}
RESHAPED = (node("Reshape", "y", "scores", "shape"),)
GREY = (node("Cast", "image", "f", to=1), node("Transpose", "f", "x", **TURNED))
FLOAT, HALVED = (node("Cast", "image", "x", to=1),), (node("Cast", "y", "scores", to=HALF),)
KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "plain": (network(), ()),
    "N x C x 1 x 1": (network(out=("N", CLASSES, 1, 1), behind=RESHAPED, shape=(0, -1, 1, 1)), ("flattened",)),
    "NHWC": (network(NHWC, before=(node("Transpose", "image", "x", **TURNED),)), ("transposed",)),
    "uint8 NHWC": (network(NHWC, TensorProto.UINT8, before=GREY), ("transposed", "cast to UINT8")),
    "float16": (network(type_=HALF, before=FLOAT, behind=HALVED), ("cast to FLOAT16", "cast from FLOAT16")),
    "weights as inputs": (old(network(opset=7)), ("IR version 3 raised", "made constant")),
    "opset 5": (old(network(opset=5)), ("opset 5",)),
    "opset 7": (network(opset=7), ()),
    "opset 23": (network(opset=23), ()),
    "batch of another name": (network(("unk__1287", 3, SIZE, SIZE)), ()),
    "batch fixed at 1": (network((1, 3, SIZE, SIZE), out=(1, CLASSES)), ()),
    "batch of 1 inside": (network(behind=RESHAPED, shape=(1, CLASSES)), ("batches of 1 only",)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_backends_run_answers_as_the_plain_graph(kind: str, tmp_path: Path) -> None:
    model, told = KINDS[kind]
    onnx.save(network(), tmp_path / "plain.onnx")
    onnx.save(model, tmp_path / "net.onnx")
    store = Store(tmp_path / "store")
    taken = take_in(tmp_path / "net.onnx", store)
    # Grey levels as pipelines make them are whole but for rounding, which a cast would cut off.
    pixels = LEVELS - 1e-4 if "uint8" in kind else LEVELS
    batch = taken.info.fixed_batch or len(pixels)
    got = np.concatenate([answers(taken.path, pixels[i : i + batch]) for i in range(0, len(pixels), batch)])
    tolerance = 2e-3 if kind == "float16" else 1e-6
    expected = answers(tmp_path / "plain.onnx", LEVELS)
    np.testing.assert_allclose(got, expected, atol=tolerance * np.ptp(expected))
    assert got.dtype == np.float32
    notes = " ".join(taken.notes)
    assert all(part in notes for part in told)
    assert bool(notes) == bool(told)
    assert (taken.path == tmp_path / "net.onnx") == ("adapted" not in notes)
    assert take_in(tmp_path / "net.onnx", store).path == taken.path


def two_outputs() -> Any:
    model = network(behind=(node("Neg", "y", "scores"), node("Neg", "scores", "more")))
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, ("N", CLASSES)))
    return model


def test_one_of_several_outputs_is_kept_alone(tmp_path: Path) -> None:
    onnx.save(two_outputs(), tmp_path / "net.onnx")
    one, other = (
        answers(take_in(tmp_path / "net.onnx", Store(tmp_path), name).path, LEVELS) for name in ("scores", "more")
    )
    np.testing.assert_array_equal(one, -other)


REFUSED = {
    "several outputs that may be logits, without `--output NAME`": two_outputs(),
    "an input that is not square": network(("N", 3, SIZE, 2 * SIZE)),
    "an input of other types": network(type_=TensorProto.INT32),
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1",
    "a web page": b"<!DOCTYPE html>",
}


def test_the_table_of_onnx_files(tmp_path: Path) -> None:
    rows, path = [], tmp_path / "FILE"
    for name, model in {**{name: model for name, (model, _) in KINDS.items()}, **REFUSED}.items():
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        try:
            notes = take_in(path, Store(tmp_path / "store")).notes
            rows.append((name, "; ".join(["runs", *(note.partition(" says: ")[0] for note in notes)])))
        except BenchError as error:
            rows.append((name, f"refused: {error.what.replace(str(path), 'FILE')}. {error.do}"))
    check_table("models.md", "onnx", ("Given", "What happens"), rows)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_weights_behind_links_of_a_cache_are_found(tmp_path: Path, link: Any) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    onnx.save(network(), tmp_path / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    for index, name in enumerate(("net.onnx", "net.onnx.data")):
        os.replace(tmp_path / name, tmp_path / "blobs" / str(index))
        link(tmp_path / "blobs" / str(index), tmp_path / "snapshot" / name)
    onnx.save(network(), tmp_path / "plain.onnx")
    taken = take_in(tmp_path / "snapshot" / "net.onnx", Store(tmp_path / "store"))
    np.testing.assert_array_equal(answers(taken.path, LEVELS), answers(tmp_path / "plain.onnx", LEVELS))


def test_an_old_graph_can_be_quantised_and_what_comes_of_it_is_known_as_such(tmp_path: Path) -> None:
    onnx.save(old(network(opset=7)), tmp_path / "net.onnx")
    taken = take_in(tmp_path / "net.onnx", Store(tmp_path / "store"))
    int8.prepare_graph(taken.path, tmp_path / "prepared.onnx")
    names = ("image", "c", "p", "scores")
    made = int8.quantised(tmp_path / "prepared.onnx", dict.fromkeys(names, (-300.0, 300.0)), Recipe("int8", "ort"))
    onnx.checker.check_model(made, full_check=True)
    onnx.save(made, tmp_path / "int8.onnx")
    names = ("int8.onnx", "net.onnx", "none.onnx")
    assert [precision_of(tmp_path / name) for name in names] == ["int8", "fp32", "fp32"]
