"""Published figures: whole, with their sources, and the same wherever they are written."""

from __future__ import annotations

import pytest

from scarlet import zoo
from scarlet.zoo import published, rows


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
    assert row is not None
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


def test_printed_parameters_and_multiply_adds_are_those_of_the_networks() -> None:
    """The paper's figures, against the networks: to the rounding of the paper, or a little more."""
    from scarlet.cost import measure_cost
    from scarlet.networks import scarlet

    row = published("scarlet_c")
    assert row is not None
    cost = measure_cost(scarlet("scarlet_c"), 224)
    assert cost.parameters / 1e6 == pytest.approx(row.parameters_millions, abs=0.1)
    assert cost.multiply_adds / 1e6 == pytest.approx(row.multiply_adds_millions, abs=1.0)
