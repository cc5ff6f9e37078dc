"""What each layer of a PyTorch network computed in, watched from outside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

# What a layer's result is of in each precision. TF32 is float32 in memory; its switches are proved apart.
RESULT_TYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def plain_name(constant: object) -> str:
    """``torch.float32`` as ``float32``."""
    return str(constant).removeprefix("torch.")


def layer_precisions(module: nn.Module, run: Callable[[], object]) -> dict[str, tuple[str, str]]:
    """Class and result type of every convolution and linear layer by name."""
    from torch import nn

    seen: dict[str, tuple[str, str]] = {}

    def watch(name: str) -> Any:
        def look(layer: nn.Module, _: Any, result: torch.Tensor) -> None:
            seen[name] = (type(layer).__name__, plain_name(result.dtype))

        return look

    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                hooks.enter_context(layer.register_forward_hook(watch(name)))
        run()
    return seen


def other_precision(precision: str, layers: Mapping[str, tuple[str, str]]) -> str:
    """A sentence on layers whose result is of another type than the precision's; nothing where there is none."""
    wanted = RESULT_TYPES[precision]
    other = [f"{name} ({dtype})" for name, (_, dtype) in layers.items() if dtype != wanted]
    return f"these layers gave another type than {wanted}: {', '.join(other)}" if other else ""


def other_device(device: str, parameters: Mapping[str, torch.nn.Parameter]) -> str:
    """A sentence on parameters that lie elsewhere than on the Case's device; nothing where there is none."""
    elsewhere = [name for name, parameter in parameters.items() if parameter.device.type != device]
    return f"these weights are not on the {device}: {', '.join(elsewhere)}" if elsewhere else ""
