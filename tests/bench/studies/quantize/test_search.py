"""The search on a fake network: what it tries, what it leaves in float, when it stops."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from bench.studies.quantize.groups import Node
from bench.studies.quantize.measured import BOUND, ESTIMATE, Measured
from bench.studies.quantize.search import Found, Search, backends, default_of, described, settings_to_try, variants_of
from export.precision.int8 import expand
from export.precision.recipe import Recipe, read_recipe, write_recipe
from scarlet.errors import BenchError

N = 1000
# How many predictions quantising each node breaks.
HARM = {
    "stem.1/Conv": 1,
    "block.0.bn1/Conv": 2,
    "block.0.bn2/Conv": 30,
    "block.1.bn1/Conv": 6,
    "block.1.bn2/Conv": 5,
    "classifier/Gemm": 0,
}
NODES = tuple(Node(name, name.split("/")[1], "bn2" in name) for name in HARM)
GOOD = Recipe("int8", "ort", per_channel=True)
BAD = Recipe("int8", "ort")


class Network:
    """Loses as many images as its quantised nodes harm; per-tensor weights cost 100 more."""

    def __init__(self, in_float: tuple[str, ...] = (), fails: Callable[[Recipe], bool] | None = None) -> None:
        self.asked: list[tuple[str, Recipe]] = []
        self._in_float, self._fails = in_float, fails or (lambda recipe: False)

    def __call__(self, label: str, recipe: Recipe) -> Measured | None:
        self.asked.append((label, recipe))
        if self._fails(recipe):
            return None
        left = set(expand(recipe.exclude, HARM))
        lost = sum(harm for name, harm in HARM.items() if name not in left)
        lost += 0 if recipe.per_channel else 100
        lost += 50 * recipe.reduce_range
        asked = [name for name in HARM if name not in left]
        in_float = tuple(name for name in self._in_float if name.removesuffix("/WithoutBiases") in asked)
        return Measured(label, recipe, N, 900, 0, lost, lost, lost / N, len(asked), len(HARM), in_float)


def searched(network: Network, margin: float = 1.0, budget: float = 1e9, cost: float = 0.0) -> tuple[Found, list[str]]:
    said: list[str] = []
    search = Search(NODES, network, margin, lambda: budget - cost * len(network.asked), budget, said.append)
    return search.run([BAD, GOOD]), said


def test_the_best_settings_lead_and_the_worst_block_stays_in_float_first() -> None:
    network = Network()
    found, said = searched(network, margin=1.5)
    assert found.base.recipe == GOOD
    assert replace(GOOD, reduce_range=True) in [recipe for _, recipe in network.asked]
    assert any("all depthwise" in label for label, _ in network.asked)
    greedy = [one for one in found.tried if "in float: block.0" in one.label]
    assert greedy[0].label.endswith("in float: block.0")
    assert greedy[0].recipe.exclude == ("block.0[./]*",)
    assert greedy[0].holds(1.5), "14 images may be lost, and 12 are with the block out"
    assert any(line.startswith("block.0 alone: 32 predictions changed") for line in said)


def test_it_goes_on_for_the_bound_and_then_stops() -> None:
    network = Network()
    found, _ = searched(network, margin=1.0)
    last = found.tried[-1]
    assert last.holds(1.0) == BOUND
    assert [one.holds(1.0) for one in found.tried[:-1]].count(BOUND) == 0
    assert set(expand(last.recipe.exclude, HARM)) < set(HARM)


def test_a_block_that_brings_nothing_stays_in_int8() -> None:
    class Odd(Network):
        """Loses ten more images where block.1 is in float beside block.0."""

        def __call__(self, label: str, recipe: Recipe) -> Measured | None:
            one = super().__call__(label, recipe)
            if one and label.endswith("block.0 + block.1"):
                return replace(one, losses=one.losses + 20, changed=one.changed + 20)
            return one

    found, _ = searched(Odd(), margin=0.1)
    kept = [one for one in found.tried if one.label.endswith("block.0 + stem")]
    assert kept, [one.label for one in found.tried]


def test_nothing_is_left_out_where_the_settings_hold_by_the_bound() -> None:
    found, _ = searched(Network(), margin=20.0)
    assert found.alone == {}
    assert found.base.holds(20.0) == BOUND


def test_what_the_runtime_computes_in_float_anyway_is_tried_in_float() -> None:
    found, _ = searched(Network(in_float=("block.1.bn2/Conv/WithoutBiases", "unknown")))
    spared = [one for one in found.tried if "what the runtime computes in float" in one.label]
    assert [one.recipe.exclude for one in spared] == [("block.1.bn2/Conv",)]


def test_the_budget_ends_the_search_and_keeps_what_was_found() -> None:
    network = Network()
    found, _ = searched(network, budget=5.0, cost=1.0)
    assert len(network.asked) == 5
    assert found.base is not None
    assert any("--budget" in note for note in found.notes)
    found, _ = searched(Network(), budget=1.5, cost=1.0)
    assert [one.recipe for one in found.tried][:1] == [BAD]
    assert any("settings not tried" in note and "per channel" in note for note in found.notes)


def test_recipes_that_cannot_be_made_are_passed_over() -> None:
    found, _ = searched(Network(fails=lambda recipe: recipe.per_channel))
    assert found.base.recipe == BAD
    assert searched(Network(fails=lambda recipe: True))[0].base is None


def test_an_interrupted_search_keeps_what_it_found() -> None:
    network = Network()

    def stop(label: str, recipe: Recipe) -> Measured | None:
        if len(network.asked) == 2:
            raise KeyboardInterrupt
        return network(label, recipe)

    search = Search(NODES, stop, 1.0, lambda: 1.0, 1.0, lambda line: None)
    with pytest.raises(KeyboardInterrupt):
        search.run([BAD, GOOD])
    assert len(search.found.tried) == 2


def test_the_margin_is_a_share_of_fp32s_accuracy() -> None:
    lost = Measured("x", GOOD, N, 900, wins=0, losses=9, changed=9, margin_shift=0.0, asked=1, layers=1)
    assert lost.holds(1.0) == ESTIMATE
    assert lost.holds(0.99) == ""
    assert lost.holds(5.0) == BOUND
    kept = lost.to_dict()
    assert (kept["top1_percent"], kept["difference_points"]) == pytest.approx((89.1, -0.9))
    assert kept["difference_points_95"][0] < -0.9 < kept["difference_points_95"][1]
    assert kept["recipe"]["per_channel"] is True


@pytest.mark.parametrize("backend", backends())
def test_settings_are_different_recipes_that_a_file_can_hold(backend: str, tmp_path: object) -> None:
    from pathlib import Path

    settings = settings_to_try(backend)
    assert len({recipe.key for recipe in settings}) == len(settings)
    assert len({described(recipe) for recipe in settings}) == len(settings)
    assert default_of(backend) in settings
    for recipe in settings:
        path = Path(str(tmp_path)) / "recipe.yaml"
        write_recipe(path, recipe)
        assert read_recipe(path) == recipe
    assert variants_of(Recipe("int8", "nncf")) == ()
    assert "7 bits" in described(variants_of(settings[0])[0])


def test_a_backend_without_recipes_is_named() -> None:
    with pytest.raises(BenchError, match="openvin"):
        settings_to_try("openvin")
