"""From a network to the files of the store, once with the real SCARLET-C and else with a small one."""

import collections
import importlib.util
import sys

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

from export import parity as parity_check
from export.network import architecture_sha256, export_model, save_state
from export.store import Store
from scarlet.errors import BenchError
from scarlet.files import file_sha256
from scarlet.foreign.checkpoint import weights_sha256
from scarlet.foreign.onnx_file import inspect
from scarlet.networks import BlockSpec, Scarlet
from scarlet.preprocess import ModelSpec, at
from scarlet.random_weights import calibrate, initialise, noise_batches
from scarlet.zoo import Built, build, resolve

SMALL = ModelSpec("small", "scarlet", at(32))


def built(module, spec):
    return Built(spec, module, "random", weights_sha256(module.state_dict()))


def small(seed=0, blocks=1):
    torch.manual_seed(0)
    module = Scarlet((BlockSpec(2, 16, 3, 1, True),) * blocks, classes=9)
    initialise(module, seed)
    calibrate(module, images())
    return built(module, SMALL)


def images():
    return [next(noise_batches(32, 0))]


def no_images():
    raise AssertionError("a cached export must not read images")
    yield


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def first(store):
    return export_model(SMALL, small(), store, images())


@pytest.fixture(scope="module")
def scarlet_c(shared_store):
    network = build(resolve("scarlet_c"), "demo")
    return export_model(network.spec, network, Store(shared_store), [next(noise_batches(224, 0))[:8]])


def test_scarlet_c_passes_the_check(scarlet_c):
    assert scarlet_c.classes == 1000
    assert scarlet_c.parity["ratio"] <= parity_check.TOLERANCE
    assert scarlet_c.parity["top1_agreement"] == 1.0
    written = {entry.key: entry.value for entry in onnx.load(scarlet_c.onnx_path).metadata_props}
    assert (written["model"], written["weights"]) == ("scarlet_c", "demo")
    assert written["weights_sha256"] == weights_sha256(load_file(scarlet_c.state_path))


def test_scarlet_c_has_178_nodes_of_ten_kinds(scarlet_c):
    assert collections.Counter(node.op_type for node in onnx.load(scarlet_c.onnx_path).graph.node) == {
        "Conv": 78,
        "HardSwish": 32,
        "GlobalAveragePool": 14,
        "Relu": 13,
        "HardSigmoid": 13,
        "Mul": 13,
        "Add": 10,
        "Clip": 3,
        "Flatten": 1,
        "Gemm": 1,
    }
    info = inspect(scarlet_c.onnx_path)
    assert info.input_size == 224
    assert (info.fixed_batch, info.classes) == (None, 1000)


def test_files_and_figures(first):
    assert first.onnx_sha256 == file_sha256(first.onnx_path)
    assert first.classes == 9
    assert first.parity["n_images"] == 16
    network = small().module
    network.load_state_dict(load_file(first.state_path), strict=True)


def test_the_second_time_all_comes_from_the_store(first, store, monkeypatch):
    monkeypatch.setattr("export.onnx.export_onnx", None)
    again = export_model(SMALL, small(), store, no_images())
    assert again == first


def test_other_weights_label_or_architecture_are_other_files(first, store, monkeypatch):
    asked = []
    original = Store.get_or_make

    def spy(self, parts, suffix, make):
        asked.append(parts)
        if parts["artefact"] == "onnx":
            raise KeyboardInterrupt
        return original(self, parts, suffix, make)

    monkeypatch.setattr(Store, "get_or_make", spy)
    other_label = Built(SMALL, small().module, "user", small().weights_sha256)
    other_layer = small()
    other_layer.module.stem[2] = torch.nn.ReLU()  # the same weights to the bit
    for each in (small(), small(seed=1), other_layer, other_label):
        with pytest.raises(KeyboardInterrupt):
            export_model(SMALL, each, store, no_images())
    assert len({tuple(sorted(parts.items())) for parts in asked}) == 4
    assert {"torch", "onnx", "onnxscript", "options", "exporter"} <= set(asked[0])


def test_a_failed_check_leaves_no_figures_behind(first, store, monkeypatch):
    monkeypatch.setattr(parity_check, "TOLERANCE", -1.0)
    monkeypatch.setattr(parity_check, "ROUNDINGS", 0.0)
    monkeypatch.setattr(parity_check.check, "__defaults__", (*parity_check.check.__defaults__[:-1], -1.0))
    for _ in range(2):  # also the second time, when the graph itself is in the store
        with pytest.raises(BenchError, match="differs from PyTorch"):
            export_model(SMALL, small(), store, images())


def test_architecture_digest_sees_layers_and_forward():
    one, two = small().module, small(blocks=2).module
    assert architecture_sha256(one) == architecture_sha256(small(seed=5).module)
    assert architecture_sha256(one) != architecture_sha256(two)
    two = small().module
    two.stem[2] = torch.nn.ReLU()  # no parameters, another function
    assert architecture_sha256(one) != architecture_sha256(two)


def test_architecture_digest_sees_the_source_and_not_its_folder(tmp_path):
    def network(folder, body):
        path = tmp_path / folder / "net.py"
        path.parent.mkdir()
        path.write_text(f"from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n        {body}\n")
        spec = importlib.util.spec_from_file_location(f"net_{folder}", path)
        sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Net()

    digest = architecture_sha256(network("a", "return x"))
    assert architecture_sha256(network("b", "return x")) == digest
    assert architecture_sha256(network("c", "return -x")) != digest


def test_tied_weights_are_saved(tmp_path):
    module = torch.nn.ModuleDict({"a": torch.nn.Linear(2, 2), "b": torch.nn.Linear(2, 2)})
    module["b"].weight = module["a"].weight
    state = load_file(save_state(built(module, SMALL), Store(tmp_path)))
    assert np.array_equal(state["a.weight"], state["b.weight"])


def test_without_a_check_there_are_no_figures_but_all_the_files(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    unchecked = export_model(SMALL, small(seed=77), store, None)
    assert unchecked.parity == {}
    assert unchecked.classes == 9
    assert unchecked.onnx_path.exists()
    assert unchecked.state_path.exists()
