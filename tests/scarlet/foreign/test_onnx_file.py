"""A user's ONNX file: what is read from it, and what each bad one is told."""

import hashlib

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scarlet.errors import BenchError
from scarlet.foreign.onnx_file import graph_sha256, inspect


def classifier(dims=("batch", 3, 32, 32), dtype=TensorProto.FLOAT, out=("batch", 10), outputs=1, inputs=1, out_type=1):
    weight = numpy_helper.from_array(np.arange(30, dtype=np.float32).reshape(3, 10), "weight")
    ins = [helper.make_tensor_value_info(f"image{i or ''}", dtype, dims) for i in range(inputs)]
    outs = [helper.make_tensor_value_info("scores", out_type, out)]
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
    assert info.fixed_batch is None
    assert graph_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


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
    with pytest.raises(BenchError, match="n x classes FLOAT; expected float logits"):
        inspect(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"dims": (1, 32, 48, 3)}, "1 x 32 x 48 x 3"),
        ({"dims": (1, 1, 32, 32)}, "1 x 1 x 32 x 32"),
        ({"dims": (1, 3, 32, 48)}, "1 x 3 x 32 x 48"),
        ({"dims": (1, 3, 32)}, "1 x 3 x 32"),
        ({"dtype": TensorProto.INT32}, "INT32"),
        ({"out_type": TensorProto.INT64}, "scores' is batch x 10 INT64"),
        ({"inputs": 2}, "2 inputs"),
        ({"outputs": 2}, "2 of its 2 outputs fit (scores batch x 10 FLOAT, more1 batch x 10 FLOAT)"),
    ],
)
def test_unfit_files_say_what_was_found_and_expected(tmp_path, changes, found):
    with pytest.raises(BenchError) as caught:
        inspect(saved(tmp_path, **changes))
    assert found in caught.value.what
    assert "expected" in caught.value.what
    assert "\n" not in caught.value.what


def test_the_output_that_is_named_is_taken(tmp_path):
    path = saved(tmp_path, outputs=2)
    info = inspect(path, "more1")
    assert (info.output, info.notes) == ("more1", ())
    with pytest.raises(BenchError, match="'none' is not among those"):
        inspect(path, "none")


def test_an_output_that_alone_can_be_logits_is_assumed_to_be(tmp_path):
    model = classifier()
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["best"], axis=1, keepdims=0))
    model.graph.output.insert(0, helper.make_tensor_value_info("best", TensorProto.INT64, ("batch",)))
    onnx.save(model, tmp_path / "net.onnx")
    info = inspect(tmp_path / "net.onnx")
    assert (info.output, info.classes) == ("scores", 10)
    assert "best batch INT64" in info.notes[0]


def test_a_graph_in_training_mode_is_told(tmp_path):
    model = classifier()
    one = [numpy_helper.from_array(np.ones(3, np.float32), name) for name in "abcd"]
    model.graph.initializer.extend(one)
    norm = helper.make_node("BatchNormalization", ["pooled", *"abcd"], ["normed", "m", "v"], training_mode=1)
    model.graph.node.insert(2, norm)
    model.graph.node[3].input[0] = "normed"
    onnx.save(model, tmp_path / "net.onnx")
    assert "1 BatchNormalization, 0 Dropout" in inspect(tmp_path / "net.onnx").notes[0]


@pytest.mark.parametrize("is_training", [True, False])
def test_dropout_that_is_left_on_is_told(tmp_path, is_training):
    model = classifier()
    ratio = numpy_helper.from_array(np.array(0.5, np.float32), "ratio")
    model.graph.initializer.extend([ratio, numpy_helper.from_array(np.array(is_training), "mode")])
    model.graph.node.insert(2, helper.make_node("Dropout", ["pooled", "ratio", "mode"], ["dropped"]))
    model.graph.node[3].input[0] = "dropped"
    onnx.save(model, tmp_path / "net.onnx")
    notes = inspect(tmp_path / "net.onnx").notes
    assert is_training == bool(notes)
    assert not notes or "0 BatchNormalization, 1 Dropout" in notes[0]


@pytest.mark.parametrize(("raw", "told"), [(b"", "it is empty"), (b"this is no graph", ""), (b"\x08\x07\x12\x07", "")])
def test_broken_files(tmp_path, raw, told):
    path = tmp_path / "net.onnx"
    path.write_bytes(raw)
    with pytest.raises(BenchError, match="not a valid ONNX file") as caught:
        inspect(path)
    assert told in caught.value.what
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
    first = graph_sha256(path)
    assert inspect(path).classes == 10
    data = bytearray((tmp_path / "net.bin").read_bytes())
    data[5] ^= 1
    (tmp_path / "net.bin").write_bytes(data)
    assert graph_sha256(path) != first
    (tmp_path / "net.bin").unlink()
    with pytest.raises(BenchError, match="not a valid ONNX file"):
        inspect(path)
