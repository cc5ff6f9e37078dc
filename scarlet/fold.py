"""Folds BatchNorm into the convolution before it, for inference."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from scarlet.networks import InvertedResidual

_BLOCK_PAIRS = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))


@dataclass(frozen=True)
class Folded:
    """A network for inference, and how much of it could be folded.

    Attributes:
        module: a copy, in eval mode; the original is not changed.
        pairs_folded: convolutions that took in a BatchNorm.
        batchnorms_left: BatchNorm layers that are still there.
    """

    module: nn.Module
    pairs_folded: int
    batchnorms_left: int


def fold_batchnorm(module: nn.Module) -> Folded:
    """Multiplies each BatchNorm's scale into the weights of the convolution that feeds it.

    Pairs are looked for where the order of calling is certain: neighbours in an ``nn.Sequential``, and the
    named pairs of a SCARLET block. Other networks (most of timm's) come back unfolded, and the counts say so.
    Logits keep their values to float32 rounding.
    """
    folded = copy.deepcopy(module).eval()
    count = 0
    for parent in list(folded.modules()):
        for conv_name, bn_name in _candidate_pairs(parent):
            conv, bn = parent._modules[conv_name], parent._modules[bn_name]
            # Exact types: a subclass may do more than its parent (timm's BatchNormAct2d also activates).
            if type(conv) is nn.Conv2d and type(bn) is nn.BatchNorm2d and bn.running_mean is not None:
                parent._modules[conv_name] = fuse_conv_bn_eval(conv, bn)
                parent._modules[bn_name] = nn.Identity()
                count += 1
    left = sum(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())
    return Folded(folded, count, left)


def _candidate_pairs(parent: nn.Module) -> list[tuple[str, str]]:
    if isinstance(parent, InvertedResidual):
        return list(_BLOCK_PAIRS)
    if isinstance(parent, nn.Sequential):
        names = list(parent._modules)
        return list(itertools.pairwise(names))
    return []
