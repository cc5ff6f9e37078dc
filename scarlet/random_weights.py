"""Random weights whose logits behave like a network's: for latency, where no checkpoint is at hand.

PyTorch's initial weights are of no use in eval mode: with running means of 0 and variances of 1 a SCARLET
network shrinks its input at every block, and its logits end near 1e-13: any absolute tolerance passes.
Here BatchNorm is calibrated on images, and the classifier is centred and scaled on the same images.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from scarlet.networks import InvertedResidual, Scarlet

Pixels = NDArray[np.float32]

NOISE_BATCHES = 2
NOISE_BATCH = 16


def initialise(network: Scarlet, seed: int) -> None:
    """Gives a SCARLET network seeded weights; the global random state is left as it was.

    Convolutions: He et al. 2015 (arXiv 1502.01852), fan-out. The two BatchNorms before each h-swish get scale
    0.5 and shift 1, which keeps their outputs where h-swish is smooth: with scale 1 and shift 0 each block
    amplifies rounding differences, and float32 is three times further from float64.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()
            elif isinstance(layer, InvertedResidual):
                for bn in (layer.bn1, layer.bn2):
                    bn.weight.fill_(0.5)
                    bn.bias.fill_(1.0)


def calibrate(network: nn.Module, batches: Iterable[Pixels]) -> None:
    """Sets BatchNorm's running statistics from images, and the classifier's scale and shift.

    One pass with BatchNorm (alone) in training mode: the running statistics become the plain averages of the
    batches' statistics. Then, if the logits come straight from a linear layer with a bias, that layer is
    centred (each class has mean 0 over the images) and scaled (standard deviation 1 over images and classes):
    otherwise the features' common part decides, and every image gets the same class. A centred random
    classifier does tell images apart, though not as a trained one would.

    The network ends in eval mode. The same batches give the same weights on the same machine with the same
    number of threads (PyTorch's sums depend on it).

    Args:
        network: takes the batches and returns ``(n, classes)`` logits.
        batches: float32, ``(n, 3, h, w)``, normalised; held in memory for a second pass. At least 2 images.

    Raises:
        ValueError: there are fewer than 2 images.
    """
    images = [torch.from_numpy(np.ascontiguousarray(batch)) for batch in batches if len(batch)]
    if sum(map(len, images)) < 2:
        raise ValueError("calibration needs at least 2 images")
    network.eval()
    norms = [layer for layer in network.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    with torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # None: a cumulative average
            norm.train()
        for batch in images:
            network(batch)
        network.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        _standardise_classifier(network, images)


def _standardise_classifier(network: nn.Module, images: list[Tensor]) -> None:
    produced: list[tuple[nn.Linear, Tensor]] = []

    def remember(layer: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(layer, nn.Linear)
        produced[:] = [(layer, output)]

    with ExitStack() as hooks:
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                hooks.enter_context(layer.register_forward_hook(remember))
        logits = torch.cat([network(batch) for batch in images]).double()
    if not produced or produced[0][1].shape[1:] != logits.shape[1:] or produced[0][0].bias is None:
        return
    classifier = produced[0][0]
    mean = logits.mean(0)
    spread = (logits - mean).std()
    if not float(spread) > 0:
        return
    classifier.bias.copy_((classifier.bias - mean) / spread)
    classifier.weight.copy_(classifier.weight / spread)


def noise_batches(size: int, seed: int) -> Iterator[Pixels]:
    """Stand-ins for photographs: noise with a 1/f amplitude spectrum, as natural images have.

    Source of the spectrum: Field, "Relations between the statistics of natural images and the response
    properties of cortical cells", J. Opt. Soc. Am. A 4 (1987). Colours are correlated; contrast and
    brightness vary from image to image.

    Yields:
        ``NOISE_BATCHES`` arrays, float32, ``(NOISE_BATCH, 3, size, size)``, scaled like normalised images.
    """
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    amplitude = 1 / np.maximum(frequency, 1 / size)

    def field() -> NDArray[np.float64]:
        phase = np.exp(2j * np.pi * rng.random(amplitude.shape))
        plane = np.fft.irfft2(amplitude * phase, s=(size, size))
        return np.asarray((plane - plane.mean()) / plane.std())

    for _ in range(NOISE_BATCHES):
        batch = np.empty((NOISE_BATCH, 3, size, size), np.float32)
        for image in batch:
            light = field()
            for plane in image:
                plane[:] = 0.9 * light + 0.45 * field()
            image *= rng.uniform(0.5, 1.3)
            image += rng.normal(0, 0.5, (3, 1, 1)).astype(np.float32)
        yield batch
