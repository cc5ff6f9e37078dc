"""Which nodes of a graph belong together: blocks, and kinds of node across all blocks."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from export.precision.audit import HEAVY

_SQUEEZE_EXCITE = re.compile(r"(^|[._/])(mid_)?(se|squeeze_?excite|se_module)([._/]|$)")


class Node(NamedTuple):
    """A node of the graph to quantise: its name, its kind, and whether it is a depthwise convolution."""

    name: str
    kind: str
    depthwise: bool = False


class Group(NamedTuple):
    """Nodes that are quantised or left in float together."""

    name: str
    nodes: tuple[str, ...]


def nodes_of(model: Any) -> tuple[Node, ...]:
    """The nodes of an ONNX graph whose nodes have names (``export.precision.int8.name_nodes``)."""
    widths = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer if len(tensor.dims) > 1}

    def depthwise(node: Any) -> bool:
        groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
        return groups > 1 and widths.get(node.input[1]) == groups

    return tuple(Node(node.name, node.op_type, node.op_type == "Conv" and depthwise(node)) for node in model.graph.node)


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
        prefix = _numbered(paths[node.name])
        whole = prefix if prefix[:-1] in lists else prefix[:-1]
        members.setdefault(".".join(whole or paths[node.name]), []).append(node)
    return tuple(
        Group(name, tuple(node.name for node in inside))
        for name, inside in members.items()
        if any(node.kind in HEAVY for node in inside)
    )


def across(nodes: Sequence[Node]) -> tuple[Group, ...]:
    """All squeeze-and-excite parts together, and all depthwise convolutions together, where the graph has them."""
    squeezing = [node.name for node in nodes if _SQUEEZE_EXCITE.search(node.name)]
    depthwise = [node.name for node in nodes if node.depthwise and node.name not in squeezing]
    kinds = {"all squeeze-excite": squeezing, "all depthwise convolutions": depthwise}
    return tuple(Group(name, tuple(members)) for name, members in kinds.items() if members)


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
