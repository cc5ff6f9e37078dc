"""Names, what is known of a model before it is loaded, and building it."""

import subprocess
import sys
import types
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from scarlet import zoo
from scarlet.errors import BenchError, unknown_name
from scarlet.foreign import networks
from scarlet.foreign.checkpoint import weights_sha256
from scarlet.networks import scarlet
from scarlet.preprocess import Preprocess
from scarlet.zoo import published, rows


@pytest.mark.parametrize("name", ["scarlet_c", "Scarlet_C", "scarlet-c", "SCARLET_C", " scarlet_c "])
def test_scarlet_names(name):
    spec = zoo.resolve(name)
    assert (spec.name, spec.kind, spec.input_size) == ("scarlet_c", "scarlet", 224)
    assert (spec.preprocess.resize, spec.preprocess.crop, spec.preprocess.interpolation) == (256, 224, "bilinear")
    with pytest.raises(FrozenInstanceError):
        spec.name = "other"


def test_names_lists_what_resolves():
    assert zoo.names() == ("scarlet_a", "scarlet_b", "scarlet_c")
    assert [zoo.resolve(name).name for name in zoo.names()] == list(zoo.names())


def test_timm_and_onnx_names():
    assert zoo.resolve("TIMM/ResNet18").name == "timm/resnet18"
    spec = zoo.resolve("ONNX:Some/Net.onnx")
    assert (spec.name, spec.kind, spec.path) == ("onnx:Some/Net.onnx", "onnx", "Some/Net.onnx")
    assert zoo.resolve("onnx:~/net.onnx").path.startswith("/")


def test_unknown_names_suggest_near_ones():
    with pytest.raises(BenchError) as caught:
        zoo.resolve("scarlett_c")
    assert caught.value.what == "unknown model 'scarlett_c'"
    assert "scarlet_c" in caught.value.do
    with pytest.raises(BenchError) as caught:
        zoo.resolve("zzzzzz")
    assert "onnx:resnet18.onnx" in caught.value.do
    for name in ("onnx:", "timm/"):
        with pytest.raises(BenchError):
            zoo.resolve(name)


def test_of_more_names_than_anybody_reads_the_nearest_are_listed():
    known = [f"resnet{number}" for number in range(1557)]
    assert unknown_name("model", "resnett18", known).do.startswith("Did you mean resnet18 or resnet")
    mistake = unknown_name("model", "qqqq7", known)
    assert mistake.do.startswith("The nearest of 1,557 are resnet7, ")
    assert mistake.do.count("resnet") == 5


@pytest.mark.parametrize("sizes", [((3, 224, 192), None), ((3, 224, 224), (3, 256, 288))])
def test_inputs_that_are_not_square_are_refused_with_the_reason(sizes, monkeypatch):
    config = types.SimpleNamespace(
        **dict(zip(("input_size", "test_input_size"), sizes, strict=True)),
        crop_pct=0.9,
        test_crop_pct=None,
        interpolation="bicubic",
        crop_mode=None,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    monkeypatch.setattr(networks, "timm_config", lambda spec: config)
    with pytest.raises(BenchError, match=r"timm/odd takes inputs of \d+ x \d+, and only squares"):
        zoo.complete(zoo.resolve("timm/odd"))


def test_resolving_imports_nothing_heavy():
    code = (
        "import sys; from scarlet import zoo; zoo.resolve('scarlet_c'); zoo.resolve('timm/x'); zoo.names();"
        "print([m for m in ('torch', 'timm', 'numpy', 'onnx', 'onnxruntime') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def images(n=4, size=64):
    return [np.random.default_rng(0).normal(size=(n, 3, size, size)).astype(np.float32)]


@pytest.fixture
def demo(monkeypatch):
    """Demo weights for scarlet_c alone."""
    module = types.ModuleType("scarlet.demo")
    state = scarlet("scarlet_c").state_dict()
    module.available = lambda name: name == "scarlet_c"
    module.load_state = lambda name: state
    monkeypatch.setitem(sys.modules, "scarlet.demo", module)
    return state


def test_random_weights_are_seeded_and_calibrated(demo):
    spec = zoo.resolve("scarlet_c")
    built = zoo.build(spec, "random", images())
    assert built.weights == "random"
    assert built.weights_sha256 == weights_sha256(built.module.state_dict())
    assert zoo.build(spec, "random", images()).weights_sha256 == built.weights_sha256
    assert zoo.build(spec, "random", images(), seed=1).weights_sha256 != built.weights_sha256
    assert not any(layer.training for layer in built.module.modules())


def test_noise_calibrates_where_there_are_no_images(demo, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "scarlet.random_weights.noise_batches", lambda size, seed: asked.append((size, seed)) or images()
    )
    assert zoo.build(zoo.resolve("scarlet_a"), None, None, seed=5).weights == "random"
    assert asked == [(224, 5)]


def test_demo_weights_come_first_and_by_name(demo):
    for choice in (None, "demo"):
        built = zoo.build(zoo.resolve("scarlet_c"), choice)
        assert (built.weights, built.weights_sha256) == ("demo", weights_sha256(demo))
    with pytest.raises(BenchError, match="no demo weights for scarlet_a"):
        zoo.build(zoo.resolve("scarlet_a"), "demo")


def test_a_broken_demo_package_is_not_hidden(monkeypatch):
    monkeypatch.setitem(sys.modules, "scarlet.demo", None)
    with pytest.raises(ImportError):
        zoo.build(zoo.resolve("scarlet_c"))


def test_a_file_is_the_users(demo, tmp_path):
    torch.save({"model_state": demo}, tmp_path / "c.pth.tar")
    built = zoo.build(zoo.resolve("scarlet_c"), str(tmp_path / "c.pth.tar"))
    assert (built.weights, built.weights_sha256) == ("user", weights_sha256(demo))


def test_onnx_files_are_not_built(demo):
    with pytest.raises(BenchError, match="own weights"):
        zoo.build(zoo.resolve("onnx:x.onnx"))


def test_complete_leaves_scarlet_and_asks_onnx_files(monkeypatch):
    spec = zoo.resolve("scarlet_b")
    assert zoo.complete(spec) is spec
    known = types.SimpleNamespace(input_size=112, input_type="UINT8", has_fixed_size=True, preprocess="")
    monkeypatch.setattr("scarlet.foreign.onnx_file.inspect", lambda *_: known)
    found = zoo.complete(zoo.resolve("onnx:x.onnx"))
    assert found.preprocess == Preprocess(128, 112, mean=(0.0,) * 3, std=(1 / 255,) * 3), "grey levels"


def test_every_row_has_plausible_figures_and_a_source() -> None:
    names = [row.name for row in rows()]
    assert len(names) == len(set(names)) >= 10
    for row in rows():
        assert 50 <= row.multiply_adds_millions <= 1000, row
        assert 1 <= row.parameters_millions <= 20, row
        assert 65 < row.top1_percent < 80, row
        assert row.top5_percent is None or row.top1_percent < row.top5_percent < 95, row
        assert "arXiv" in row.source


def test_the_figures_of_scarlet_are_those_of_its_paper() -> None:
    row = published("scarlet_c")
    assert (row.multiply_adds_millions, row.parameters_millions, row.top1_percent, row.top5_percent) == (
        280,
        6,
        75.6,
        92.6,
    )
    assert all("1908.06022" in published(name).source for name in zoo.names())  # type: ignore[union-attr]


def test_every_model_that_is_named_can_be_named_on_the_command_line() -> None:
    named = [row.model for row in rows() if row.model]
    assert "timm/mobilenetv3_large_100" in named
    assert all(zoo.resolve(name).name == name for name in named)
    assert len(named) == len(set(named))


def test_of_other_models_nothing_is_known() -> None:
    assert published("onnx:net.onnx") is None
    assert published("") is None, "rows that cannot be measured here have no name to be found by"
