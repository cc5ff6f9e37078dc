"""Which nodes of a graph belong together: blocks, the parts of a block, and kinds of part across all blocks."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from export.precision.audit import HEAVY

_SQUEEZE_EXCITE = re.compile(r"(^|[._/])(mid_)?(se|squeeze_?excite|se_module)([._/]|$)")


@dataclass(frozen=True)
class Node:
    """A node of the graph to quantise: its name, its kind, and whether it is a depthwise convolution."""

    name: str
    kind: str
    depthwise: bool = False

    @property
    def is_heavy(self) -> bool:
        """A convolution or a matrix product."""
        return self.kind in HEAVY


@dataclass(frozen=True)
class Group:
    """Nodes that are quantised or left in float together."""

    name: str
    nodes: tuple[str, ...]


def nodes_of(model: object) -> tuple[Node, ...]:
    """The nodes of an ONNX graph whose nodes have names (``export.precision.int8.name_nodes``)."""
    graph = model.graph  # type: ignore[attr-defined]
    widths = {tensor.name: tensor.dims[0] for tensor in graph.initializer if len(tensor.dims) > 1}

    def depthwise(node: object) -> bool:
        groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)  # type: ignore[attr-defined]
        return groups > 1 and widths.get(node.input[1]) == groups  # type: ignore[attr-defined]

    return tuple(Node(node.name, node.op_type, node.op_type == "Conv" and depthwise(node)) for node in graph.node)


def blocks(nodes: Sequence[Node]) -> tuple[Group, ...]:
    """The blocks of a network that hold a convolution or a matrix product, in the graph's order.

    Exporters name a node after the module that it comes from (``mb_module.3.bn1/Conv``). A numbered module that has
    modules of its own is a block; a list of plain layers (``stem.0``, ``stem.1``) is one block together. A node whose
    name tells nothing is a block of its own.
    """
    paths = {node.name: _path(node.name) for node in nodes}
    nested = {prefix for path in paths.values() if (prefix := _numbered(path)) and len(path) > len(prefix)}
    lists = {prefix[:-1] for prefix in nested}
    members: dict[str, list[Node]] = {}
    for node in nodes:
        path = paths[node.name]
        prefix = _numbered(path)
        if prefix and prefix[:-1] in lists:
            name = ".".join(prefix)
        elif prefix:
            name = ".".join(prefix[:-1])
        else:
            name = ".".join(path)
        members.setdefault(name, []).append(node)
    return tuple(
        Group(name, tuple(node.name for node in inside))
        for name, inside in members.items()
        if any(node.is_heavy for node in inside)
    )


def parts(block: Group, nodes: Sequence[Node]) -> tuple[Group, ...]:
    """The squeeze-and-excite part, the depthwise convolutions and the rest of a block; none where all is one part."""
    inside = [node for node in nodes if node.name in set(block.nodes)]
    found: dict[str, list[str]] = {}
    for node in inside:
        found.setdefault(_part(node), []).append(node.name)
    heavy = {_part(node) for node in inside if node.is_heavy}
    if len(heavy) < 2:
        return ()
    return tuple(Group(f"{block.name}, {part}", tuple(found[part])) for part in found if part in heavy)


def across(nodes: Sequence[Node]) -> tuple[Group, ...]:
    """All squeeze-and-excite parts together, and all depthwise convolutions together, where the graph has them."""
    kinds = {kind: tuple(node.name for node in nodes if _part(node) == kind) for kind in (SQUEEZE_EXCITE, DEPTHWISE)}
    return tuple(Group(f"all {kind}", names) for kind, names in kinds.items() if names)


SQUEEZE_EXCITE, DEPTHWISE, REST = "squeeze-excite", "depthwise convolutions", "the rest"


def _part(node: Node) -> str:
    if _SQUEEZE_EXCITE.search(node.name):
        return SQUEEZE_EXCITE
    return DEPTHWISE if node.depthwise else REST


def patterns(excluded: Iterable[str], groups: Iterable[Group], nodes: Sequence[Node]) -> tuple[str, ...]:
    """The excluded names as a recipe writes them: a pattern for a whole block where one fits, else each name."""
    left, names = set(excluded), [node.name for node in nodes]
    written = []
    for group in groups:
        pattern = f"{group.name}[./]*"
        if set(group.nodes) <= left and set(fnmatch.filter(names, pattern)) == set(group.nodes):
            written.append(pattern)
            left -= set(group.nodes)
    return (*written, *(name for name in names if name in left))


def _path(name: str) -> tuple[str, ...]:
    module, slash, _ = name.rpartition("/")
    return tuple(part for part in re.split(r"[./]", module) if part) if slash and module else (name,)


def _numbered(path: tuple[str, ...]) -> tuple[str, ...]:
    """The path up to its first run of numbers, or nothing."""
    for place in range(1, len(path)):
        if path[place].isdecimal():
            end = place
            while end < len(path) and path[end].isdecimal():
                end += 1
            return path[:end]
    return ()
