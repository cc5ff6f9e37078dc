import pytest

from bench.record.case import Case, checked_names
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


def test_a_label_names_what_read_the_images_where_it_matters() -> None:
    case = Case("m", "demo", "fake", pipeline="reference", scenario="throughput")
    assert case.label == "throughput reference fake cpu fp32 batch 1"
    assert Case("m", "demo", "fake").label == "latency fake cpu fp32 batch 1"


def test_names_are_checked_once_each_and_near_ones_suggested() -> None:
    assert checked_names("backend", ["Fake", " pytorch", "fake"], ["fake", "pytorch"]) == ("fake", "pytorch")
    with pytest.raises(BenchError) as caught:
        checked_names("backend", ["pytroch"], ["fake", "pytorch"])
    assert caught.value.what == "unknown backend 'pytroch'"
    assert "pytorch" in caught.value.do
    with pytest.raises(BenchError, match="no backend"):
        checked_names("backend", ["", " "], ["fake"])
