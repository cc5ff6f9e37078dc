"""Networks that others define: timm's and torchvision's, a callable of the user's, TorchScript, exported programs."""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scarlet.errors import BenchError, ModelUnavailable, error_text, unknown_name
from scarlet.preprocess import ModelSpec

_ABSENT_OPERATOR = re.compile("operator torchvision::(\\w+) does not exist")
_declared: list[Any] = []  # a declaration goes with its object


def network(spec: ModelSpec, pretrained: bool = False) -> nn.Module:
    """The network with the weights that its maker gives it: of a file its own, else initial ones.

    Args:
        spec: of kind ``timm``, ``torchvision`` or ``torch``.
        pretrained: fetch the published weights, or take them from the cache of huggingface_hub or torch.hub.

    Raises:
        BenchError: there is no such model or weights, or the file or callable gives no network.
        ModelUnavailable: the package does not import.
    """
    if spec.kind == "torch":
        if pretrained:
            raise BenchError(f"{spec.name} has no published weights", "Leave the checkpoint out, or name a file.")
        return _own(spec)
    name = spec.name if spec.name.startswith("hf-hub:") else spec.name.partition("/")[2]
    module = package(spec)
    with _fetching(spec) if pretrained or name == spec.name else nullcontext():
        if spec.kind == "timm":
            return module.create_model(name, pretrained=pretrained)  # type: ignore[no-any-return]
        return module.get_model(name, weights="DEFAULT" if pretrained else None)  # type: ignore[no-any-return]


@contextmanager
def _fetching(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the network, its proxies and its client: dozens of kinds
        raise BenchError(
            f"{spec.name} or its weights cannot be had: {error_text(error)[:300]}",
            "Connect to huggingface.co (HF_TOKEN for what is not public), or use --checkpoint random, or a file.",
        ) from error


def timm_config(spec: ModelSpec) -> Any:
    """timm's configuration of a model's pretrained weights; of ``hf-hub:`` that beside the weights there."""
    module, name = package(spec), re.split("[:/]", spec.name, maxsplit=1)[1]
    if not spec.name.startswith("hf-hub:"):
        return module.get_pretrained_cfg(name)
    with _fetching(spec):
        config = module.models.load_model_config_from_hf(name)[0]
    known = {field.name for field in fields(module.models.PretrainedCfg)}
    return module.models.PretrainedCfg(**{key: value for key, value in config.items() if key in known})


def package(spec: ModelSpec) -> Any:
    """timm, or torchvision's classifiers, once it is known to hold the model.

    Raises:
        BenchError: it does not; near names are suggested.
        ModelUnavailable: it does not import.
    """
    which, name = "timm" if spec.kind == "timm" else "torchvision.models", spec.name.partition("/")[2]
    try:
        module = _import(which)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelUnavailable(
            f"{spec.name} needs {spec.kind}, which does not import ({reason}): run make setup, which installs it"
        ) from error
    known = module.list_models() if which == "timm" else module.list_models(module=module)
    holds = module.is_model(name) if which == "timm" else name in known  # timm's have tags and older names besides
    if not spec.name.startswith("hf-hub:") and not holds:
        raise unknown_name(f"{spec.kind} model", name, known)
    return module


def _import(name: str) -> Any:
    """A module that may need torchvision, whose operators a build for another torch leaves undeclared: no classifier
    calls one, but importing does not go on without their names.
    """
    while True:
        try:
            return importlib.import_module(name)
        except Exception as error:
            absent = _ABSENT_OPERATOR.search(str(error))
            if absent is None or len(_declared) > 9:
                raise
            for half in [half for half in sys.modules if half.partition(".")[0] in ("torchvision", "timm")]:
                del sys.modules[half]
            declaring: Any = torch.library.Library
            library = declaring("torchvision", "FRAGMENT")
            library.define(f"{absent[1]}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _declared.append(library)


def program_size(spec: ModelSpec) -> int | None:
    """Height and width in pixels that an exported program takes; None of others, which do not say.

    Raises:
        BenchError: it takes one batch size only, or something else than images.
    """
    network = _own(spec) if str(spec.path).endswith(".pt2") else None
    if not isinstance(network, _Fixed):
        return None
    shapes = [node.meta["val"].shape for node in network.inner.graph.find_nodes(op="placeholder")]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][2] != shapes[0][3] or isinstance(shapes[0][0], int):
        found = ", ".join(" x ".join(map(str, shape)) for shape in shapes)
        raise BenchError(
            f"{spec.name} takes {found}; expected any number of square images",
            "Export it with dynamic_shapes=({0: torch.export.Dim('batch')},) from a batch of 2.",
        )
    return int(shapes[0][2])


class _Fixed(nn.Module):
    """A network that is what it was when it was saved: in eval mode or not, nothing can change that."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: Tensor) -> Tensor:
        return self.inner(pixels)  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> _Fixed:
        return self


def _trains(program: Any) -> bool:
    """Whether a dropout or normalisation computes as in training, and eval() cannot change that."""
    if isinstance(program, _Fixed):
        calls = [(str(node.target), list(node.args)) for node in program.inner.graph.nodes]
    else:
        kinds, graph = ("aten::dropout", "aten::batch_norm"), program.inlined_graph  # nodes go with their graph
        found = [node for kind in kinds for node in graph.findAllNodes(kind)]
        calls = [(node.kind(), [value.toIValue() for value in node.inputs()]) for node in found]
    flags = [args[5 if "batch_norm" in name else 2 :][:1] for name, args in calls if re.search("dropout|_norm", name)]
    return any(flag and flag[0] is True for flag in flags)


def _own(spec: ModelSpec) -> nn.Module:
    """What a file holds, or a callable returns."""
    path = Path(spec.path or "")
    if path.suffix in (".pt", ".pt2"):
        if not path.is_file():
            raise BenchError(f"'{path}' does not exist", "Check the path after 'torch:'.")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if path.suffix == ".pt":
                    load: Any = torch.jit.load
                    program = load(path, map_location="cpu").eval()
                else:
                    program = _Fixed(torch.export.load(path).module())
        except Exception as error:
            kind = "TorchScript (torch.jit.save)" if path.suffix == ".pt" else "an exported program (torch.export.save)"
            raise BenchError(
                f"'{path}' is not {kind}: {error_text(error)[:200]}",
                "Weights alone are a checkpoint: name their model, and the file with --checkpoint.",
            ) from error
        if _trains(program):
            what = f"{spec.name} was saved in training mode: what it answers depends on chance or on the other images"
            raise BenchError(what, "Call model.eval() before it is traced or exported.")
        return program  # type: ignore[no-any-return]
    folder, (name, _, attribute) = path.parent, path.name.partition(":")
    if not attribute:
        raise BenchError(
            f"'torch:{spec.path}' names no file and no callable",
            "Write torch:package.module:function, torch:net.pt (TorchScript) or torch:net.pt2 (an exported program).",
        )
    sys.path.insert(0, str(folder.resolve()))
    try:
        made = getattr(_import(name), attribute)()
    except Exception as error:
        raise BenchError(
            f"torch:{name}:{attribute} cannot be called: {type(error).__name__}: {error_text(error)[:300]}",
            f"Its module is looked for in {folder.resolve()}, and the callable gets no arguments.",
        ) from error
    finally:
        sys.path.pop(0)
    if not isinstance(made, nn.Module):
        raise BenchError(f"torch:{name}:{attribute} returned {type(made).__name__}", "It has to return an nn.Module.")
    return made
