"""The tolerances that ship, and what a user's file changes."""

from pathlib import Path

import pytest

from bench.record.case import PRECISIONS
from bench.studies.check.tolerances import load
from scarlet.errors import BenchError


def written(folder: Path, text: str) -> Path:
    path = folder / "gate.yaml"
    path.write_text(text)
    return path


def test_every_precision_has_its_class() -> None:
    config = load()
    assert {precision: config.of(precision)[0] for precision in PRECISIONS} == {
        "fp32": "identity",
        "tf32": "near",
        "fp16": "near",
        "bf16": "near",
        "int8": "int8",
    }
    name, identity = config.of("fp32")
    assert (name, identity.agreement_percent, identity.margin(0.9)) == ("identity", 99.9, 0.0005)
    assert config.of("bf16")[1].margin(0.9) == 0.001
    # 1 % of the baseline's top-1.
    assert config.of("int8")[1].margin(0.76) == pytest.approx(0.0076)
    assert config.alpha == 0.05
    assert not config.latency.enabled


def test_a_file_changes_only_what_it_names(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            "classes:\n  near: {margin_points: 0.2}\n  loose: {margin_points: 2}\n"
            "precisions: {bf16: loose}\nlatency: {tolerance_percent: 5}\n",
        )
    )
    assert config.of("fp16")[1].margin_points == 0.2
    assert config.of("bf16")[1].margin_points == 2
    assert config.of("fp32")[1].agreement_percent == 99.9
    assert config.latency.tolerance_percent == 5
    assert not config.latency.enabled


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("alfa: 0.1", "alfa: extra inputs"),
        ("alpha: 0.7", "alpha: input should be less than 0.5"),
        ("classes: {near: {margin_points: 0.1, margin_relative_percent: 1}}", "one of the two"),
        ("classes: {near: {agreement_percent: 99}}", "one of the two"),
        ("classes: {near: {margin_points: -1}}", "classes.near.margin_points"),
        ("precisions: {fp8: near}", "'fp8' is none of"),
        ("precisions: {fp16: nearly}", "the class 'nearly'"),
        ("precisions: []", "precisions"),
        ("- 1", "no mapping"),
        ("a: [", "gate.yaml, line 1"),
        ("alpha: .nan", "alpha"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BenchError) as raised:
        load(written(tmp_path, text))
    assert said in raised.value.what
    assert "\n" not in raised.value.what


def test_a_missing_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="cannot be read"):
        load(tmp_path / "nothing.yaml")
