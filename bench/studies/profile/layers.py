"""Joins what a runtime executes to the layers of the model.

A runtime fuses nodes, renames them and adds some of its own. Told by names first: a node that bears the name of a
model's node, perhaps with a prefix or suffix, stands for it. A node of the model that nobody bears the name of was
fused: a convolution into the activation after it where this one is executed by a convolution, all others into what
computes their input. What then stands for nothing is the runtime's own.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.backends import make_backend, runs_module
from bench.backends.base import ModelFiles, RunsModule
from bench.backends.profiler import Node, node_names
from bench.record.case import Case
from scarlet.errors import BenchError

if TYPE_CHECKING:
    from torch import nn

    from export.compare.values import OnnxValues

# Operators that change layout or type and compute nothing. Unless the model has the very node, they are the runtime's.
CONVERSIONS = frozenset(
    {"ReorderInput", "ReorderOutput", "Reorder", "Transpose", "MemcpyFromHost", "MemcpyToHost"}
    | {"QuantizeLinear", "DequantizeLinear", "FakeQuantize", "Cast", "Convert"}
)
# Modules that only call others: their own time is Python's.
CONTAINERS = frozenset({"Sequential", "ModuleList", "ModuleDict"})
_ARITHMETIC = re.compile(r"Conv|Gemm|MatMul|FullyConnected")
# What runtimes are known to put around a node's name.
_DECORATION = re.compile(
    r"^(?:InsertedPrecisionFreeCast_|fused )+|(?:_nchwc|_nhwc|_token_\d+|/WithoutBiases|/fq_output_\d+)+$"
)

NETWORK = "(network)"  # what the network's own forward computes


@dataclass(frozen=True)
class ModelNode:
    """A node of the model's graph, or a module of its network.

    Attributes:
        name: of the node; dotted name of the module.
        op: its operator, or the module's class.
        layer: the layer it belongs to: dotted names of modules, joined by " + " where a BatchNorm was folded.
        inputs: values that it reads, constants included.
        multiply_adds: for one image; None where nobody knows.
    """

    name: str
    op: str
    layer: str
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    multiply_adds: int | None = 0


@dataclass
class Joined:
    """Nodes of the runtime that stand for the same layer.

    Attributes:
        layer: the layer with the arithmetic, or the first; ``(runtime) Reorder`` where it is none of the model's.
        members: of the model, in the model's order; empty where it is none of the model's.
        place: of the leading member in the model's order.
    """

    layer: str
    nodes: list[Node] = field(default_factory=list)
    members: list[ModelNode] = field(default_factory=list)
    place: int = -1

    @property
    def multiply_adds(self) -> int | None:
        """For one image; None where some member's are not known, or where it is none of the model's."""
        if not self.members or any(member.multiply_adds is None for member in self.members):
            return None
        return sum(member.multiply_adds or 0 for member in self.members)

    @property
    def name(self) -> str:
        """The layers in one text, ``mb_module.1.conv3 + bn3 + Add``: the first in full; of those beside it the last
        part; of what a module around it computes itself, the operator.
        """
        if not self.members:
            return self.layer
        ordered = [self.layer, *(member.layer for member in self.members)]
        first, *rest = dict.fromkeys(part for layer in ordered for part in layer.split(" + "))
        ops = {member.layer: member.op for member in self.members}
        around = first.rpartition(".")[0]
        parts = [first]
        for name in rest:
            tail = name.rpartition(".")[2]
            if around and name.startswith(f"{around}."):
                parts.append(f".{tail}" if tail.isdecimal() else name[len(around) + 1 :])
            elif around == name or around.startswith(f"{name}."):
                parts.append(ops.get(name, name))
            else:
                parts.append(name)
        return " + ".join(parts)


def join_case(case: Case, files: ModelFiles, nodes: Sequence[Node]) -> list[Joined]:
    """The nodes that a Case ran with the layers they belong to. Needs torch where the model is a network of ours."""
    if runs_module(case.backend):
        return join_modules(nodes, modules_of(case, files))
    return join(nodes, nodes_of(files))


def join(nodes: Sequence[Node], model: Sequence[ModelNode]) -> list[Joined]:
    """Every node of the runtime, in rows: by layer in the model's order, then the runtime's own by operator.

    Args:
        nodes: in order of execution.
        model: the nodes of the model's graph, in an order in which each follows those it reads from.
    """
    joint = _Joint(nodes, model)
    joint.by_names()
    joint.by_order()
    joint.absorb()
    return joint.rows()


def join_modules(nodes: Sequence[Node], modules: Mapping[str, ModelNode]) -> list[Joined]:
    """As ``join``, for PyTorch's modules, whose names are the layers' names."""
    rows: dict[str, Joined] = {}
    for place, node in enumerate(nodes):
        member = modules.get(node.name)
        if member is None or node.op in CONTAINERS:
            row = rows.setdefault(_own(node.op), Joined(_own(node.op)))
        else:
            row = rows.setdefault(member.layer, Joined(member.layer, [], [member], place))
        row.nodes.append(node)
    return _ordered(rows.values())


class _Joint:
    """The state of a join: which of the model's nodes belong to which of the runtime's."""

    def __init__(self, nodes: Sequence[Node], model: Sequence[ModelNode]) -> None:
        self.nodes, self.model = nodes, model
        # A runtime may call a node by the value that it computes (OpenVINO does, of the last one).
        self.places = {name: place for place, node in enumerate(model) for name in (*node.outputs, node.name)}
        producer = {name: place for place, node in enumerate(model) for name in node.outputs}
        self.above = [[producer[name] for name in node.inputs if name in producer] for node in model]
        self.readers: dict[int, list[int]] = {}
        for place, writers in enumerate(self.above):
            for writer in writers:
                self.readers.setdefault(writer, []).append(place)
        self.owner: dict[int, int] = {}  # place in the model -> place among the runtime's nodes
        self.claims: dict[int, list[int]] = {}  # the other way round: what a node is named after
        self._patterns = [
            (re.compile(rf"(?:^|[_ ]){re.escape(name)}(?:$|[_ /])"), len(name), place)
            for name, place in self.places.items()
            if not name.startswith(model[place].op)  # "Mul" is contained in many a name that means another
        ]

    def by_names(self) -> None:
        """Exact names first: ``act/HardSwish_QuantizeLinear`` is not the HardSwish where that one runs too."""
        decorated: list[tuple[int, int]] = []
        for number, node in enumerate(self.nodes):
            for name in node.originals:
                if name in self.places:
                    self._claim(number, self.places[name])
                elif node.op not in CONVERSIONS and (place := self._contained(name)) is not None:
                    decorated.append((number, place))
        for number, place in decorated:
            self._claim(number, place)

    def _claim(self, number: int, place: int) -> None:
        if self.owner.setdefault(place, number) == number and place not in self.claims.get(number, ()):
            self.claims.setdefault(number, []).append(place)

    def _contained(self, name: str) -> int | None:
        """The model's node with this name under its decoration, or the longest name that is a part of this one."""
        bare = _DECORATION.sub("", name)
        if bare in self.places:
            return self.places[bare]
        found = [(length, place) for pattern, length, place in self._patterns if pattern.search(name)]
        return max(found)[1] if found else None

    def by_order(self) -> None:
        """Nodes without a name, made when a function was written out: they run behind a known one.

        If exactly one of the nodes that read the known one's result in the model was not found so far, it is that.
        """
        unknown: dict[int, list[int]] = {}
        before: int | None = None
        for number, node in enumerate(self.nodes):
            if number in self.claims:
                before = max(self.claims[number])
            elif before is not None and node.op not in CONVERSIONS:
                missing = [reader for reader in self.readers.get(before, ()) if reader not in self.owner]
                if len(missing) == 1:
                    unknown.setdefault(missing[0], []).append(number)
        for place, numbers in unknown.items():
            self.owner[place] = numbers[0]
            self.claims.update((number, [place]) for number in numbers)

    def absorb(self) -> None:
        """Gives each of the model's nodes that nobody claims to the runtime's node that it was fused into."""
        for number, places in self.claims.items():
            if _computes(self.nodes[number].op) and not any(_computes(self.model[place].op) for place in places):
                self._take_convolution_above(number, min(places))
        for place in range(len(self.model)):  # forwards: what is above has found its owner already
            if place not in self.owner and (owned := [one for one in self.above[place] if one in self.owner]):
                self.owner[place] = self.owner[max(owned)]
        for place in reversed(range(len(self.model))):
            if place not in self.owner and (owned := [one for one in self.readers.get(place, ()) if one in self.owner]):
                self.owner[place] = self.owner[min(owned)]

    def _take_convolution_above(self, number: int, place: int) -> None:
        """``relu/Relu`` executed by a Conv: the convolution above it, and what lies between, is in there."""
        way: list[int] = []
        while not (way and _computes(self.model[place].op)):
            free = [writer for writer in self.above[place] if writer not in self.owner]
            if len(free) != 1:
                return
            place = free[0]
            way.append(place)
        self.owner.update(dict.fromkeys(way, number))

    def rows(self) -> list[Joined]:
        members: dict[int, list[int]] = {}
        for place, number in sorted(self.owner.items()):
            members.setdefault(number, []).append(place)
        rows: dict[str, Joined] = {}
        for number, node in enumerate(self.nodes):
            places = members.get(number) or self.claims.get(number) or []
            leading = next((place for place in places if _computes(self.model[place].op)), places[0] if places else -1)
            layer = self.model[leading].layer if places else _own(node.op)
            row = rows.setdefault(layer, Joined(layer, place=leading))
            row.nodes.append(node)
            row.members += [self.model[place] for place in places if self.model[place] not in row.members]
        return _ordered(rows.values())


def _computes(op: str) -> bool:
    return bool(_ARITHMETIC.search(op))


def _own(op: str) -> str:
    return f"(runtime) {op}"


def _ordered(rows: Iterable[Joined]) -> list[Joined]:
    return sorted(rows, key=lambda row: (not row.members, row.place))


def modules_of(case: Case, files: ModelFiles) -> dict[str, ModelNode]:
    """The modules of the network in the form in which the Case runs it, by name."""
    from scarlet.cost import measure_cost

    backend = make_backend(case.backend)
    assert isinstance(backend, RunsModule)
    module = backend.network(case, files)
    costs = measure_cost(module, files.input_size).layers
    return {
        name: ModelNode(name, type(part).__name__, name or NETWORK, multiply_adds=costs.get(name, 0))
        for name, part in module.named_modules()
    }


def nodes_of(files: ModelFiles) -> list[ModelNode]:
    """The nodes of the FP32 graph with their layers. A graph of lower precision is made of it and keeps its names."""
    from export.compare.values import OnnxValues

    graph = OnnxValues.load(Path(files.onnx))
    return network_nodes(files.network() if files.state is not None else None, graph, files.input_size)


def network_nodes(module: nn.Module | None, graph: OnnxValues, input_size: int) -> list[ModelNode]:
    """A graph's nodes, in its order, with the layers of the network that it was exported from and their multiply-adds.

    Without a network, or where names do not tell which node is which layer, each node bears its own name.
    """
    layers: dict[str, str] = {}
    costs: Mapping[str, int | None] = graph.multiply_adds()
    if module is not None:
        with suppress(BenchError):
            layers, costs = _layers_of(module, graph, input_size)
    nodes = graph.model.graph.node
    return [
        ModelNode(
            name=name,
            op=node.op_type,
            layer=layers.get(node.output[0], name),
            inputs=tuple(filter(None, node.input)),
            outputs=tuple(filter(None, node.output)),
            multiply_adds=costs.get(node.output[0], 0),
        )
        for node, name in zip(nodes, node_names(nodes), strict=True)
    ]


def _layers_of(module: nn.Module, graph: OnnxValues, input_size: int) -> tuple[dict[str, str], dict[str, int]]:
    """The layer and its multiply-adds by the value that a graph computes for it."""
    from export.compare.pairing import pair_module
    from export.compare.values import TorchValues
    from scarlet.cost import measure_cost

    calls = TorchValues(module).calls(np.zeros((1, 3, input_size, input_size), np.float32))
    layers = {layer.other: layer.name for layer in pair_module(module, graph, calls)}
    times = Counter(call.name for call in calls)
    costs = {name: cost // times[name] for name, cost in measure_cost(module, input_size).layers.items()}
    parts = {value: [part.partition(":")[0] for part in name.split(" + ")] for value, name in layers.items()}
    return layers, {value: sum(costs.get(name, 0) for name in names) for value, names in parts.items()}
