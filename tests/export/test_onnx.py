"""The exported graph: its ops, its names, its metadata, and nothing of this machine in it."""

import collections

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from export import onnx as onnx_export
from export.onnx import export_onnx
from scarlet.errors import BenchError
from scarlet.networks import BlockSpec, Scarlet

SIZE = 32


class MeanOverPlane(nn.Module):
    """Pools as timm does, by a mean that drops the axes, and flattens with a view."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4 + 4 * 900, 5)

    def forward(self, x):
        x = self.conv(x)
        return self.head(torch.cat([x.mean([2, 3]), x.reshape(x.size(0), -1)], 1))


def small():
    torch.manual_seed(0)
    return Scarlet((BlockSpec(2, 16, 3, 1, True), None, BlockSpec(2, 24, 3, 2, False)), classes=7).eval()


def exported(module, folder, name="net.onnx", options=SIZE):
    path = folder / name
    export_onnx(module, path, options, {"model": "small", "weights": "random", "weights_sha256": "abc"})
    return path


@pytest.fixture(scope="module")
def small_path(tmp_path_factory):
    return exported(small(), tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def small_graph(small_path):
    return onnx.load(small_path)


def ops(model):
    return collections.Counter(node.op_type for node in model.graph.node)


def dims(value):
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_names_and_shapes_of_input_and_output(small_graph):
    graph = small_graph.graph
    assert [(value.name, dims(value)) for value in graph.input] == [("input", ["batch", 3, 32, 32])]
    assert [(value.name, dims(value)) for value in graph.output] == [("logits", ["batch", 7])]
    assert [(entry.domain, entry.version) for entry in small_graph.opset_import] == [("", 18)]


def test_nodes_are_named_after_their_modules(small_graph):
    names = [node.name for node in small_graph.graph.node]
    assert len(set(names)) == len(names)
    assert "mb_module.0.act1/HardSwish" in names
    assert "mb_module.0.mid_se.pool/GlobalAveragePool" in names
    values = {value.name for value in small_graph.graph.value_info}
    assert values <= {name for node in small_graph.graph.node for name in node.output}


def test_two_exports_give_the_same_bytes_print_nothing_and_have_no_path_of_this_machine(small_path, tmp_path, capfd):
    content, module = small_path.read_bytes(), small().train()
    assert exported(module, tmp_path).read_bytes() == content
    assert capfd.readouterr() == ("", "")
    assert module.training
    for trace in (b".py", b"site-packages", b"/home", b"stack_trace", b"forward", onnx_export.__file__.encode()):
        assert trace not in content


def test_metadata_is_written(small_graph):
    written = {entry.key: entry.value for entry in small_graph.metadata_props}
    assert (written["model"], written["weights"], written["weights_sha256"]) == ("small", "random", "abc")
    assert (written["opset"], written["exporter_revision"]) == ("18", str(onnx_export.REVISION))
    assert written["torch_version"] == torch.__version__
    assert written["onnx_version"] == onnx.__version__
    assert "onnxscript_version" in written


def test_a_mean_that_drops_its_axes_and_a_view_become_pool_and_flatten(tmp_path):
    module = MeanOverPlane().eval()
    path = exported(module, tmp_path)
    found = ops(onnx.load(path))
    assert (found["GlobalAveragePool"], found["Flatten"]) == (1, 2)
    assert not {"ReduceMean", "Reshape", "Shape", "Gather"} & set(found)
    runtime = pytest.importorskip("onnxruntime")
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    (logits,) = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"input": x.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(logits), module(x), atol=1e-5)


def test_a_mean_over_other_axes_is_left():
    node = onnx.helper.make_node("ReduceMean", ["x", "axes"], ["y"], keepdims=1)
    axes = onnx.numpy_helper.from_array(np.array([1, 2]), "axes")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "g", [value("x", 1, ("n", 3, 8, 8))], [value("y", 1, ("n", 1, 1, 8))], [axes]
    )
    onnx_export._use_global_average_pool(graph)
    assert [item.op_type for item in graph.node] == ["ReduceMean"]


class Refused(nn.Module):
    def forward(self, x):
        return x * 2 if float(x.sum()) > 0 else x


def test_a_network_that_cannot_be_exported_is_a_clear_error(tmp_path):
    with pytest.raises(BenchError, match="Refused cannot be exported to ONNX") as caught:
        exported(Refused(), tmp_path)
    assert "\n" not in caught.value.what
    assert not list(tmp_path.iterdir())
