"""Recipes: checked, stable as JSON and YAML, and silent about nothing."""

import dataclasses
import json

import pytest

from export.precision.recipe import Recipe, default_recipe, read_recipe, write_recipe
from scarlet.errors import BenchError

SEARCHED = Recipe("int8", "ort", True, "percentile", 99.9, "uint8", "int8", True, ("Conv", "Gemm"), ("a.*", "b/Conv"))
EVERY = [
    default_recipe("fp16"),
    default_recipe("bf16"),
    *(default_recipe("int8", dialect) for dialect in ("ort", "symmetric", "nncf")),
    SEARCHED,
    Recipe("int8", "nncf", exclude=("a",), preset="mixed", model_type="transformer", target_device="ANY"),
]


@pytest.mark.parametrize("recipe", EVERY, ids=lambda recipe: recipe.kind)
def test_a_recipe_comes_back_from_json_and_from_its_file(recipe, tmp_path):
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    path = tmp_path / "recipe.yaml"
    write_recipe(path, recipe, {"model": "scarlet_c", "top1_percent": 91.5})
    assert read_recipe(path) == recipe
    assert "top1_percent: 91.5" in path.read_text()
    first = path.read_bytes()
    write_recipe(path, read_recipe(path), {"model": "scarlet_c", "top1_percent": 91.5})
    assert path.read_bytes() == first


def test_keys_tell_recipes_apart_and_leave_out_what_has_no_effect():
    assert len({recipe.key for recipe in EVERY}) == len(EVERY)
    assert json.loads(default_recipe("fp16").key) == {"precision": "fp16", "dialect": "", "exclude": []}
    assert "percentile" not in default_recipe("int8", "ort").to_dict()
    assert Recipe("int8", "ort", True, "percentile").to_dict()["percentile"] == 99.999


def test_tensorrt_gets_a_scale_for_each_channel_by_default():
    assert default_recipe("int8", "symmetric").per_channel
    assert not Recipe.from_dict({"precision": "int8", "dialect": "symmetric", "per_channel": False}).per_channel
    assert default_recipe("int8", "ort").activation_type == "uint8", "signed, layers beside a sum stay in float"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, "names no precision"),
        ({"precision": "int4"}, "'int4'"),
        ({"precision": "int8"}, "dialect of a recipe ''"),
        ({"precision": "int8", "dialect": "trt"}, "'trt'"),
        ({"precision": "fp16", "dialect": "ort"}, "names the dialect 'ort'"),
        ({"precision": "fp16", "per_channel": True}, "per_channel, which has no effect"),
        ({"precision": "int8", "dialect": "nncf", "calibration": "entropy"}, "calibration, which has no effect"),
        ({"precision": "int8", "dialect": "symmetric", "activation_type": "uint8"}, "activation_type, which"),
        ({"precision": "int8", "dialect": "ort", "calibration": "kl"}, "'kl'"),
        ({"precision": "int8", "dialect": "ort", "percentile": 0}, "percentile is 0"),
        ({"precision": "int8", "dialect": "ort", "per_channel": "yes"}, "per_channel is 'yes', a str"),
        ({"precision": "int8", "dialect": "ort", "percentile": True}, "percentile is True, a bool"),
        ({"precision": "int8", "dialect": "ort", "exclude": "a"}, "exclude is 'a'"),
        ({"precision": "int8", "dialect": "ort", "exclude": [1]}, r"exclude is \[1\]"),
        ({"precision": "int8", "dialect": "ort", "weight_type": "uint8"}, "int8 activations with uint8 weights"),
        ({"precision": "int8", "dialect": "ort", "exlude": []}, "field of a recipe 'exlude'"),
    ],
)
def test_mistakes_are_told(data, words):
    with pytest.raises(BenchError, match=words):
        Recipe.from_dict(data)


def test_a_misspelt_field_brings_up_the_right_one():
    with pytest.raises(BenchError) as caught:
        Recipe.from_dict({"precision": "int8", "dialect": "ort", "exlude": []})
    assert "exclude" in caught.value.do


@pytest.mark.parametrize("text", ["- a\n", "a: [", "format: 2\nprecision: fp16\n", "\x00"])
def test_files_that_are_no_recipes(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(BenchError, match="recipe"):
        read_recipe(path)
    with pytest.raises(BenchError, match="cannot be read: No such file"):
        read_recipe(tmp_path / "absent.yaml")


def test_a_recipe_is_frozen_and_checked_when_it_is_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SEARCHED.precision = "fp16"
    with pytest.raises(BenchError):
        dataclasses.replace(SEARCHED, dialect="nncf")
