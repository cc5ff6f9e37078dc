"""A user's ONNX file: what is read from it, and what each bad one is told."""

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scarlet.errors import BenchError
from scarlet.onnx_file import inspect


def classifier(dims=("batch", 3, 32, 32), dtype=TensorProto.FLOAT, out=("batch", 10), outputs=1, inputs=1):
    weight = numpy_helper.from_array(np.arange(30, dtype=np.float32).reshape(3, 10), "weight")
    ins = [helper.make_tensor_value_info(f"image{i or ''}", dtype, dims) for i in range(inputs)]
    outs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, out)]
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight"], ["scores"]),
    ]
    for i in range(1, outputs):
        nodes.append(helper.make_node("Relu", ["scores"], [f"more{i}"]))
        outs.append(helper.make_tensor_value_info(f"more{i}", TensorProto.FLOAT, out))
    graph = helper.make_graph(nodes, "g", ins, outs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def saved(tmp_path, **changes):
    onnx.save(classifier(**changes), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_what_is_read(tmp_path):
    path = saved(tmp_path)
    info = inspect(path)
    assert (info.input_size, info.classes) == (32, 10)
    assert (info.fixed_batch, info.path) == (None, str(path))
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_fixed_batch_and_open_size(tmp_path):
    assert inspect(saved(tmp_path, dims=(4, 3, 32, 32), out=(4, 10))).fixed_batch == 4
    assert inspect(saved(tmp_path, dims=("n", 3, "h", "w"), out=("n", 10))).input_size == 224


def test_weights_listed_among_the_inputs_are_no_inputs(tmp_path):
    model = classifier()
    model.graph.input.append(helper.make_tensor_value_info("weight", TensorProto.FLOAT, (3, 10)))
    onnx.save(model, tmp_path / "net.onnx")
    assert inspect(tmp_path / "net.onnx").input_size == 32


def test_an_open_number_of_classes_is_inferred(tmp_path):
    assert inspect(saved(tmp_path, out=("batch", "classes"))).classes == 10


def test_a_number_of_classes_that_depends_on_the_image_is_refused(tmp_path):
    model = classifier(dims=("n", 3, "h", "w"), out=("n", "classes"))
    del model.graph.node[1:], model.graph.initializer[:]
    model.graph.node.append(helper.make_node("Flatten", ["pixels"], ["scores"]))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BenchError, match="n x classes; expected float32 logits"):
        inspect(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"dims": (1, 32, 32, 3)}, "1 x 32 x 32 x 3"),
        ({"dims": (1, 1, 32, 32)}, "1 x 1 x 32 x 32"),
        ({"dims": (1, 3, 32, 48)}, "1 x 3 x 32 x 48"),
        ({"dims": (1, 3, 32)}, "1 x 3 x 32"),
        ({"dtype": TensorProto.UINT8}, "UINT8"),
        ({"inputs": 2}, "2 inputs"),
        ({"outputs": 2}, "2 outputs"),
    ],
)
def test_unfit_files_say_what_was_found_and_expected(tmp_path, changes, found):
    with pytest.raises(BenchError) as caught:
        inspect(saved(tmp_path, **changes))
    assert found in caught.value.what
    assert "expected" in caught.value.what
    assert "\n" not in caught.value.what


def test_output_that_is_no_row_of_logits(tmp_path):
    model = classifier()
    del model.graph.node[2:], model.graph.initializer[:]
    model.graph.node[1].output[0] = "scores"
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("batch", 3, 1, 1)))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(BenchError, match="batch x 3 x 1 x 1; expected float32 logits"):
        inspect(tmp_path / "net.onnx")


@pytest.mark.parametrize("raw", [b"", b"this is no graph", b"\x08\x07\x12\x07"])
def test_broken_files(tmp_path, raw):
    path = tmp_path / "net.onnx"
    path.write_bytes(raw)
    with pytest.raises(BenchError, match="not a valid ONNX file") as caught:
        inspect(path)
    assert "\n" not in caught.value.what


def test_cut_off_and_missing_files(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BenchError, match="not a valid ONNX file"):
        inspect(path)
    with pytest.raises(BenchError, match="does not exist"):
        inspect(tmp_path / "none.onnx")


def test_external_weights_are_part_of_the_digest(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(classifier(), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    first = inspect(path)
    assert first.classes == 10
    data = bytearray((tmp_path / "net.bin").read_bytes())
    data[5] ^= 1
    (tmp_path / "net.bin").write_bytes(data)
    assert inspect(path).sha256 != first.sha256
    (tmp_path / "net.bin").unlink()
    with pytest.raises(BenchError, match="not a valid ONNX file"):
        inspect(path)
