"""Costs of a network small enough to count by hand."""

import torch
from torch import nn

from scarlet.cost import measure_cost


class Shared(nn.Module):
    """Uses one convolution twice, and holds a parameter outside of any layer."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1, groups=3)
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.scale * self.conv(self.conv(x))


def test_each_layer_counted_by_hand():
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 10)
    )
    cost = measure_cost(network, 8)
    assert cost.layers == {"0": 4 * 4 * 4 * 27, "3": 640}
    assert cost.parameters == 108 + 8 + 650
    assert cost.multiply_adds == 4 * 4 * 4 * 27 + 640


def test_a_layer_that_runs_twice_costs_twice_but_has_its_parameters_once():
    cost = measure_cost(Shared(), 4)
    assert cost.layers == {"conv": 2 * 48 * 9}
    assert cost.parameters == 31


def test_the_network_is_left_as_it_was():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    network.train()
    network[1].eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    measure_cost(network, 4)
    assert network.training
    assert network[0].training
    assert not network[1].training
    assert not any(layer._forward_hooks for layer in network)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
