"""`export` in lower precision: the command, the files that it leaves, and what it refuses."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest
from bench_fakes import Command

from bench.backends.base import Unavailable
from bench.run import session
from bench.studies import export as exporting
from export.precision.recipe import Recipe, write_recipe
from scarlet.errors import BenchError
from scarlet.preprocess import Preprocess


@pytest.fixture
def export(scarlet_bench: Command, empty_folder: Path, tiny_graph: Path, image_folder: Path) -> Command:
    """The command on the tiny graph and eight images."""
    model = ("--model", f"onnx:{tiny_graph}", "--data", str(image_folder), "--pipeline", "reference")
    return partial(scarlet_bench, "export", *model)


def test_int8_for_onnx_runtime(export: Command) -> None:
    code, out, err = export("--precision", "int8")
    assert code == 0, err
    model = onnx.load("tiny-int8-ort.onnx")
    graph, states = model.graph, {entry.key: entry.value for entry in model.metadata_props}["preprocess"]
    assert Preprocess.from_dict(json.loads(states)) == Preprocess(), "as the graph was calibrated"
    assert {"QuantizeLinear", "DequantizeLinear"} < {node.op_type for node in graph.node}
    assert "int8 ort: of the convolutions and matrix products 1 in int8" in out
    assert "calibrated on 8 images" in out


def test_json_says_what_it_is(export: Command) -> None:
    code, out, err = export("--precision", "int8", "--dialect", "symmetric", "--out", "a/b.onnx", "--json")
    assert code == 0, err
    answer: dict[str, Any] = json.loads(out)
    assert answer["out"] == str(Path("a/b.onnx").resolve())
    assert answer["typed"]["facts"]["recipe"]["dialect"] == "symmetric"
    assert answer["typed"]["facts"]["calibration"]["images"] == 8
    assert answer["model"].startswith("onnx:")


def test_openvino_gets_two_files(export: Command) -> None:
    code, _, err = export("--precision", "int8", "--dialect", "nncf")
    assert code == 0, err
    import openvino

    model = openvino.Core().read_model("tiny-int8-nncf.xml")
    assert "FakeQuantize" in {operation.get_type_name() for operation in model.get_ops()}
    assert Path("tiny-int8-nncf.bin").stat().st_size > 1000


def test_fp16_needs_no_calibration_images(export: Command) -> None:
    code, out, err = export("--precision", "fp16", "--calibration", "absent")
    assert code == 0, err
    assert "fp16: of the convolutions and matrix products 1 in float16" in out
    assert "calibrated" not in out
    assert Path("tiny-fp16.onnx").exists()


def test_a_recipe_is_replayed(export: Command) -> None:
    recipe = Recipe("int8", "ort", per_channel=True, op_types=("MatMul",))
    write_recipe(Path("found.yaml"), recipe)
    code, out, err = export("--recipe", "found.yaml", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert Recipe.from_dict(answer["typed"]["facts"]["recipe"]) == recipe
    assert answer["typed"]["facts"]["layers"] == {"int8": 1}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--precision", "int4"], ["unknown precision 'int4'", "int8"]),
        (["--precision", "int8", "--dialect", "trt"], ["unknown dialect 'trt'", "ort"]),
        (["--dialect", "ort"], ["--dialect ort was given with --precision fp32", "--precision int8"]),
        (["--precision", "fp16", "--dialect", "ort"], ["--dialect ort was given"]),
        (["--recipe", "absent.yaml"], ["absent.yaml cannot be read"]),
        (["--precision", "fp32"], ["is an ONNX graph already", "--precision"]),
        (["--precision", "int8", "--calibration", "absent"], ["there is no folder"]),
    ],
)
def test_mistakes_take_two_lines(export: Command, words: list[str], expected: list[str]) -> None:
    code, _, err = export(*words)
    assert code == 2, err
    lines = [line for line in err.splitlines() if not line.startswith(("scoring", "preparing"))]
    assert len(lines) == 2, err
    for text in expected:
        assert text in err


def test_a_recipe_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    write_recipe(path, Recipe("int8", "nncf"))
    for precision, dialect in (("fp16", None), ("fp32", "ort"), ("int8", "symmetric")):
        with pytest.raises(BenchError, match="was given with the recipe"):
            exporting.lower(precision, dialect, path)
    for precision, dialect in (("fp32", None), ("int8", "nncf")):
        found = exporting.lower(precision, dialect, path)
        assert (found.recipe.dialect, found.wanted.recipe) == ("nncf", str(path))


def test_a_recipe_that_quantises_nothing_is_an_error(export: Command) -> None:
    write_recipe(Path("none.yaml"), Recipe("int8", "ort", exclude=("*",)))
    code, _, err = export("--recipe", "none.yaml")
    assert code == 2
    assert "the int8-ort graph could not be made: the recipe of ort changes no convolution" in err
    assert not Path("tiny-int8-ort.onnx").exists()


def test_what_is_missing_is_an_error_of_two_lines(export: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare_files(*_: Any, **__: Any) -> Any:
        raise Unavailable("the package timm is not installed")

    monkeypatch.setattr(session, "prepare_files", prepare_files)
    code, _, err = export("--precision", "fp16")
    assert code == 2
    assert "timm is not installed" in err
