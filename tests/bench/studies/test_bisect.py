"""`bisect` on the command line: what it prints, its JSON, its exit codes."""

import json
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from bench_fakes import Command, make_graph
from onnx import numpy_helper
from torch import nn

from bench.studies import bisect as bisection
from scarlet import zoo
from scarlet.errors import ModelUnavailable
from scarlet.preprocess import ModelSpec

pytest.importorskip("onnxruntime")


@pytest.fixture
def bisect(scarlet_bench: Command, image_folder: Path) -> Command:
    """The command on the small image folder."""
    return partial(scarlet_bench, "bisect", "--data", str(image_folder))


def changed(path: Path, target: Path, weight: str, channel: int) -> Path:
    """A copy of the graph with the weights of one output channel (the last axis of a MatMul) moved."""
    model = onnx.load(path)
    tensor = next(item for item in model.graph.initializer if item.name == weight)
    values = numpy_helper.to_array(tensor).copy()
    values[..., channel] += 1
    tensor.CopyFrom(numpy_helper.from_array(values, weight))
    onnx.save(model, target)
    return target


def test_two_graphs_that_agree(bisect: Command, tiny_graph: Path) -> None:
    code, out, _ = bisect("--model", f"onnx:{tiny_graph}", "--against", str(tiny_graph), "--images", "3")
    assert code == 0
    assert "3 images; 3 values exist on both sides" in out
    assert "nothing diverges beyond 0.001 of a layer's spread" in out


def test_images_of_other_classes_are_read_with_their_list(scarlet_bench, tiny_graph, image_folder, tmp_path):
    for number, source in enumerate(sorted(path for path in image_folder.rglob("*") if path.suffix == ".JPEG")[:4]):
        (tmp_path / "data" / f"kind {number % 2}").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / f"kind {number % 2}" / source.name).write_bytes(source.read_bytes())
    (tmp_path / "classes.txt").write_text("kind 0\nkind 1\n")
    words = ["bisect", "--model", f"onnx:{tiny_graph}", "--against", str(tiny_graph), "--images", "2"]
    words += ["--data", str(tmp_path / "data")]
    assert scarlet_bench(*words)[0] == 2
    assert scarlet_bench(*words, "--classes", str(tmp_path / "classes.txt"))[0] == 0


def test_two_graphs_that_part_with_a_table(bisect: Command, tiny_graph: Path, tmp_path: Path) -> None:
    other = changed(tiny_graph, tmp_path / "other.onnx", "weight", 7)
    words = ["--onnx", str(tiny_graph), "--against", str(other), "--images", "3"]
    code, out, _ = bisect(*words, "--table", "2")
    assert code == 1
    assert "first diverging layer: logits (MatMul)" in out
    assert "in channel 7" in out
    assert "weight weight differs in 1 of 1000 channels (7)" in out
    assert "SQNR" in out
    code, out, _ = bisect(*words, "--rtol", "1000")
    assert code == 0


def test_json_for_machines(bisect: Command, tiny_graph: Path, tmp_path: Path) -> None:
    other = changed(tiny_graph, tmp_path / "other.onnx", "weight", 7)
    words = ["--model", f"onnx:{tiny_graph}", "--against", str(other), "--images", "2", "--table", "3", "--json"]
    code, out, err = bisect(*words, "--every-layer")
    assert code == 1
    answer = json.loads(out)
    assert answer["first"]["name"] == "logits"
    assert answer["first"]["worst_channel"] == 7
    assert answer["weights"] == [
        {"name": "weight", "channels": 1000, "differing": [7], "max_abs_diff": pytest.approx(1.0)}
    ]
    assert [row["sqnr_db"] for row in answer["table"]][1:] == [None, None]  # infinite
    assert answer["scanned"] == "every layer was requested"
    assert "2 images; 3 values exist on both sides" in err


class Small(nn.Module):
    """A classifier of 224-pixel images that takes no time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 7, 16, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.Hardswish(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.pool(self.act(self.norm(self.conv(x))))
        logits: torch.Tensor = self.head(torch.flatten(features, 1))
        return logits


@pytest.fixture
def small_export(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Puts a small network in place of scarlet_c; gives its graph."""
    module, path = Small().eval(), tmp_path / "small.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, 224, 224)
        names = {"input_names": ["input"], "output_names": ["logits"], "dynamic_axes": {"input": {0: "n"}}}
        torch.onnx.export(module, (image,), path, dynamo=False, opset_version=18, **names)
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "n"
    onnx.save(model, path)

    def build(spec: ModelSpec, checkpoint: str | None, calibration_batches: object) -> zoo.Built:
        assert (calibration_batches is not None) == (checkpoint == "random")
        return zoo.Built(spec, module, "user", "0" * 64)

    monkeypatch.setattr(zoo, "build", build)
    monkeypatch.setattr(bisection, "export_model", lambda spec, built, store, check: SimpleNamespace(onnx_path=path))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: None)  # of the whole test process
    return path


def test_pytorch_against_its_export(bisect: Command, small_export: Path) -> None:
    for checkpoint in ("random", "demo"):
        code, out, _ = bisect("--images", "4", "--checkpoint", checkpoint)
        assert code == 0, out
        assert "scarlet_c (user weights) in PyTorch against its export, 4 images" in out


def test_pytorch_against_a_users_graph_with_a_fault(bisect: Command, small_export: Path, tmp_path: Path) -> None:
    model = onnx.load(small_export)
    node = next(node for node in model.graph.node if node.op_type == "HardSwish")
    node.op_type = "Relu"
    onnx.save(model, tmp_path / "relu.onnx")
    code, out, _ = bisect("--onnx", str(tmp_path / "relu.onnx"), "--images", "4")
    assert code == 1
    assert "first diverging layer: act (Hardswish)" in out
    assert "ONNX node: /act/HardSwish (Relu)" in out
    assert "no weights to compare there" in out


def test_the_export_against_another_graph(bisect: Command, small_export: Path, tmp_path: Path) -> None:
    model = onnx.load(small_export)
    bias = next(item for item in model.graph.initializer if item.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), "head.bias"))
    onnx.save(model, tmp_path / "bias.onnx")
    code, out, _ = bisect("--against", str(tmp_path / "bias.onnx"), "--images", "4")
    assert code == 1
    assert "first diverging layer: logits (Gemm)" in out
    assert "weight head.bias differs in 1000 of 1000 channels (0, 1, 2, 3, 4, ...)" in out


def test_a_weight_that_changes_no_value_is_named_all_the_same(bisect, small_export, tmp_path):
    model = onnx.load(small_export)
    bias = next(item for item in model.graph.initializer if item.name == "head.bias")
    values = numpy_helper.to_array(bias).copy()
    values[:7] += np.float32(2e-5)
    bias.CopyFrom(numpy_helper.from_array(values, "head.bias"))
    onnx.save(model, tmp_path / "bias.onnx")
    code, out, _ = bisect("--onnx", str(tmp_path / "bias.onnx"), "--images", "4")
    assert code == 0, out
    assert "nothing diverges" in out
    assert "besides: weight head.bias differs in 7 of 1000 channels (0, 1, 2, 3, 4, ...)" in out


def test_shapes_that_differ_are_said(bisect: Command, tiny_graph: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.onnx"
    onnx.save(make_graph("batch", classes=10), other)
    code, out, _ = bisect("--onnx", str(tiny_graph), "--against", str(other), "--images", "2")
    assert code == 1
    assert "shapes differ: 1000 against 10" in out


def test_mistakes_are_two_lines_and_exit_code_2(bisect: Command, tiny_graph: Path, tmp_path: Path) -> None:
    fixed, other, size = tmp_path / "fixed.onnx", tmp_path / "three.onnx", tmp_path / "size.onnx"
    onnx.save(make_graph(2), fixed)
    onnx.save(make_graph(3), other)
    onnx.save(make_graph("batch", size=64), size)
    graph = f"onnx:{tiny_graph}"
    for words, expected in [
        (["--images", "0"], "--images 0"),
        (["--rtol", "-1"], "--rtol -1"),
        (["--model", "scarlet_d"], "unknown model"),
        (["--model", graph], "--against"),
        (["--model", graph, "--against", str(fixed), "--checkpoint", "demo"], "--checkpoint"),
        (["--onnx", "no/such.onnx"], "no/such.onnx"),
        (["--onnx", str(tiny_graph), "--against", str(size)], "64 pixels"),
        (["--onnx", str(fixed), "--against", str(other)], "2 and 3"),
        (["--onnx", str(fixed), "--against", str(tiny_graph), "--images", "3"], "batches of 2"),
        (["--onnx", str(tiny_graph), "--against", str(tiny_graph), "--images", "99"], "only 8 images"),
    ]:
        code, out, err = bisect(*words)
        assert code == 2, (words, out, err)
        assert len(err.rstrip("\n").splitlines()) == 2
        assert expected in err
        assert "Traceback" not in err


def test_a_graph_of_a_fixed_batch_gets_its_batches(bisect: Command, tiny_graph: Path, tmp_path: Path) -> None:
    onnx.save(make_graph(2), tmp_path / "fixed.onnx")
    code, out, _ = bisect("--onnx", str(tiny_graph), "--against", str(tmp_path / "fixed.onnx"), "--images", "4")
    assert code == 0, out


def test_a_model_that_is_not_installed_is_a_mistake(bisect: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(spec: ModelSpec) -> ModelSpec:
        raise ModelUnavailable("timm is missing")

    monkeypatch.setattr(zoo, "complete", missing)
    code, _, err = bisect("--model", "timm/resnet18")
    assert code == 2
    assert "timm is missing" in err
