"""Random weights behave like a network's: logits that vary, images that get different classes."""

import numpy as np
import pytest
import torch
from torch import nn

from scarlet.foreign.checkpoint import weights_sha256
from scarlet.networks import scarlet
from scarlet.random_weights import NOISE_BATCH, NOISE_BATCHES, calibrate, initialise, noise_batches

SIZE = 64


@pytest.fixture(scope="module")
def batches():
    return list(noise_batches(SIZE, 0))


def calibrated(batches, seed=0):
    network = scarlet("scarlet_c")
    initialise(network, seed)
    calibrate(network, iter(batches))
    return network


@pytest.fixture(scope="module")
def network(batches):
    return calibrated(batches)


def logits(network, images):
    with torch.no_grad():
        return network(torch.from_numpy(images))


def test_logits_have_a_spread_and_tell_images_apart(network, batches):
    for images in (batches[0], next(noise_batches(SIZE, 7))):
        result = logits(network, images)
        assert 0.3 < float(result.std()) < 5
        assert len(set(result.argmax(1).tolist())) >= len(images) // 4
    centred = torch.cat([logits(network, images) for images in batches])
    assert float(centred.mean(0).abs().max()) < 1e-4
    assert float(centred.std()) == pytest.approx(1, rel=0.01)


def test_float32_is_close_to_float64_so_that_parity_means_something(network, batches):
    single = logits(network, batches[0])
    double = logits(scarlet_double(network), batches[0].astype(np.float64))
    assert float((single - double).abs().max()) < 1e-4 * float(single.std())


def scarlet_double(network):
    double = scarlet("scarlet_c")
    double.load_state_dict(network.state_dict())
    return double.double().eval()


def test_same_seed_same_weights_other_seed_other_weights(network, batches):
    assert weights_sha256(calibrated(batches).state_dict()) == weights_sha256(network.state_dict())
    first, second = scarlet("scarlet_c"), scarlet("scarlet_c")
    state = torch.get_rng_state()
    initialise(first, 1)
    initialise(second, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(first.stem[0].weight, second.stem[0].weight)


def test_batchnorm_statistics_are_the_average_over_batches():
    network = nn.Sequential(nn.BatchNorm2d(3))
    network[0].momentum = 0.1
    batches = [np.full((2, 3, 4, 4), value, np.float32) for value in (1, 2, 6)]
    calibrate(network, batches)
    assert torch.allclose(network[0].running_mean, torch.full((3,), 3.0))
    assert network[0].momentum == 0.1
    assert not network.training
    assert not network[0].training


def test_a_classifier_that_cannot_be_centred_is_left_alone():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 5, bias=False)

        def forward(self, x):
            return self.linear(x.flatten(1))

    network = Odd()
    before = network.linear.weight.clone()
    calibrate(network, [np.ones((2, 3, 2, 2), np.float32)])
    assert torch.equal(network.linear.weight, before)
    constant = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    calibrate(constant, [np.ones((2, 3, 2, 2), np.float32)])  # no spread: nothing to scale by
    assert all(bool(torch.isfinite(value).all()) for value in constant.state_dict().values())


@pytest.mark.parametrize("batches", [[], [np.zeros((1, 3, 2, 2), np.float32)]])
def test_too_few_images(batches):
    with pytest.raises(ValueError, match="at least 2"):
        calibrate(nn.Sequential(nn.BatchNorm2d(3)), batches)


def test_noise_is_seeded_and_has_the_spectrum_of_photographs(batches):
    assert len(batches) == NOISE_BATCHES
    assert batches[0].shape == (NOISE_BATCH, 3, SIZE, SIZE)
    assert batches[0].dtype == np.float32
    assert np.array_equal(batches[1], list(noise_batches(SIZE, 0))[1])
    assert not np.array_equal(batches[0], next(noise_batches(SIZE, 1)))
    power = (np.abs(np.fft.rfft2(batches[0])) ** 2).mean((0, 1))
    assert power[0, 2] / power[0, 16] == pytest.approx((16 / 2) ** 2, rel=0.5)
