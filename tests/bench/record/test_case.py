from __future__ import annotations

import pytest

from bench.record.case import Case, Plan, checked_counts, checked_names
from scarlet.errors import BenchError


def test_a_case_keeps_its_id_from_release_to_release() -> None:
    """Ids stand in published tables: a change of the hash would break every comparison with them."""
    assert Case("scarlet_c", "demo", "onnxruntime", batch=8, threads=2).case_id == "588e3d8f5f"


def test_cases_that_differ_in_any_field_have_different_ids() -> None:
    base = Case("m", "demo", "fake")
    others = [
        Case("n", "demo", "fake"),
        Case("m", "random", "fake"),
        Case("m", "demo", "pytorch"),
        Case("m", "demo", "fake", device="cuda"),
        Case("m", "demo", "fake", precision="int8"),
        Case("m", "demo", "fake", pipeline="reference"),
        Case("m", "demo", "fake", batch=2),
        Case("m", "demo", "fake", threads=2),
        Case("m", "demo", "fake", instances=2),
        Case("m", "demo", "fake", scenario="accuracy"),
        Case("m", "demo", "fake", options=(("seed", "1"),)),
    ]
    assert len({case.case_id for case in [base, *others]}) == 1 + len(others)


def test_a_case_survives_json() -> None:
    case = Case("m", "demo", "fake", batch=8, options=(("a", "1"), ("b", "2")))
    assert Case.from_dict(case.to_dict()) == case


def test_a_field_that_is_not_known_is_refused() -> None:
    with pytest.raises(TypeError):
        Case.from_dict({**Case("m", "demo", "fake").to_dict(), "colour": "red"})


def test_a_plan_expands_every_list_and_accuracy_uses_its_own_batch() -> None:
    plan = Plan("m", "demo", ("pytorch", "onnxruntime"), batches=(1, 8), threads=(1, 2))
    cases = plan.cases()
    accuracy = [case for case in cases if case.scenario == "accuracy"]
    latency = [case for case in cases if case.scenario == "latency"]
    assert len(accuracy) == 4
    assert {case.batch for case in accuracy} == {32}
    assert len(latency) == 8
    assert {(case.batch, case.threads, case.backend) for case in latency} == {
        (batch, threads, backend)
        for batch in (1, 8)
        for threads in (1, 2)
        for backend in ("pytorch", "onnxruntime")
    }


def test_instances_are_a_list_too_but_not_for_accuracy() -> None:
    cases = Plan("m", "demo", ("fake",), batches=(1,), instances=(1, 4)).cases()
    assert [(case.scenario, case.instances) for case in cases] == [
        ("accuracy", 1),
        ("latency", 1),
        ("latency", 4),
    ]


def test_several_pipelines_are_a_list_but_latency_uses_the_first() -> None:
    plan = Plan(
        *("m", "demo", ("pytorch", "fake")),
        pipelines=("reference", "dali"),
        batches=(1,),
        scenarios=("accuracy", "latency", "throughput"),
    )
    found = [(case.scenario, case.pipeline, case.backend) for case in plan.cases()]
    backends = ("pytorch", "fake")
    assert found == [
        *(("accuracy", pipeline, backend) for pipeline in ("reference", "dali") for backend in backends),
        *(("latency", "reference", backend) for backend in backends),
        *(("throughput", pipeline, backend) for pipeline in ("reference", "dali") for backend in backends),
    ]


def test_one_pipeline_gives_the_cases_and_ids_that_it_always_gave() -> None:
    cases = Plan("scarlet_c", "demo", ("pytorch", "onnxruntime"), batches=(8,), threads=(2,)).cases()
    assert [(case.scenario, case.case_id) for case in cases] == [
        ("accuracy", "a5c0b65e5e"),
        ("accuracy", "cdb051e05e"),
        ("latency", "42c571db5d"),
        ("latency", "588e3d8f5f"),
    ]


def test_a_label_names_what_read_the_images_where_it_matters() -> None:
    case = Case("m", "demo", "fake", pipeline="reference", scenario="throughput")
    assert case.label == "throughput reference fake cpu fp32 batch 1"
    assert Case("m", "demo", "fake").label == "latency fake cpu fp32 batch 1"


def test_options_reach_only_their_backend() -> None:
    plan = Plan(
        "m", "demo", ("pytorch", "fake"), options={"pytorch": {"form": ("plain",)}}, scenarios=("latency",)
    )
    options = {case.backend: case.options for case in plan.cases()}
    assert options == {"pytorch": (("form", "plain"),), "fake": ()}


def test_values_of_options_are_expanded_and_an_empty_one_is_none_given() -> None:
    given = {"pytorch": {"form": ("plain", "tuned"), "compile": ("", "default")}}
    cases = Plan("m", "demo", ("pytorch",), batches=(1,), options=given, scenarios=("latency",)).cases()
    assert [dict(case.options) for case in cases] == [
        {"form": "plain"},
        {"form": "tuned"},
        {"form": "plain", "compile": "default"},
        {"form": "tuned", "compile": "default"},
    ]
    assert len({case.case_id for case in cases}) == 4


def test_names_are_checked_once_each_and_near_ones_suggested() -> None:
    assert checked_names("backend", ["Fake", " pytorch", "fake"], ["fake", "pytorch"]) == ("fake", "pytorch")
    with pytest.raises(BenchError) as caught:
        checked_names("backend", ["pytroch"], ["fake", "pytorch"])
    assert caught.value.what == "unknown backend 'pytroch'"
    assert "pytorch" in caught.value.do
    with pytest.raises(BenchError, match="no backend"):
        checked_names("backend", ["", " "], ["fake"])


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "eight", ""])
def test_counts_are_whole_and_at_least_one(text: str) -> None:
    with pytest.raises(BenchError):
        checked_counts("batches", [text])


def test_counts_keep_their_order() -> None:
    assert checked_counts("batches", ["8", " 1", "8"]) == (8, 1)
