"""The values inside of a PyTorch network, by hooks, a few at a time.

Only what is asked for is kept, so that memory holds the values under comparison and never all activations.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Pixels = NDArray[np.float32]


class Values(Protocol):
    """Something that computes named values from images."""

    def of(self, names: Sequence[str], batches: Iterable[Pixels]) -> Generator[dict[str, NDArray[Any]]]:
        """The named values of each batch, with the batch as first axis."""
        ...


@dataclass(frozen=True)
class Call:
    """One call of a module during a forward pass.

    Attributes:
        name: dotted name of the module; empty for the whole network.
        index: counts the calls of this module from 0.
        shape: of its output without the batch.
        folds: key of the convolution or linear layer whose output is all that this BatchNorm reads, or "".
    """

    name: str
    index: int
    shape: tuple[int, ...]
    folds: str = ""

    @property
    def key(self) -> str:
        """How ``TorchValues`` names the output of this call."""
        return _key(self.name, self.index)


def _key(name: str, index: int) -> str:
    return f"{name}:{index}" if index else name


class _AllSeen(Exception):
    """Ends a forward pass once everything asked for has been computed."""


class TorchValues:
    """Outputs of a network's modules.

    A value's name is the module's dotted name; of a module that is called again, ``name:1`` for its second call.

    Args:
        module: in eval mode, float32, on the CPU.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def of(self, names: Sequence[str], batches: Iterable[Pixels]) -> Generator[dict[str, NDArray[Any]]]:
        """The outputs of the named calls for each batch; the forward pass ends with the last of them."""
        wanted = set(names)
        modules = dict(self.module.named_modules())
        found: dict[str, NDArray[Any]] = {}
        counts: dict[str, int] = {}

        def keep(name: str, output: object) -> None:
            key = _key(name, counts.get(name, 0))
            counts[name] = counts.get(name, 0) + 1
            if key in wanted and isinstance(output, Tensor):
                # Copied, because the activation that follows may work in place.
                found[key] = output.detach().clone().numpy()
                if len(found) == len(wanted):
                    raise _AllSeen

        handles = [
            modules[name].register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            for name in {name.partition(":")[0] for name in wanted}
        ]
        try:
            for batch in batches:
                found.clear()
                counts.clear()
                try:
                    with torch.inference_mode():
                        self.module(torch.from_numpy(np.ascontiguousarray(batch)))
                except _AllSeen:
                    pass
                yield dict(found)
        finally:
            for handle in handles:
                handle.remove()

    def calls(self, batch: Pixels) -> list[Call]:
        """Every call of a module that returns one tensor, in the order in which they end; keeps no tensors."""
        calls: list[Call] = []
        counts: dict[str, int] = {}
        last: tuple[str, Tensor] | None = None  # the layer that ended last, if it could be folded into

        def note(name: str, layer: nn.Module, inputs: tuple[Any, ...], output: object) -> None:
            nonlocal last
            if not isinstance(output, Tensor):
                return
            folds = ""
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and last and inputs[0] is last[1]:
                folds = last[0]
            call = Call(name, counts.get(name, 0), tuple(output.shape[1:]), folds)
            counts[name] = call.index + 1
            calls.append(call)
            if has_weights(layer):
                last = (call.key, output)
            elif last and output is not last[1]:  # a container hands the same tensor on
                last = None

        handles = [
            layer.register_forward_hook(
                lambda layer, inputs, output, name=name: note(name, layer, inputs, output)
            )
            for name, layer in self.module.named_modules()
        ]
        try:
            with torch.inference_mode():
                self.module(torch.from_numpy(np.ascontiguousarray(batch[:1])))
        finally:
            for handle in handles:
                handle.remove()
        return calls


def has_weights(layer: nn.Module) -> bool:
    """Whether this is a layer that exporters write as Conv, Gemm or MatMul, with its weights as an operand."""
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)
