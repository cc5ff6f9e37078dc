"""Joins what a runtime executes to the layers of the model.

A runtime fuses nodes, renames them and adds some of its own. Told by names first: a node that bears the name of a
model's node, perhaps with a prefix or suffix, stands for it. A node of the model that nobody bears the name of was
fused: a convolution into the activation after it where this one is executed by a convolution, all others into what
computes their input. What then stands for nothing is the runtime's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.backends.profiler import Node

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
    nodes: list[Node]
    members: list[ModelNode] = field(default_factory=list)
    place: int = -1

    @property
    def is_joined(self) -> bool:
        """Whether it belongs to a layer of the model."""
        return bool(self.members)

    @property
    def multiply_adds(self) -> int | None:
        """For one image; None where some member's are not known, or where it is none of the model's."""
        if not self.members or any(member.multiply_adds is None for member in self.members):
            return None
        return sum(member.multiply_adds or 0 for member in self.members)


def join(nodes: Sequence[Node], model: Sequence[ModelNode]) -> list[Joined]:
    """Every node of the runtime, in rows: by layer in the model's order, then the runtime's own by operator.

    Args:
        nodes: in order of execution.
        model: the nodes of the model's graph, in an order in which each follows those it reads from.
    """
    joint = _Joint(nodes, model)
    joint.by_names()
    joint.by_neighbours()
    joint.absorb()
    return joint.rows()


def join_modules(nodes: Sequence[Node], modules: Mapping[str, ModelNode]) -> list[Joined]:
    """As ``join``, for PyTorch's modules, whose names are the layers' names."""
    rows: dict[str, Joined] = {}
    for place, node in enumerate(nodes):
        member = modules.get(node.name)
        if member is None or node.op in CONTAINERS:
            own = rows.setdefault(_own(node.op), Joined(_own(node.op), []))
            own.nodes.append(node)
            continue
        rows.setdefault(member.layer, Joined(member.layer, [], [member], place)).nodes.append(node)
    return _ordered(rows.values())


class _Joint:
    """The state of a join: which of the model's nodes belong to which of the runtime's."""

    def __init__(self, nodes: Sequence[Node], model: Sequence[ModelNode]) -> None:
        self.nodes, self.model = nodes, model
        # A runtime may call a node by the value that it computes (OpenVINO does, of the last one).
        self.places = {name: place for place, node in enumerate(model) for name in (*node.outputs, node.name)}
        self.producer = {name: place for place, node in enumerate(model) for name in node.outputs}
        self.readers: dict[int, list[int]] = {}
        for place, node in enumerate(model):
            for name in node.inputs:
                if name in self.producer:
                    self.readers.setdefault(self.producer[name], []).append(place)
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

    def by_neighbours(self) -> None:
        """Nodes without a name, made when a function was written out: they lie behind a known one.

        If exactly one of the nodes that read the known one's result in the model was not found so far, it is that.
        """
        writer = {value: number for number, node in enumerate(self.nodes) for value in node.outputs}
        unknown: dict[int, list[int]] = {}
        for number, node in enumerate(self.nodes):
            if number in self.claims or node.op in CONVERSIONS:
                continue
            above = self._known_above(number, writer)
            missing = {reader for place in above for reader in self.readers.get(place, ()) if reader not in self.owner}
            if len(missing) == 1:
                unknown.setdefault(missing.pop(), []).append(number)
        for place, numbers in unknown.items():
            self.owner[place] = numbers[0]
            for number in numbers:
                self.claims.setdefault(number, []).append(place)

    def _known_above(self, number: int, writer: Mapping[str, int]) -> set[int]:
        """Places in the model of the nearest known nodes that this one reads from, through unknown ones."""
        found: set[int] = set()
        waiting, seen = [number], {number}
        while waiting:
            for value in self.nodes[waiting.pop()].inputs:
                above = writer.get(value)
                if above is None or above in seen:
                    continue
                seen.add(above)
                if above in self.claims:
                    found.add(max(self.claims[above]))
                else:
                    waiting.append(above)
        return found

    def absorb(self) -> None:
        """Gives each of the model's nodes that nobody claims to the runtime's node that it was fused into."""
        for number, places in list(self.claims.items()):
            if not any(self._arithmetic(self.model[place].op) for place in places) and self._arithmetic(
                self.nodes[number].op
            ):
                self._take_convolution_above(number, min(places))
        for place, node in enumerate(self.model):  # forwards: what is above has found its owner already
            if place not in self.owner:
                above = [self.producer[name] for name in node.inputs if name in self.producer]
                owned = [writer for writer in above if writer in self.owner]
                if owned:
                    self.owner[place] = self.owner[max(owned)]
        for place in reversed(range(len(self.model))):
            if place not in self.owner:
                owned = [reader for reader in self.readers.get(place, ()) if reader in self.owner]
                if owned:
                    self.owner[place] = self.owner[min(owned)]

    def _take_convolution_above(self, number: int, place: int) -> None:
        """``relu/Relu`` executed by a Conv: the convolution above it, and what lies between, is in there."""
        way = []
        while True:
            above = [self.producer[name] for name in self.model[place].inputs if name in self.producer]
            free = [writer for writer in above if writer not in self.owner]
            if len(free) != 1:
                return
            place = free[0]
            way.append(place)
            if self._arithmetic(self.model[place].op):
                for taken in way:
                    self.owner[taken] = number
                return

    @staticmethod
    def _arithmetic(op: str) -> bool:
        return bool(_ARITHMETIC.search(op))

    def rows(self) -> list[Joined]:
        members: dict[int, list[int]] = {}
        for place, number in sorted(self.owner.items()):
            members.setdefault(number, []).append(place)
        rows: dict[str, Joined] = {}
        for number, node in enumerate(self.nodes):
            places = members.get(number) or self.claims.get(number)
            if not places:
                rows.setdefault(_own(node.op), Joined(_own(node.op), [])).nodes.append(node)
                continue
            leading = next((p for p in places if self._arithmetic(self.model[p].op)), places[0])
            row = rows.setdefault(self.model[leading].layer, Joined(self.model[leading].layer, [], [], leading))
            row.nodes.append(node)
            row.members += [self.model[p] for p in places if self.model[p] not in row.members]
        return _ordered(rows.values())


def _own(op: str) -> str:
    return f"(runtime) {op}"


def _ordered(rows: Iterable[Joined]) -> list[Joined]:
    return sorted(rows, key=lambda row: (not row.is_joined, row.place))


def short_name(row: Joined) -> str:
    """The layers of a row in one text: ``mb_module.1.conv3 + bn3 + Add``.

    The first in full; of those beside it the last part; of what a module around it computes itself, the operator.
    """
    if not row.members:
        return row.layer
    ordered = [row.layer, *(member.layer for member in row.members)]
    first, *rest = dict.fromkeys(part for layer in ordered for part in layer.split(" + "))
    ops = {member.layer: member.op for member in row.members}
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


def block_names(rows: Sequence[Joined]) -> list[str]:
    """The block of each row.

    A block is a numbered part of a list of modules that have parts themselves: ``mb_module.3``. What comes before the
    first of them is ``stem``, behind the last ``head``; where there are none, the first part of a name is its block.
    """
    paths = [_path(row) for row in rows]
    numbered = {tuple(path[:2]) for path in paths if len(path) > 2 and path[1].isdecimal()}
    within = [place for place, path in enumerate(paths) if tuple(path[:2]) in numbered]
    names = []
    for place, (row, path) in enumerate(zip(rows, paths, strict=True)):
        if not row.is_joined or row.layer == NETWORK:
            names.append(row.layer)
        elif tuple(path[:2]) in numbered:
            names.append(".".join(path[:2]))
        elif within and place < within[0]:
            names.append("stem")
        elif within and place > within[-1]:
            names.append("head")
        else:
            names.append(path[0])
    return names


def _path(row: Joined) -> list[str]:
    """The parts of the leading layer's name; of a graph's node, of the module that the exporter wrote into its name."""
    if not row.is_joined:
        return []
    name = row.layer.split(" + ")[0]
    module = name.rpartition("/")[0].strip("/").replace("/", ".")
    parts: list[str] = []
    for part in (module or name).split("."):
        if not parts or part != parts[-1] or part.isdecimal():  # /layer1/layer1.0/conv1/Conv
            parts.append(part)
    return parts
