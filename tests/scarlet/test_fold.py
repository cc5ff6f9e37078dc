"""Folding keeps the logits, leaves the original alone, and says what it did."""

import numpy as np
import pytest
import torch
from torch import nn

from scarlet.networks import fold_batchnorm, scarlet
from scarlet.random_weights import calibrate, initialise, noise_batches


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
