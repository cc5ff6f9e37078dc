"""Gives a network's channels unequal scales without changing what it computes.

A network trained for minutes has channels of much the same range, and 8-bit integers with one scale a tensor
serve it well. Networks trained for long do not: their channels' ranges differ many times over, which is what
per-channel scales and cross-layer equalisation are for (Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", ICCV 2019). This does the reverse of equalisation, by powers of two, which
floating point multiplies by without error; so the demo weights can tell a careless quantiser from a careful one.
"""

from __future__ import annotations

import torch

from scarlet.networks import InvertedResidual, Scarlet

LARGEST_EXPONENT = (
    2  # 1 costs ONNX Runtime's default INT8 nothing that 400 images show, 3 half of its accuracy
)


def spread_channels(network: Scarlet, seed: int, largest_exponent: int = LARGEST_EXPONENT) -> None:
    """Scales each channel between two blocks by a power of two, and undoes it where the channel is read.

    Only the sums that blocks pass on are linear between writing (``bn3``) and reading (``conv1``, or the last
    convolution). Blocks joined by residuals share one set of scales.

    Args:
        network: changed in place.
        seed: of the exponents, which are even over -largest_exponent..largest_exponent.
        largest_exponent: at most this power of two.
    """
    generator = torch.Generator().manual_seed(seed)
    blocks = [block for block in network.mb_module if isinstance(block, InvertedResidual)]
    scales = torch.ones(0)
    with torch.no_grad():
        for place, block in enumerate(blocks):
            if place:
                block.conv1.weight.div_(scales[None, :, None, None])
            if not block.residual:
                width = block.bn3.num_features
                exponents = torch.randint(
                    -largest_exponent, largest_exponent + 1, (width,), generator=generator
                )
                scales = torch.exp2(exponents.float())
            block.bn3.weight.mul_(scales)
            block.bn3.bias.mul_(scales)
        network.conv_before_pooling[0].weight.div_(scales[None, :, None, None])  # type: ignore[operator]
