"""Options with several values: on the command line, in a plan file, and where only one makes sense."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.run import plan_file
from bench.run.settings import Settings, check, planned
from scarlet.errors import BenchError


def sets(*texts: str) -> list[dict[str, str]]:
    settings = Settings(backends="pytorch", scenarios="latency", batches="1", options=texts)
    return [dict(case.options) for case in planned(settings, check(settings), "random").cases]


@pytest.mark.parametrize(
    "texts",
    [
        ("pytorch.form=plain,tuned",),
        ("pytorch.form=plain, tuned",),
        ("pytorch.form=plain", "pytorch.form=tuned"),
        ("pytorch.form=plain,tuned", "pytorch.form=plain"),
    ],
)
def test_a_list_or_a_repeated_option(texts: tuple[str, ...]) -> None:
    assert sets(*texts) == [{"form": "plain"}, {"form": "tuned"}]


def test_an_empty_value_measures_without_the_option_too() -> None:
    assert sets("pytorch.compile=,default") == [{}, {"compile": "default"}]


def test_every_value_is_checked() -> None:
    with pytest.raises(BenchError, match=r"pytorch\.form is 'fast'"):
        sets("pytorch.form=plain,fast")


def test_the_name_of_a_file_may_hold_a_comma() -> None:
    settings = Settings(backends="onnxruntime", options=("onnxruntime.recipe=a,b.yaml",))
    assert check(settings).one_of("onnxruntime") == (("recipe", "a,b.yaml"),)


def test_one_configuration_where_only_one_is_measured() -> None:
    checked = check(Settings(options=("pytorch.form=plain,tuned",)))
    with pytest.raises(BenchError, match="several values"):
        checked.one_of("pytorch")
    assert checked.one_of("onnxruntime") == ()


def test_a_plan_file_takes_lists(tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("options: {pytorch: {form: [plain, tuned]}, onnxruntime: {ahead: 3}}")
    given = plan_file.read(path).settings()
    assert given["options"] == ("pytorch.form=plain", "pytorch.form=tuned", "onnxruntime.ahead=3")


def test_builds_are_cases_of_tensorrt_alone() -> None:
    settings = Settings(devices="cuda", scenarios="latency", batches="1", options=("tensorrt.build=1,2",))
    made = planned(settings, check(settings), "random").cases
    assert [(case.backend, dict(case.options)) for case in made] == [
        ("pytorch", {}),
        ("onnxruntime", {}),
        ("tensorrt", {"build": "1"}),
        ("tensorrt", {"build": "2"}),
    ]


def test_pairs_that_cannot_be_are_left_out_unless_they_are_named() -> None:
    settings = Settings(devices="cpu,cuda", scenarios="latency", batches="1")
    pairs = {(case.backend, case.device) for case in planned(settings, check(settings), "random").cases}
    assert {("tensorrt", "cuda"), ("openvino", "cpu")} <= pairs
    assert not {("tensorrt", "cpu"), ("openvino", "cuda")} & pairs
    named = Settings(devices="cpu", backends="tensorrt", scenarios="latency", batches="1")
    assert [case.backend for case in planned(named, check(named), "random").cases] == ["tensorrt"]


def test_a_recipe_is_of_the_rows_that_have_a_graph_of_it() -> None:
    settings = Settings(
        backends="onnxruntime",
        precisions="fp32,int8",
        scenarios="latency",
        batches="1",
        options=("onnxruntime.dialect=ort,symmetric", "onnxruntime.optimization=none"),
    )
    made = planned(settings, check(settings), "random").cases
    assert [(case.precision, dict(case.options)) for case in made] == [
        ("fp32", {"optimization": "none"}),
        ("int8", {"dialect": "ort", "optimization": "none"}),
        ("int8", {"dialect": "symmetric", "optimization": "none"}),
    ]
