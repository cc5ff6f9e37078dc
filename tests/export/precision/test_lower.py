"""From a stored FP32 graph to stored graphs of lower precision: keys, facts, equal bytes, shared ranges."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from precision_graphs import images, run, saved, small

from export.precision import calibration, lower
from export.precision.calibration import CalibrationSet
from export.precision.lower import make_typed
from export.precision.recipe import Recipe, default_recipe
from export.store import FACTS, Store
from scarlet.errors import BenchError
from scarlet.files import file_sha256

ORT, SYMMETRIC, NNCF = (default_recipe("int8", dialect) for dialect in ("ort", "symmetric", "nncf"))
EVERY = (default_recipe("fp16"), default_recipe("bf16"), ORT, SYMMETRIC, NNCF)
SET = CalibrationSet.of([images(8)])


def ask(tmp_path, recipe, model=None, batches=SET, store=None):
    path = saved(tmp_path, model or small())
    return make_typed(path, file_sha256(path), recipe, store or Store(tmp_path / "store"), batches)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    return {recipe.kind: ask(folder, recipe) for recipe in EVERY}


@pytest.mark.parametrize("kind", ["fp16", "bf16", "ort", "symmetric", "nncf"])
def test_facts_say_what_was_made_of_what(made, kind):
    typed = made[kind]
    assert typed.path.suffix == (".xml" if kind == "nncf" else ".onnx")
    facts = typed.facts
    assert json.loads(typed.path.with_suffix(FACTS).read_text()) == facts
    assert Recipe.from_dict(facts["recipe"]).kind == kind
    assert facts["layers"] == {{"fp16": "float16", "bf16": "bfloat16"}.get(kind, "int8"): 3}
    if kind in ("fp16", "bf16"):
        assert "calibration" not in facts
    else:
        assert facts["calibration"] == {"sha256": SET.sha256, "images": 8}
    assert {"onnx"} < set(facts["versions"])


def test_onnx_files_name_their_recipe_and_calibration(made):
    written = {entry.key: entry.value for entry in onnx.load(made["ort"].path).metadata_props}
    assert Recipe.from_dict(json.loads(written["recipe"])) == ORT
    assert written["calibration_sha256"] == SET.sha256
    assert written["source_sha256"] == made["ort"].facts["source_sha256"]


@pytest.mark.parametrize("kind", ["fp16", "ort", "symmetric"])
def test_logits_stay_close(made, tmp_path, kind):
    expected = run(saved(tmp_path, small()), images())
    difference = abs(run(made[kind].path, images()) - expected).max() / np.std(expected)
    assert 0 < difference < (0.02 if kind == "fp16" else 0.3)


def test_nncf_runs_on_openvino_with_any_batch(made, tmp_path):
    import openvino

    compiled = openvino.Core().compile_model(made["nncf"].path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = run(saved(tmp_path, small()), images(5))
    assert 0 < abs(compiled(images(5))[0] - expected).max() / np.std(expected) < 0.3


MAKE_ALL = """
import sys
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from test_lower import EVERY, ask
print(*(ask(Path(sys.argv[1]), recipe).sha256 for recipe in reversed(EVERY)))
"""


@pytest.mark.slow  # importing OpenVINO and NNCF anew takes most of it
def test_another_process_makes_the_same_bytes(made, tmp_path):
    # In another order and with another order of sets, into a store of its own.
    answer = subprocess.run(
        [sys.executable, "-c", MAKE_ALL, str(tmp_path), str(Path(__file__).parent), *sys.path],
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert answer.stdout.split() == [made[recipe.kind].sha256 for recipe in reversed(EVERY)]


def test_the_second_time_nothing_is_made(tmp_path, monkeypatch):
    store = Store(tmp_path / "store")
    first = ask(tmp_path, SYMMETRIC, store=store)
    monkeypatch.setattr(lower, "_write", None)
    monkeypatch.setattr(calibration, "tensor_ranges", None)
    assert ask(tmp_path, SYMMETRIC, store=store) == first


def test_recipes_of_one_method_share_their_ranges(tmp_path, monkeypatch):
    calls = []
    original = calibration.tensor_ranges
    monkeypatch.setattr(calibration, "tensor_ranges", lambda *rest: calls.append(rest[2]) or original(*rest))
    store = Store(tmp_path / "store")
    made = [
        ask(tmp_path, recipe, store=store)
        for recipe in (
            ORT,
            SYMMETRIC,
            Recipe("int8", "ort", per_channel=True),
            Recipe("int8", "ort", exclude=("block.0/*",)),
            Recipe("int8", "ort", calibration="percentile", percentile=99.9),
            Recipe("int8", "ort", calibration="percentile", percentile=90.0),
        )
    ]
    assert calls == ["minmax", "percentile", "percentile"]
    assert len({typed.sha256 for typed in made}) == len({typed.path for typed in made}) == 6


def test_graph_images_and_recipe_are_in_the_key(tmp_path):
    store = Store(tmp_path / "store")
    other = small()
    other.doc_string = "another file"
    asked = [
        ask(tmp_path, NNCF, store=store),
        ask(tmp_path, NNCF, batches=CalibrationSet.of([images(8, seed=1)]), store=store),
        ask(tmp_path, Recipe("int8", "nncf", preset="mixed"), store=store),
        ask(tmp_path, NNCF, other, store=store),
    ]
    assert len({typed.path for typed in asked}) == 4


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.kind)
def test_a_request_that_changes_nothing_is_refused(tmp_path, recipe):
    nothing = Recipe.from_dict({**recipe.to_dict(), "exclude": ["block.*"]})
    with pytest.raises(BenchError, match=r"no convolution and no matrix product|cannot quantise"):
        ask(tmp_path, nothing)
    assert not list((tmp_path / "store").rglob("*.onnx"))


def test_int8_needs_images(tmp_path):
    with pytest.raises(ValueError, match="needs calibration images"):
        ask(tmp_path, ORT, batches=None)


def test_nncf_leaves_excluded_nodes_in_float(tmp_path):
    typed = ask(tmp_path, Recipe("int8", "nncf", exclude=("block.0/*",)))
    assert typed.facts["layers"] == {"float32": 1, "int8": 2}
    with pytest.raises(BenchError, match="node to exclude 'absent'"):
        ask(tmp_path, Recipe("int8", "nncf", exclude=("absent",)))


def test_a_fixed_batch_is_kept(tmp_path):
    path = saved(tmp_path, small(batch=4))
    store = Store(tmp_path / "store")
    for recipe in (ORT, NNCF):
        typed = make_typed(path, file_sha256(path), recipe, store, SET, fixed_batch=4)
        assert typed.facts["layers"] == {"int8": 3}
    few = CalibrationSet.of([images(3)])
    with pytest.raises(BenchError, match="do not fill one batch"):
        make_typed(path, file_sha256(path), NNCF, store, few, fixed_batch=4)
