"""What a network costs: parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ModelCost:
    """A network's cost for one image.

    Attributes:
        layers: multiply-adds of each convolution and linear layer by its dotted name, in the order in which they first
            ran; biases are not counted.
        parameters: of the whole network; shared ones counted once.
    """

    layers: Mapping[str, int]
    parameters: int

    @property
    def multiply_adds(self) -> int:
        """Sum over the layers, as papers on mobile networks count them (conv + linear)."""
        return sum(self.layers.values())


def measure_cost(module: nn.Module, input_size: int) -> ModelCost:
    """Runs one zero image through the network with hooks on its convolutions and linear layers.

    The training mode is restored, buffers are not touched (the pass runs in eval mode, without gradients).

    Args:
        module: a network that takes ``(1, 3, input_size, input_size)``, float32.
    """
    layers: dict[str, int] = {}

    def counting(name: str) -> Any:
        def count(layer: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
            layers[name] = layers.get(name, 0) + output.numel() * layer.weight[0].numel()

        return count

    counted = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    modes = {layer: layer.training for layer in module.modules()}
    first = next(module.parameters(), torch.empty(0))
    with ExitStack() as hooks, torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, counted):
                hooks.enter_context(layer.register_forward_hook(counting(name)))
        try:
            module.eval()
            module(torch.zeros(1, 3, input_size, input_size, device=first.device, dtype=first.dtype))
        finally:
            for layer, training in modes.items():
                layer.training = training
    return ModelCost(layers, sum(parameter.numel() for parameter in module.parameters()))
