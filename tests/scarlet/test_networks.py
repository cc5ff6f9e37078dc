"""The three networks against the figures that are known of them."""

import numpy as np
import pytest
import torch
from torch import nn

from scarlet.cost import measure_cost
from scarlet.networks import BLOCK_TABLES, BlockSpec, InvertedResidual, block_specs, fold_batchnorm, scarlet
from scarlet.random_weights import calibrate, initialise, noise_batches


@pytest.mark.parametrize(
    ("name", "parameters", "multiply_adds"),
    [
        ("scarlet_a", 6_707_720, 365_307_392),
        ("scarlet_b", 6_531_556, 326_853_440),
        ("scarlet_c", 6_073_684, 280_082_912),
    ],
)
def test_parameters_and_multiply_adds_are_exact(name, parameters, multiply_adds):
    cost = measure_cost(scarlet(name), 224)
    assert (cost.parameters, cost.multiply_adds) == (parameters, multiply_adds)


@pytest.mark.parametrize("name", sorted(BLOCK_TABLES))
def test_every_model_has_19_blocks_ending_at_320(name):
    specs = block_specs(name)
    assert len(specs) == 19
    assert specs[-1].width == 320


def test_a_block_is_read_from_its_word():
    assert block_specs("scarlet_a")[:2] == (BlockSpec(3, 32, 7, 2, False), BlockSpec(6, 32, 5, 1, False))
    assert block_specs("scarlet_c")[0] == BlockSpec(3, 32, 5, 2, True)
    assert [i for i, spec in enumerate(block_specs("scarlet_c")) if spec is None] == [3, 4, 15]


def test_state_dict_has_the_published_names():
    keys = set(scarlet("scarlet_c").state_dict())
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def names(conv, norm):
        return {f"{conv}.weight", *(f"{norm}.{part}" for part in bn)}

    expected = names("stem.0", "stem.1")
    expected |= names("separable_conv.0", "separable_conv.1") | names("separable_conv.3", "separable_conv.4")
    for i, spec in enumerate(block_specs("scarlet_c")):
        if spec is None:
            continue  # an identity keeps its index and has no keys
        for part in (1, 2, 3):
            expected |= names(f"mb_module.{i}.conv{part}", f"mb_module.{i}.bn{part}")
        if spec.squeeze_excite:
            for conv in ("squeeze_conv", "excite_conv"):
                expected |= {f"mb_module.{i}.mid_se.{conv}.{part}" for part in ("weight", "bias")}
    expected |= names("conv_before_pooling.0", "conv_before_pooling.1")
    expected |= {"classifier.weight", "classifier.bias"}
    assert keys == expected


def test_shapes_of_the_published_tensors():
    state = scarlet("scarlet_c").state_dict()
    shapes = {
        "stem.0.weight": (32, 3, 3, 3),
        "separable_conv.0.weight": (32, 1, 3, 3),
        "separable_conv.3.weight": (16, 32, 1, 1),
        "mb_module.0.conv1.weight": (48, 16, 1, 1),
        "mb_module.0.conv2.weight": (48, 1, 5, 5),
        "mb_module.0.mid_se.squeeze_conv.weight": (12, 48, 1, 1),
        "mb_module.0.mid_se.excite_conv.bias": (48,),
        "mb_module.18.conv3.weight": (320, 1152, 1, 1),
        "conv_before_pooling.0.weight": (1280, 320, 1, 1),
        "classifier.weight": (1000, 1280),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


def test_residual_only_where_shapes_allow():
    assert InvertedResidual(32, BlockSpec(3, 32, 3, 1, False)).residual
    assert not InvertedResidual(32, BlockSpec(3, 32, 3, 2, False)).residual
    assert not InvertedResidual(32, BlockSpec(3, 40, 3, 1, False)).residual
    block = InvertedResidual(8, BlockSpec(3, 8, 3, 1, True)).eval()
    with torch.no_grad():
        block.bn3.weight.zero_()
        x = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(0))
        assert torch.equal(block(x), x)


def test_activations_are_those_of_the_paper():
    network = scarlet("scarlet_c")
    kinds = {name: type(layer).__name__ for name, layer in network.named_modules()}
    assert kinds["stem.2"] == kinds["separable_conv.2"] == kinds["conv_before_pooling.2"] == "ReLU6"
    assert kinds["mb_module.0.act1"] == kinds["mb_module.0.act2"] == "Hardswish"
    assert (kinds["mb_module.0.mid_se.relu"], kinds["mb_module.0.mid_se.gate"]) == ("ReLU", "Hardsigmoid")
    assert kinds["mb_module.3"] == "Identity"


def test_forward_gives_logits_for_other_sizes_too():
    with torch.no_grad():
        assert scarlet("scarlet_c").eval()(torch.zeros(2, 3, 96, 64)).shape == (2, 1000)


@pytest.fixture(scope="module")
def network():
    network = scarlet("scarlet_c")
    initialise(network, 0)
    calibrate(network, [np.concatenate(list(noise_batches(64, 0)))[:16]])
    return network


def test_logits_stay_and_every_pair_is_folded(network):
    folded = fold_batchnorm(network)
    images = torch.from_numpy(next(noise_batches(64, 0))[:8])
    with torch.no_grad():
        expected, found = network(images), folded.module(images)
    assert float((expected - found).abs().max()) <= 1e-5 * float(expected.abs().max())
    # 16 blocks of three, stem, two in the separable part, one before pooling
    assert (folded.pairs_folded, folded.batchnorms_left) == (52, 0)


def test_the_original_is_untouched(network):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    fold_batchnorm(network)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == 52


class ActivatingNorm(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class Elsewhere(nn.Module):
    """Registers a norm after a convolution, but calls it first."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.bn = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.conv(self.bn(x))


@pytest.mark.parametrize("network", [nn.Sequential(nn.Conv2d(3, 3, 1), ActivatingNorm(3)), Elsewhere()])
def test_uncertain_pairs_are_left_and_counted(network):
    network.eval()
    folded = fold_batchnorm(network)
    assert (folded.pairs_folded, folded.batchnorms_left) == (0, 1)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(folded.module(x), network(x))
