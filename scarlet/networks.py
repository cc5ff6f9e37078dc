"""SCARLET-A, B and C: one block table per model, one network class.

Source: "SCARLET-NAS: Bridging the Gap between Stability and Scalability in Weight-sharing Neural Architecture
Search" (Chu et al., arXiv 1908.06022). Module names are those of the published checkpoints, so that these
load with ``strict=True``.
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

CLASSES = 1000
SQUEEZE_REDUCTION = 4  # of the expanded width

# A word per block: expansion-width-kernel-stride, with "se" where it has squeeze-excite; "I" is an identity.
BLOCK_TABLES = {
    "scarlet_a": """
        3-32-7-2 6-32-5-1
        3-40-5-2 3-40-7-1-se 6-40-3-1-se 3-40-5-1-se
        6-80-3-2-se 3-80-3-1 3-80-7-1-se 3-80-7-1
        3-96-5-1 3-96-7-1-se 3-96-3-1 3-96-7-1-se
        6-192-3-2-se 6-192-5-1-se 3-192-3-1-se 6-192-3-1-se
        6-320-7-1-se
    """,
    "scarlet_b": """
        3-32-3-2-se 3-32-5-1-se
        3-40-3-2-se 6-40-7-1-se 3-40-3-1 3-40-5-1
        6-80-7-2-se 3-80-3-1-se I 3-80-5-1
        3-96-3-1-se 3-96-3-1-se 6-96-7-1-se 3-96-3-1-se
        6-192-5-2-se 6-192-5-1-se I 6-192-7-1-se
        6-320-5-1-se
    """,
    "scarlet_c": """
        3-32-5-2-se 3-32-3-1-se
        3-40-5-2-se I I 3-40-3-1
        6-80-7-2-se 3-80-3-1-se 3-80-3-1-se 3-80-5-1
        3-96-7-1-se 3-96-7-1 3-96-3-1-se 3-96-7-1-se
        3-192-3-2-se I 6-192-3-1-se 6-192-7-1-se
        6-320-5-1-se
    """,
}


@dataclass(frozen=True)
class BlockSpec:
    """One inverted-residual block: expansion, output width, depthwise kernel, stride, squeeze-excite."""

    expansion: int
    width: int
    kernel: int
    stride: int
    squeeze_excite: bool


def block_specs(name: str) -> tuple[BlockSpec | None, ...]:
    """The 19 blocks of a model in order, ``None`` for an identity.

    Raises:
        KeyError: ``name`` is not in ``BLOCK_TABLES``.
    """
    return tuple(_parse(word) for word in BLOCK_TABLES[name].split())


def _parse(word: str) -> BlockSpec | None:
    if word == "I":
        return None
    expansion, width, kernel, stride, *rest = word.split("-")
    return BlockSpec(int(expansion), int(width), int(kernel), int(stride), rest == ["se"])


class SqueezeExcite(nn.Module):
    """Scales each channel by a gate computed from the channels' means. ``(n, width, h, w)`` in and out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        squeezed = width // SQUEEZE_REDUCTION
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze_conv = nn.Conv2d(width, squeezed, 1)
        self.relu = nn.ReLU(inplace=True)
        self.excite_conv = nn.Conv2d(squeezed, width, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate(self.excite_conv(self.relu(self.squeeze_conv(self.pool(x)))))
        return x * gate


class InvertedResidual(nn.Module):
    """Expand, depthwise, optional squeeze-excite, project; with a residual where shapes allow.

    Shapes ``(n, inputs, h, w)`` to ``(n, spec.width, ceil(h / stride), ceil(w / stride))``.
    """

    def __init__(self, inputs: int, spec: BlockSpec) -> None:
        super().__init__()
        expanded = inputs * spec.expansion
        self.residual = spec.stride == 1 and inputs == spec.width
        self.conv1 = nn.Conv2d(inputs, expanded, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(expanded)
        self.act1 = nn.Hardswish(inplace=True)
        self.conv2 = nn.Conv2d(
            expanded, expanded, spec.kernel, spec.stride, spec.kernel // 2, groups=expanded, bias=False
        )
        self.bn2 = nn.BatchNorm2d(expanded)
        self.act2 = nn.Hardswish(inplace=True)
        self.mid_se = SqueezeExcite(expanded) if spec.squeeze_excite else nn.Identity()
        self.conv3 = nn.Conv2d(expanded, spec.width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(spec.width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act1(self.bn1(self.conv1(x)))
        y = self.mid_se(self.act2(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        return x + y if self.residual else y


class Scarlet(nn.Module):
    """A SCARLET network.

    Args:
        specs: the blocks, ``None`` for an identity (which keeps its index but has no parameters).
    """

    def __init__(self, specs: tuple[BlockSpec | None, ...], classes: int = CLASSES) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(inplace=True))
        self.separable_conv = nn.Sequential(
            nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU6(inplace=True),
            nn.Conv2d(32, 16, 1, bias=False),
            nn.BatchNorm2d(16),
        )
        blocks: list[nn.Module] = []
        width = 16
        for spec in specs:
            blocks.append(nn.Identity() if spec is None else InvertedResidual(width, spec))
            width = width if spec is None else spec.width
        self.mb_module = nn.Sequential(*blocks)
        self.conv_before_pooling = nn.Sequential(
            nn.Conv2d(width, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6(inplace=True)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits for images.

        Args:
            x: float, ``(n, 3, h, w)``, normalised RGB.

        Returns:
            ``(n, classes)``.
        """
        x = self.mb_module(self.separable_conv(self.stem(x)))
        x = self.pool(self.conv_before_pooling(x))
        logits: Tensor = self.classifier(torch.flatten(x, 1))
        return logits


def scarlet(name: str) -> Scarlet:
    """The network of ``scarlet_a``, ``scarlet_b`` or ``scarlet_c``, with PyTorch's own initial weights.

    Raises:
        KeyError: there is no such model.
    """
    return Scarlet(block_specs(name))


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
