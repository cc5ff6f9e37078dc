"""What a network costs: parameters, multiply-adds, bytes moved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

FP32_BYTES = 4


@dataclass(frozen=True)
class LayerCost:
    """One leaf module, for one image.

    Attributes:
        name: dotted name in the network.
        kind: class name (``Conv2d``).
        parameters: trainable numbers of its own.
        multiply_adds: of convolutions and linear layers, biases not counted; 0 for others.
        bytes_moved: weights, inputs and outputs once each, in FP32: the traffic with nothing fused or cached.
    """

    name: str
    kind: str
    parameters: int
    multiply_adds: int
    bytes_moved: int


@dataclass(frozen=True)
class ModelCost:
    """A network's cost for one image.

    Attributes:
        layers: in the order in which they first ran.
        parameters: of the whole network, also those outside of leaf modules; shared ones counted once.
        multiply_adds: sum over the layers, as papers on mobile networks count them (conv + linear).
        bytes_moved: sum over the layers. Additions and multiplications written in ``forward`` itself
            (residuals, gates) are no modules, so are not seen.
    """

    layers: tuple[LayerCost, ...]
    parameters: int
    multiply_adds: int
    bytes_moved: int


@dataclass
class _Tally:
    module: nn.Module
    multiply_adds: int = 0
    activation_bytes: int = 0


def measure_cost(module: nn.Module, input_size: int) -> ModelCost:
    """Runs one zero image through the network with hooks on every leaf module.

    The training mode is restored, buffers are not touched (the pass runs in eval mode, without gradients).

    Args:
        module: a network that takes ``(1, 3, input_size, input_size)``, float32.
    """
    leaves = {name: _Tally(layer) for name, layer in module.named_modules() if not list(layer.children())}
    ran: dict[str, _Tally] = {}
    modes = {layer: layer.training for layer in module.modules()}
    handles = [tally.module.register_forward_hook(_hook(name, tally, ran)) for name, tally in leaves.items()]
    first = next(module.parameters(), torch.empty(0))
    try:
        module.eval()
        with torch.no_grad():
            module(torch.zeros(1, 3, input_size, input_size, device=first.device, dtype=first.dtype))
    finally:
        for handle in handles:
            handle.remove()
        for layer, training in modes.items():
            layer.training = training
    layers = tuple(_layer_cost(name, tally) for name, tally in ran.items())
    return ModelCost(
        layers=layers,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        bytes_moved=sum(layer.bytes_moved for layer in layers),
    )


def _hook(name: str, tally: _Tally, ran: dict[str, _Tally]) -> Any:
    def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        ran[name] = tally
        tally.activation_bytes += FP32_BYTES * (_numbers(inputs) + _numbers(output))
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            tally.multiply_adds += output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            tally.multiply_adds += output.numel() * layer.in_features

    return hook


def _numbers(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel()
    return sum(_numbers(item) for item in value) if isinstance(value, tuple | list) else 0


def _layer_cost(name: str, tally: _Tally) -> LayerCost:
    own = sum(parameter.numel() for parameter in tally.module.parameters())
    constants = sum(buffer.numel() for buffer in tally.module.buffers() if buffer.is_floating_point())
    return LayerCost(
        name=name,
        kind=type(tally.module).__name__,
        parameters=own,
        multiply_adds=tally.multiply_adds,
        bytes_moved=tally.activation_bytes + FP32_BYTES * (own + constants),
    )
