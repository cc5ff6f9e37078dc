"""What a run measures: what the command line and a plan file give, and the Cases that it expands to."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from bench import host
from bench.record.case import Case
from bench.run.spec import LOWERED_IMAGES, Rule, RunSpec, read_plan
from scarlet.errors import BenchError

FULL = """
model: scarlet_a
checkpoint: weights.pth
data: /images
pipeline: reference
backends: [pytorch, onnxruntime]
devices: cpu
precisions: [fp32]
batches: [1, 8, 64]
threads: [1, 2]
instances: 1
scenarios: [accuracy, latency]
images: all
budget: 120
timeout: 900.5
seed: 7
options:
  pytorch: {form: plain}
  onnxruntime: {ahead: 3}
exclude:
  - {backend: pytorch, batch: 64}
  - {threads: 1, batch: [8, 64]}
"""


def planned(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "plan.yaml"
    path.write_text(text)
    return read_plan(path)


def options_of(*texts: str) -> list[dict[str, str]]:
    spec = RunSpec(backends="pytorch", scenarios="latency", batches="1", options=texts)
    return [dict(case.options) for case in spec.cases()]


def test_a_plan_file_the_command_line_and_run_json_give_the_same(tmp_path: Path) -> None:
    spec = RunSpec(**planned(tmp_path, FULL))
    assert spec == RunSpec(
        model="scarlet_a",
        checkpoint="weights.pth",
        data="/images",
        pipeline="reference",
        backends="pytorch,onnxruntime",
        batches="1,8,64",
        threads="1,2",
        images="all",
        budget_seconds=120.0,
        timeout_seconds=900.5,
        seed=7,
        options=("pytorch.form=plain", "onnxruntime.ahead=3"),
        exclude=({"backend": ["pytorch"], "batch": [64]}, {"batch": [8, 64], "threads": [1]}),
    )
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_the_settings_of_a_run_that_an_earlier_version_wrote_are_read() -> None:
    stored = {
        "model": "scarlet_c",
        "checkpoint": None,
        "data": "/data/demo/512",
        "pipeline": "turbo,dali",
        "backends": "",
        "devices": "cpu",
        "precisions": "fp32",
        "batches": "1,8",
        "threads": "",
        "instances": "1",
        "scenarios": "accuracy,latency",
        "images": "",
        "budget_seconds": 60.0,
        "latency_limit_ms": None,
        "timeout_seconds": 1800.0,
        "seed": 0,
        "stop": "precision",
        "calibration": None,
        "options": ["pytorch.form=plain,tuned"],
        "exclude": [{"backend": ["pytorch"], "batch": [8]}],
    }
    spec = RunSpec.from_dict({**stored, "of_a_later_version": 1})
    assert spec.pipeline == ("turbo", "dali")
    assert spec.options == {"pytorch": {"form": ("plain", "tuned")}}
    labels = {"classes": None, "labels": None, "first_label": None, "restrict_classes": False, "real": None}
    since = {"output": None, "lives": None, "rotate_cores": False, "options": None, "preprocess": {}, **labels}
    assert {**spec.to_dict(), **since} == {**{name: stored[name] for name in stored if name != "stop"}, **since}


def test_keys_that_are_not_given_keep_their_defaults(tmp_path: Path) -> None:
    given = planned(tmp_path, "batches: 1, 4\nimages: 50\ndata:\n")
    assert given == {"batches": (1, 4), "images": "50"}
    assert RunSpec(**given) == RunSpec(batches=(1, 4), images=50)


def test_what_is_empty_is_what_suits_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "allowed_cores", lambda: 7)
    spec = RunSpec(threads="", backends="", pipeline="")
    assert (spec.threads, spec.lists["threads"]) == ((), (7,))
    assert spec.lists["backends"][:2] == ("pytorch", "onnxruntime")
    assert len(spec.lists["pipeline"]) == 1


def test_paths_are_taken_from_the_folder_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = RunSpec(
        model="onnx:net.onnx",
        checkpoint="weights.pth",
        data="images",
        calibration="~/calibration",
        options=("onnxruntime.recipe=a,b.yaml", "pytorch.form=plain"),
    ).absolute()
    assert spec.checkpoint == str(tmp_path / "weights.pth")
    assert spec.data == str(tmp_path / "images")
    assert spec.calibration == str(Path.home() / "calibration")
    assert spec.options["onnxruntime"] == {"recipe": (str(tmp_path / "a,b.yaml"),)}
    assert spec.options["pytorch"] == {"form": ("plain",)}
    assert (spec.model, spec.source) == ("onnx:net.onnx", f"onnx:{tmp_path / 'net.onnx'}")
    assert spec.absolute() == spec
    named = RunSpec(model="onnx:net.onnx", output="scores").absolute()
    assert (named.model, named.source) == ("onnx:net.onnx?output=scores", f"onnx:{tmp_path / 'net.onnx'}?output=scores")
    assert named.network.path == "net.onnx"
    assert named.but(seed=1).model == named.model
    assert "pytorch" not in named.lists["backends"], "an ONNX file has no module"
    assert RunSpec(checkpoint="demo").absolute() == RunSpec(checkpoint="demo")


def test_every_list_is_expanded_and_accuracy_uses_its_own_batch() -> None:
    spec = RunSpec(backends="pytorch,onnxruntime", batches="1,8", threads="1,2")
    cases = spec.cases("demo")
    accuracy = [case for case in cases if case.scenario == "accuracy"]
    latency = [case for case in cases if case.scenario == "latency"]
    assert len(accuracy) == 4
    assert {case.batch for case in accuracy} == {32}
    assert len(latency) == 8
    assert {(case.batch, case.threads, case.backend) for case in latency} == {
        (batch, threads, backend) for batch in (1, 8) for threads in (1, 2) for backend in ("pytorch", "onnxruntime")
    }
    assert {case.batch for case in spec.cases("demo", 4) if case.scenario == "accuracy"} == {4}


def test_instances_are_a_list_too_but_not_for_accuracy() -> None:
    cases = RunSpec(backends="fake", batches=1, instances="1,4").cases()
    assert [(case.scenario, case.instances) for case in cases] == [("accuracy", 1), ("latency", 1), ("latency", 4)]


def test_several_pipelines_are_a_list_but_latency_uses_the_first() -> None:
    spec = RunSpec(
        backends="pytorch,fake", pipeline="reference,dali", batches=1, scenarios="accuracy,latency,throughput"
    )
    backends = ("pytorch", "fake")
    assert [(case.scenario, case.pipeline, case.backend) for case in spec.cases()] == [
        *(("accuracy", pipeline, backend) for pipeline in ("reference", "dali") for backend in backends),
        *(("latency", "reference", backend) for backend in backends),
        *(("throughput", pipeline, backend) for pipeline in ("reference", "dali") for backend in backends),
    ]


@pytest.mark.parametrize(("scenarios", "expected"), [("latency,throughput", {8}), ("throughput", {1, 8})])
def test_beside_latency_throughput_takes_the_largest_batch(scenarios: str, expected: set[int]) -> None:
    spec = RunSpec(backends="fake", batches="1,8", scenarios=scenarios)
    assert {case.batch for case in spec.cases() if case.scenario == "throughput"} == expected
    assert {case.batch for case in spec.cases(fixed_batch=4) if case.scenario == "throughput"} == (
        {4} if "latency" in scenarios else expected
    )


def test_one_pipeline_gives_the_cases_and_ids_that_it_always_gave() -> None:
    spec = RunSpec(backends="pytorch,onnxruntime", pipeline="dali", batches=8, threads=2)
    assert [(case.scenario, case.case_id) for case in spec.cases("demo")] == [
        ("accuracy", "a5c0b65e5e"),
        ("accuracy", "cdb051e05e"),
        ("latency", "42c571db5d"),
        ("latency", "588e3d8f5f"),
    ]


def test_run_json_keeps_the_matrix_and_its_cases() -> None:
    spec = RunSpec(backends="pytorch", pipeline="dali", batches=8, threads=2, options=["pytorch.form=plain"])
    cases = spec.cases("demo", 4)
    assert spec.plan(cases, "demo", 4) == {
        "model": "scarlet_c",
        "weights": "demo",
        "backends": ["pytorch"],
        "devices": ["cpu"],
        "precisions": ["fp32"],
        "pipelines": ["dali"],
        "batches": [8],
        "threads": [2],
        "instances": [1],
        "scenarios": ["accuracy", "latency"],
        "accuracy_batch": 4,
        "options": {"pytorch": {"form": ["plain"]}},
        "cases": [case.to_dict() for case in cases],
    }


def test_pairs_that_cannot_be_are_left_out_unless_they_are_named() -> None:
    both = RunSpec(devices="cpu,cuda", scenarios="latency", batches="1")
    pairs = {(case.backend, case.device) for case in both.cases()}
    assert {("tensorrt", "cuda"), ("openvino", "cpu")} <= pairs
    assert not {("tensorrt", "cpu"), ("openvino", "cuda")} & pairs
    named = RunSpec(devices="cpu", backends="tensorrt", scenarios="latency", batches="1")
    assert [case.backend for case in named.cases()] == ["tensorrt"]


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
    assert options_of(*texts) == [{"form": "plain"}, {"form": "tuned"}]


def test_an_empty_value_measures_without_the_option_too() -> None:
    assert options_of("pytorch.compile=,default") == [{}, {"compile": "default"}]
    both = options_of("pytorch.form=plain,tuned", "pytorch.compile=,default")
    assert both == [
        {"form": "plain"},
        {"form": "tuned"},
        {"form": "plain", "compile": "default"},
        {"form": "tuned", "compile": "default"},
    ]


def test_options_reach_only_their_backend() -> None:
    spec = RunSpec(backends="pytorch,fake", options=["pytorch.form=plain"], scenarios="latency", batches=1)
    assert {case.backend: case.options for case in spec.cases()} == {"pytorch": (("form", "plain"),), "fake": ()}


def test_every_value_is_checked() -> None:
    with pytest.raises(BenchError, match=r"pytorch\.form is 'fast'"):
        options_of("pytorch.form=plain,fast")


def test_the_name_of_a_file_may_hold_a_comma() -> None:
    spec = RunSpec(options=("onnxruntime.recipe=a,b.yaml",))
    assert spec.options == {"onnxruntime": {"recipe": ("a,b.yaml",)}}


def test_one_configuration_where_only_one_is_measured() -> None:
    spec = RunSpec(backends="fake", scenarios="latency", batches=1, threads=1)
    assert spec.only_case() == Case(*("scarlet_c", spec.weights, "fake"), pipeline=spec.lists["pipeline"][0])
    with pytest.raises(BenchError, match="--batch names 2 values"):
        spec.but(batches="1,2").only_case()
    with pytest.raises(BenchError, match="several values"):
        spec.but(backends="pytorch", options=("pytorch.form=plain,tuned",)).only_case()
    assert spec.but(options=("pytorch.form=plain,tuned",)).only_case().options == ()


def test_a_plan_file_takes_lists(tmp_path: Path) -> None:
    given = planned(
        tmp_path, "options: {pytorch: {form: [plain, tuned]}, onnxruntime: {ahead: 3}}\npipeline: [reference, dali]"
    )
    assert given == {
        "options": {"pytorch": {"form": ("plain", "tuned")}, "onnxruntime": {"ahead": ("3",)}},
        "pipeline": ("reference", "dali"),
    }
    assert planned(tmp_path, "pipeline: reference, dali") == {"pipeline": ("reference", "dali")}


def test_builds_are_cases_of_tensorrt_alone() -> None:
    spec = RunSpec(devices="cuda", scenarios="latency", batches="1", options=("tensorrt.build=1,2",))
    assert [(case.backend, dict(case.options)) for case in spec.cases()] == [
        ("pytorch", {}),
        ("onnxruntime", {}),
        ("tensorrt", {"build": "1"}),
        ("tensorrt", {"build": "2"}),
    ]


def test_a_recipe_is_of_the_rows_that_have_a_graph_of_it() -> None:
    spec = RunSpec(
        backends="onnxruntime",
        precisions="fp32,int8",
        scenarios="latency",
        batches="1",
        options=("onnxruntime.dialect=ort,symmetric", "onnxruntime.optimization=none"),
    )
    assert [(case.precision, dict(case.options)) for case in spec.cases()] == [
        ("fp32", {"optimization": "none"}),
        ("int8", {"dialect": "ort", "optimization": "none"}),
        ("int8", {"dialect": "symmetric", "optimization": "none"}),
    ]


def test_rules_take_out_what_matches_all_their_keys(tmp_path: Path) -> None:
    spec = RunSpec(**planned(tmp_path, FULL))
    cases = spec.cases()
    assert {(case.backend, case.batch, case.threads) for case in cases if case.scenario == "latency"} == {
        *(("pytorch", 1, 1), ("pytorch", 1, 2), ("pytorch", 8, 2)),
        *(("onnxruntime", 1, 1), ("onnxruntime", 1, 2), ("onnxruntime", 8, 2), ("onnxruntime", 64, 2)),
    }
    assert sum(case.scenario == "accuracy" for case in cases) == 4
    assert len(spec.but(exclude=()).cases()) == len(cases) + 5
    assert spec.notes() == ()


def test_a_rule_on_batches_leaves_accuracy_alone_unless_it_names_it() -> None:
    accuracy, latency = RunSpec(backends="fake", batches=32).cases()
    assert not Rule(batch=[32]).matches(accuracy)
    assert Rule(batch=[32], scenario=["accuracy"]).matches(accuracy)
    assert Rule(backend=["fake"]).matches(accuracy)
    assert Rule(batch=[32]).matches(latency)


def test_a_rule_that_matches_nothing_is_said_and_one_that_leaves_nothing_is_refused(tmp_path: Path) -> None:
    text = "exclude: [{batch: 128}, {backend: [pytorch, onnxruntime], device: cuda}]\nbackends: pytorch"
    spec = RunSpec(**planned(tmp_path, text))
    assert spec.cases() == spec.but(exclude=()).cases()
    assert spec.notes() == (
        "exclude: {batch: 128} matches no Case of this plan",
        "exclude: {device: cuda, backend: ['pytorch', 'onnxruntime']} matches no Case of this plan",
    )
    with pytest.raises(BenchError, match=r"takes out all 3 Cases"):
        spec.but(exclude=[{"backend": "pytorch"}]).cases()


@pytest.mark.parametrize(
    ("text", "what", "advice"),
    [
        ("batchs: 1", "unknown key 'batchs'$", "batches"),
        ("quux: 1", "unknown key 'quux'$", "Choose from"),
        ("budgt: 1", "unknown key 'budgt'$", "budget"),
        ("exclude:\n - {backnd: pytorch, batch: x}", r"'exclude\[0\].backnd' \(and 1 more", "backend"),
        ("exclude:\n - {backend: pytoch}", r"exclude\[0\].backend: unknown backend 'pytoch'", "pytorch"),
        ("exclude:\n - {scenario: zzzzz}", r"exclude\[0\].scenario: unknown scenario", "latency"),
        ("exclude:\n - {}", r"exclude\[0\]: it names nothing", "backend"),
        ("exclude:\n - {batch: [1, y]}", r"exclude\[0\].batch\[1\] is 'y'", "whole number"),
        ("exclude: {backend: pytorch}", "exclude is {'backend': 'pytorch'}", "a list of combinations"),
        ("batches: [1, x]", r"batches\[1\] is 'x'", "whole number of at least 1"),
        ("batches: [1, -8]", r"batches\[1\] is -8", "whole number of at least 1"),
        ("threads: true", r"threads\[0\] is True", "whole number of at least 1"),
        ("instances: 1.5", r"instances\[0\] is 1.5", "whole number of at least 1"),
        ("backends: []", r"backends is \[\]", "a name"),
        ("backends: [pytroch]", "backends: unknown backend 'pytroch'", "pytorch"),
        ("pipeline: {dali: 1}", r"pipeline\[0\] is {'dali': 1}", "a name"),
        ("model: [a, b]", r"model is \['a', 'b'\]", "one text"),
        ("model: scarlet_d", "model: unknown model 'scarlet_d'", "scarlet_a"),
        ("real: real.json\nclasses: names.txt", "ImageNet.s 1000", "Leave one"),
        ("budget: soon", "budget is 'soon'$", "seconds above 0"),
        ("timeout: 0", "timeout is 0$", "seconds above 0"),
        ("budget: .inf", "budget is inf$", "seconds above 0"),
        ("images: 0", "images is 0$", "or all"),
        ("seed: a", "seed is 'a'$", "whole number"),
        ("lives: 5", "lives is 5", "an even number of at least 4, or 1"),
        ("options: {pytorch: {form: yes}}", r"options.pytorch.form\[0\] is True$", "quotes"),
        ("options: {pytorch: {form: }}", r"options.pytorch.form\[0\] is no value$", "quotes"),
        ("options: {pytroch: {form: plain}}", "options: unknown backend 'pytroch'", "pytorch"),
        ("a: b: c", "line 1: mapping values", "YAML"),
        ("seed: 1\nseed: 2", "line 2: the key 'seed' is given twice", "YAML"),
        ("? [a]\n: 3", "line 1: found unhashable key", "YAML"),
        ("!!python/object/apply:os.getcwd []", "line 1: could not determine a constructor", "YAML"),
        ("1: 2", "unknown key '1'", "Choose from"),
        ("", "holds nothing", "backends"),
        ("- 1", "holds no mapping", "backends"),
    ],
)
def test_a_mistake_is_one_clear_line_that_names_the_key(tmp_path: Path, text: str, what: str, advice: str) -> None:
    with pytest.raises(BenchError) as caught:
        planned(tmp_path, text)
    assert caught.value.what.startswith(str(tmp_path / "plan.yaml"))
    assert "\n" not in caught.value.what
    with pytest.raises(BenchError, match=what):
        raise BenchError(caught.value.what, "")  # `$` is the end of the line that says what is wrong
    assert advice in caught.value.do


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"batches": "0"}, "--batches 0 is not a whole number of at least 1"),
        ({"batches": "1,1.5"}, "--batches 1.5 is not a whole number of at least 1"),
        ({"threads": "-1"}, "--threads -1 is not a whole number of at least 1"),
        ({"batches": ""}, "no batch was named"),
        ({"devices": " ,"}, "no device was named"),
        ({"budget_seconds": 0.0}, "--budget 0 is not a number of seconds above 0"),
        ({"timeout_seconds": float("nan")}, "--timeout nan is not a number of seconds above 0"),
        ({"latency_limit_ms": 0.0}, "--latency-limit-ms 0 is not a number of milliseconds above 0"),
        ({"images": "none"}, "--images none is not a whole number of at least 1, or all"),
        ({"options": ["form=plain"]}, "--option 'form=plain' is not of the form backend.name=value"),
    ],
)
def test_a_mistake_on_the_command_line_names_the_option(given: dict[str, Any], what: str) -> None:
    with pytest.raises(BenchError) as caught:
        RunSpec(**given)
    assert caught.value.what == what


def test_a_list_keeps_its_order_and_each_value_once() -> None:
    spec = RunSpec(batches="8, 1,8", backends=" Fake,pytorch,fake")
    assert (spec.batches, spec.backends) == ((8, 1), ("fake", "pytorch"))


def test_a_file_that_cannot_be_read_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="No such file"):
        read_plan(tmp_path / "none.yaml")
    (tmp_path / "plan.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(BenchError, match="not UTF-8"):
        read_plan(tmp_path / "plan.yaml")


def test_all_demo_images_are_scored_where_a_row_is_not_fp32() -> None:
    assert RunSpec().n_images is None
    assert RunSpec(precisions="fp32,int8").n_images == LOWERED_IMAGES == 2000
    assert RunSpec(precisions="int8", scenarios="latency").n_images is None
    assert RunSpec(precisions="int8", data="somewhere").n_images is None
    assert RunSpec(precisions="int8", images="64").n_images == 64


def test_lists_that_expand_without_end_are_a_mistake() -> None:
    many = ",".join(map(str, range(1, 2000)))
    with pytest.raises(BenchError, match="Cases"):
        RunSpec(batches=many, threads=many, instances=many).cases()


@pytest.mark.parametrize(("type_", "expected"), [("float32", "fp32"), ("float16", "fp16")])
def test_rows_of_a_users_graph_have_its_own_precision(tmp_path: Path, type_: str, expected: str) -> None:
    weight = onnx.numpy_helper.from_array(np.ones((2, 3, 1, 1), type_), "weight")
    element = weight.data_type
    image, scores = (
        onnx.helper.make_tensor_value_info(name, element, ("n", channels, 8, 8))
        for name, channels in (("image", 3), ("scores", 2))
    )
    node = onnx.helper.make_node("Conv", ["image", "weight"], ["scores"], "first")
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [image], [scores], [weight])), tmp_path / "n")
    spec = RunSpec(model=f"onnx:{tmp_path / 'n'}", backends="onnxruntime")
    assert {case.precision for case in spec.cases()} == {expected}
    assert any(f"rows are {expected}" in note for note in spec.notes()) == (expected != "fp32")


def test_loadgen_takes_the_largest_batch_and_a_limit_where_there_is_one() -> None:
    spec = RunSpec(scenarios="SingleStream,server", backends="onnxruntime", batches="2,8", pipeline="turbo,dali")
    assert [(case.batch, case.options) for case in spec.cases()] == [(1, ()), (8, ())], "images in memory: one pipeline"
    limited = spec.but(latency_limit_ms=12.5)
    assert [case.options for case in limited.cases()] == [(), (("limit_us", "12500"),)]
